"""Embeddings and indexes to the Hub and back, in Python and as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import (
    HubAccessError,
    HubConflictError,
    HubCorruptError,
    HubError,
    HubNotFoundError,
    ZooIndexError,
)
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.cli_stub import run
from tests.support.hub import HubServer, card
from tests.support.synthetic import TINY, embedding, image_folder, zoo

REPO = "org/shared"
FILE = "task2vec/embedding.safetensors"
PLAIN = zoo(weights_hash="ef" * 32)  # of another probe: no nearest tasks, and no heat map, which takes time
OTHER = {"name": "org/other-probe", "weights_hash": "cd" * 32}


@pytest.fixture(autouse=True)
def _in_an_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def same(a: TaskEmbedding, b: TaskEmbedding) -> bool:
    return a.to_bytes() == b.to_bytes()


def push(hub: HubServer, what: TaskEmbedding | None = None, repo_id: str = REPO, **options: Any) -> Any:
    return (what or embedding()).push_to_hub(repo_id, **{"token": hub.tokens.write, "index": PLAIN, **options})


# ---------------------------------------------------------------------------------------------------- embeddings


def test_there_and_back(hub: HubServer) -> None:
    pushed = push(hub, private=True, index=zoo())
    assert str(pushed) == pushed.url == f"{hub.endpoint}/datasets/{REPO}"
    assert pushed.created
    assert pushed.pull_request is None
    repo = hub.repo(REPO, "dataset")
    assert repo.private
    assert pushed.commit == repo.refs["refs/heads/main"].oid
    assert set(repo.files()) == {".gitattributes", "README.md", FILE} == {".gitattributes", *pushed.files}
    assert same(TaskEmbedding.from_pretrained(REPO, token=hub.tokens.read), embedding())
    assert same(TaskEmbedding.from_pretrained(REPO, token=hub.tokens.read, revision=pushed.commit), embedding())
    for content in repo.files().values():
        assert b"hf_loopback" not in content
    with pytest.raises(HubNotFoundError, match=r"No Hub repository 'org/shared' \(or it is private"):
        TaskEmbedding.from_pretrained(REPO, token=hub.tokens.other, cache_dir="empty")


def test_again(hub: HubServer) -> None:
    """The same again makes no commit; another embedding of the same task takes the place of the first."""
    first = push(hub, license="mit", index=zoo())
    second = push(hub, license="mit", index=zoo())
    assert (second.commit, second.created) == (first.commit, False)
    other = embedding(2, probe=OTHER, task={"dataset": "task0"})
    push(hub, other)
    assert same(TaskEmbedding.from_pretrained(REPO), other)
    card = hub.repo(REPO).read("README.md").decode()
    assert "license: mit" in card
    assert "| probe | org/other-probe |" in card


def test_another_task_another_visibility_or_somebody_elses_card_is_refused(hub: HubServer) -> None:
    push(hub)
    before = hub.repo(REPO).files()
    with pytest.raises(
        HubConflictError, match=r"the dataset in .* is 'task0', and this one is 'task1'; push to another repos"
    ):
        push(hub, embedding(1))
    with pytest.raises(HubConflictError, match=r"the kind in .* is 'embedding', and this one is 'index'"):
        zoo().push_to_hub(REPO, token=hub.tokens.write)
    assert hub.repo(REPO).files() == before
    with pytest.raises(HubConflictError, match=r"exists and is public, but private=True"):
        push(hub, private=True)
    hub.create_dataset("org/data", {"README.md": card(license="mit", tags=["task2vec"])})
    with pytest.raises(HubConflictError, match=r"holds something else: .*with into_dataset=True \(--into-dataset\)"):
        push(hub, repo_id="org/data")


def test_into_the_dataset_by_a_pull_request(hub: HubServer) -> None:
    readme = card(license="mit")
    hub.create_dataset("org/data", {"README.md": readme})
    own = embedding(task={"dataset": "org/data"})
    token = hub.tokens.other  # somebody without the right to write
    pushed = push(hub, own, "org/data", token=token)
    assert pushed.url == pushed.pull_request == f"{hub.endpoint}/datasets/org/data/discussions/1"
    repo = hub.repo("org/data")
    assert set(repo.files()) == {"README.md"}
    assert set(repo.files("refs/pr/1")) == {"README.md", FILE}
    assert repo.read("README.md", "refs/pr/1") == readme
    assert list(repo.pull_requests) == [1]
    assert same(TaskEmbedding.from_pretrained("org/data", revision="refs/pr/1"), own)
    with pytest.raises(HubNotFoundError, match="holds no task embedding"):
        TaskEmbedding.from_pretrained("org/data")
    repo.merge(1)
    assert same(TaskEmbedding.from_pretrained("org/data"), own)
    with pytest.raises(HubNotFoundError, match="a pull request needs an existing one"):
        push(hub, own, "org/absent", into_dataset=True)
    with pytest.raises(HubError, match="not both"):
        push(hub, own, "org/data", create_pr=True, revision="dev")


def test_pull_request_and_branch(hub: HubServer) -> None:
    push(hub)
    changed = embedding(config={"seed": 5})
    proposed = push(hub, changed, create_pr=True, token=hub.tokens.other)
    assert proposed.pull_request
    assert same(TaskEmbedding.from_pretrained(REPO), embedding())
    push(hub, changed, revision="dev", message="Try")
    assert same(TaskEmbedding.from_pretrained(REPO, revision="dev"), changed)
    assert hub.repo(REPO).refs["refs/heads/dev"].title == "Try"
    with pytest.raises(HubNotFoundError, match="has no revision 'v9'; pass a branch, a tag or a full commit hash"):
        TaskEmbedding.from_pretrained(REPO, revision="v9")
    push(hub, repo_id="org/fresh", revision="dev")
    assert same(TaskEmbedding.from_pretrained("org/fresh", revision="dev"), embedding())


def test_a_commit_in_between_is_built_upon(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    push(hub)
    plain, others = HfApi.create_commit, iter([b"1"])

    def create_commit(self: HfApi, *args: Any, **options: Any) -> Any:
        if (content := next(others, None)) is not None:
            hub.repo(REPO).commit({"notes.txt": content})
        return plain(self, *args, **options)

    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    push(hub, embedding(config={"seed": 1}))
    assert len(hub.requested("/commit/main", "POST")) == 3
    assert {FILE, "notes.txt"} <= set(hub.repo(REPO).files())
    monkeypatch.setattr(
        HfApi, "create_commit", lambda *a, **o: hub.repo(REPO).commit({"n": os.urandom(4)}) and plain(*a, **o)
    )
    with pytest.raises(HubConflictError, match=r"answered 412, another change came first .*Try again"):
        push(hub, embedding(config={"seed": 2}))


def test_ids_and_tokens(hub: HubServer) -> None:
    for bad in ("no id!", "a/b/c", ""):
        with pytest.raises(HubNotFoundError, match="is no valid id of a Hub repository, such as 'org/name'"):
            push(hub, repo_id=bad)
        with pytest.raises(HubNotFoundError, match="is no valid id of a Hub repository"):
            TaskEmbedding.from_pretrained(bad)
    with pytest.raises(HubAccessError, match=r"(?s)401.*token=…, set HF_TOKEN, or run `hf auth login`"):
        push(hub, token=None)
    with pytest.raises(HubAccessError, match=r"needs a token: pass token=…, set HF_TOKEN, or run"):
        push(hub, token=True)  # that of a login, and there is none
    hub.inject(pattern="/api/datasets/org/shared", status=400)
    with pytest.raises(HubError, match=r"the Hub answered 400 \(injected fault 400\)"):
        push(hub)
    with pytest.raises(HubAccessError, match=r"403, not allowed .*a token with the right to write"):
        push(hub, token=hub.tokens.read)
    with pytest.raises(HubAccessError, match="403"):
        push(hub, repo_id="somebody/else")


def test_names_of_files_stay_where_they_are(hub: HubServer, tmp_path: Path) -> None:
    image_folder(tmp_path / "photos", classes=2)
    (tmp_path / "photos/ward/smith.dcm").parent.mkdir()
    (tmp_path / "photos/ward/smith.dcm").write_bytes(b"DICM")
    task = Task.from_dataset(tmp_path / "photos")
    mine = embedding(task={**task.describe(), "dataset": "task0"})
    assert b"smith.dcm" in mine.to_bytes()
    push(hub, mine)
    zoo().with_embeddings(mine, replace=True).push_to_hub("org/index", token=hub.tokens.write)
    shared = [*hub.repo(REPO, "dataset").files().values(), *hub.repo("org/index").files().values()]
    assert any(b"label_names" in content for content in shared)
    assert not any(b"smith" in content for content in shared)


# ------------------------------------------------------------------------------------------------------- indexes


def test_an_index_there_and_back(hub: HubServer, tmp_path: Path) -> None:
    index = zoo().with_attachments({"notes.txt": b"old"})
    index.push_to_hub("org/index", token=hub.tokens.write)
    loaded = ZooIndex.from_pretrained("org/index")
    assert loaded.fingerprint == index.fingerprint
    assert not loaded.validate()
    pushed = zoo().push_to_hub("org/index", token=hub.tokens.write)
    assert pushed.deleted == ("notes.txt",)
    assert "notes.txt" not in hub.repo("org/index").files()
    assert ZooIndex.from_pretrained("org/index").fingerprint == zoo().fingerprint
    hub.forget_requests()
    old = ZooIndex.from_pretrained("org/index", revision=loaded.path.name)  # a full hash, all of it cached
    assert (old.fingerprint, hub.requests) == (index.fingerprint, [])


def test_an_index_changed_by_hand_is_refused(hub: HubServer) -> None:
    zoo().push_to_hub("org/index", token=hub.tokens.write)
    hub.repo("org/index").commit({"tasks.csv": b"changed"})
    with pytest.raises(HubCorruptError, match=r"tasks.csv of .*'org/index' is not the file that manifest.json there"):
        ZooIndex.from_pretrained("org/index")
    push(hub)
    with pytest.raises(ZooIndexError, match=r"'org/shared' is no zoo index: it has no manifest.json"):
        ZooIndex.from_pretrained(REPO)
    hub.repo("org/index").commit({"manifest.json": b"{}"})
    with pytest.raises(ZooIndexError, match="schema version None"):
        ZooIndex.from_pretrained("org/index")
    hub.repo("org/index").commit({"manifest.json": b"{"})
    with pytest.raises(ZooIndexError, match=r"'org/index' holds no usable zoo index: .*not readable as JSON"):
        ZooIndex.from_pretrained("org/index")
    assert zoo().push_to_hub("org/index", token=hub.tokens.write).deleted == ()
    assert ZooIndex.from_pretrained("org/index").fingerprint == zoo().fingerprint


OFFLINE = f"""
from hf_task2vec import TaskEmbedding, ZooIndex
print(len(TaskEmbedding.from_pretrained({REPO!r})), ZooIndex.from_pretrained("org/index").fingerprint)
TaskEmbedding.from_pretrained("org/unknown")
"""


def test_offline_after_the_first_time(hub: HubServer) -> None:
    push(hub)
    zoo().push_to_hub("org/index", token=hub.tokens.write)
    TaskEmbedding.from_pretrained(REPO)
    ZooIndex.from_pretrained("org/index")
    hub.forget_requests()
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", OFFLINE]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.stdout == f"{len(embedding())} {zoo().fingerprint}\n"
    assert "'org/unknown'" in result.stderr
    assert "offline mode is on (HF_HUB_OFFLINE=1, --offline)" in result.stderr
    assert not hub.requests


# -------------------------------------------------------------------------------------------------- command line


def test_as_typed(hub: HubServer, tmp_path: Path) -> None:
    embedding().save("saved")
    result = run("push", "saved", REPO, "--token", hub.tokens.write, "--license", "mit", "-q")
    assert (result.exit_code, result.stdout) == (0, f"{hub.endpoint}/datasets/{REPO}\n"), result.stderr
    pulled = run("pull", REPO, "-q")
    assert (pulled.exit_code, pulled.stdout) == (0, "shared.safetensors\n"), pulled.stderr
    assert same(TaskEmbedding.load("shared.safetensors"), embedding())
    again = run("pull", REPO, "-q")
    assert (again.exit_code, again.stderr) == (
        4,
        "error: shared.safetensors exists already; pass --overwrite, or another place with -o\n",
    )
    document = json.loads(run("pull", REPO, "--overwrite", "-o", "folder", "--json").stdout)
    assert (document["path"], document["repo_id"], document["probe"]["name"]) == ("folder", REPO, TINY)
    distance = run("distance", "shared.safetensors", "folder", "-q")
    assert all(abs(float(line.split("\t")[2])) < 1e-12 for line in distance.stdout.splitlines())
    own = embedding(task={"dataset": "org/data"}).save("own.safetensors")
    hub.create_dataset("org/data", {"README.md": card(license="mit")})
    proposed = json.loads(run("push", str(own), "org/data", "--token", hub.tokens.other, "--json").stdout)
    assert proposed["pull_request"] == f"{hub.endpoint}/datasets/org/data/discussions/1"
    assert list(proposed["files"]) == [FILE]


def test_an_index_as_typed(hub: HubServer) -> None:
    zoo().save("index")
    assert run("push", "index", "org/index", "--token", hub.tokens.write, "--private", "-q").exit_code == 0
    assert hub.repo("org/index").private
    result = run("pull", "org/index", "-o", "pulled", "--token", hub.tokens.read, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["counts"]["scores"] == len(zoo().rows["scores"])
    assert ZooIndex.load("pulled").fingerprint == zoo().fingerprint
    assert run("pull", "org/index", "--token", hub.tokens.read, "-o", "index").exit_code == 4
    wrong = run("push", "index", "org/index", "--into-dataset")
    assert (wrong.exit_code, "--into-dataset is for an embedding" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["push", "absent", REPO], 4, "no embedding at absent; make one"),
        (["push", "saved", "no id!"], 5, "is no valid id of a Hub repository"),
        (["push", "saved", REPO, "--token", "hf_loopback_wrong"], 5, "the token is wrong or expired"),
        (["pull", "org/absent"], 5, "No Hub repository 'org/absent'"),
        (["pull", "org/empty"], 5, "holds no task embedding (task2vec/embedding.safetensors) and no zoo index (manif"),
        (["pull", "org/absent", "--timeout", "0"], 2, "--timeout"),
        (["push", "saved"], 2, "Missing argument 'ORG/NAME'"),
    ],
)
def test_what_cannot_be(hub: HubServer, arguments: list[str], code: int, message: str) -> None:
    embedding().save("saved")
    hub.create_dataset("org/empty")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "hf_loopback" not in result.stderr


@pytest.mark.slow  # three processes, two of which import PyTorch
def test_endpoint_reaches_every_library(hub: HubServer, tmp_path: Path) -> None:
    """`--endpoint` alone leads datasets, timm and our own calls to another Hub; the variable points to a dead one."""
    from tests.support.architectures import files_of, save_timm
    from tests.support.pictures import TRAIN, parquet
    from tests.support.synthetic import dataset

    hub.create_dataset("org/data", {TRAIN: parquet(dataset(24))})
    save_timm(tmp_path / "net", "test_resnet")
    hub.create_model("org/net", files_of(tmp_path / "net"))
    program = Path(sys.executable).with_name("hf-task2vec")
    environment = os.environ | {"HF_ENDPOINT": hub.dead_endpoint, "HF_TOKEN": hub.tokens.write}
    embed = ["embed", "org/data", "--probe", "org/net", "--device", "cpu", "-o", "e", "-q"]
    for arguments in (embed, ["push", "e", "org/e", "-q"], ["pull", "org/e", "-q"]):
        command = [program, *arguments, "--endpoint", f"{hub.endpoint}/"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    assert same(TaskEmbedding.load("e.safetensors"), TaskEmbedding.load("e").without_file_names())
