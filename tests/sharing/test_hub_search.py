"""Finding shared tasks on the Hub, and ranking them by distance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_task2vec.errors import EmbeddingError, HubError
from hf_task2vec.hub.client import HubSession
from hf_task2vec.sharing.search import search_hub
from tests.support.cli_stub import run
from tests.support.hub import HubServer, card
from tests.support.synthetic import TINY, embedding, zoo

OTHER = {"name": "org/other-probe", "weights_hash": "cd" * 32}


@pytest.fixture
def filled(hub: HubServer) -> HubServer:
    """Three tasks, one of them private and one by another probe, an index, a dataset with a folder, and strangers."""
    token = hub.tokens.write
    for seed, name, options in ((0, "zero", {}), (1, "one", {"private": True}), (2, "two", {})):
        changes = {"probe": OTHER} if name == "two" else {}
        embedding(seed, **changes).push_to_hub(f"org/{name}", token=token, index=zoo(), **options)
    zoo().push_to_hub("org/index", token=token)
    own = {"README.md": card(tags=["task2vec"]), "task2vec/embedding.safetensors": embedding(4).to_bytes()}
    hub.create_dataset("org/data", own)
    hub.create_dataset("org/strange", {"README.md": card(tags=["task2vec"], task2vec="?"), "x.txt": b""})
    hub.create_dataset("org/other", {"README.md": card(tags=["else"])})
    hub.forget_requests()
    return hub


def test_list(filled: HubServer) -> None:
    found = {shared.repo_id: shared for shared in search_hub(token=False)}
    assert list(found) == ["org/strange", "org/data", "org/index", "org/two", "org/zero"]  # the latest first
    zero = found["org/zero"]
    assert (zero.kind, zero.dataset, zero.probe, zero.n_classes) == ("embedding", "task0", TINY, 3)
    assert zero.last_modified == "2026-01-01"
    assert (found["org/data"].kind, found["org/data"].dataset) == ("dataset", "org/data")
    assert found["org/index"].kind == "index"
    assert (found["org/strange"].kind, found["org/strange"].probe) == ("dataset", None)
    assert [entry.path.partition("?")[0] for entry in filled.requests if "agent" not in entry.path] == ["/api/datasets"]
    private = [shared.repo_id for shared in search_hub(token=filled.tokens.read) if shared.private]
    assert private == ["org/one"]


def test_filters(filled: HubServer) -> None:
    assert [s.repo_id for s in search_hub("ZER")] == ["org/zero"]
    assert [s.repo_id for s in search_hub(probe="org/other-probe")] == ["org/two"]
    assert [s.repo_id for s in search_hub(limit=2)] == ["org/strange", "org/data"]
    assert search_hub(author="nobody") == []
    filled.page_size = 2
    assert len(search_hub()) == 5


def test_nearest_first(filled: HubServer) -> None:
    from hf_task2vec.embedding.distance import pairwise

    done: list[int] = []
    found = search_hub(near=embedding(1), token=filled.tokens.read, on_done=lambda: done.append(1))
    assert len(done) == len(found) == 6
    assert [s.repo_id for s in found[:3]] == ["org/one", *sorted(
        ("org/zero", "org/data"),
        key=lambda name: pairwise(embedding(0 if name == "org/zero" else 4), to=embedding(1))[0, 0],
    )]  # fmt: skip
    assert found[0].distance == pytest.approx(0, abs=1e-9)
    problems = {s.repo_id: s.problem or "" for s in found if s.distance is None}
    assert "an index" in problems["org/index"]
    assert "embed both with the same probe" in problems["org/two"]
    assert "holds no task embedding" in problems["org/strange"]
    asymmetric = search_hub("zero", near=embedding(1), kind="asymmetric")[0].distance
    assert asymmetric == pytest.approx(pairwise(embedding(0), "asymmetric", to=embedding(1))[0, 0])


def test_what_there_is_no_time_for_is_listed(filled: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HubSession, "left", 0.0)
    monkeypatch.setattr(HubSession, "call", lambda self, action, function, limit: function())
    assert {s.problem for s in search_hub("zero", near=embedding(1))} == {"time was over before it could be read"}


def test_arguments(filled: HubServer) -> None:
    with pytest.raises(EmbeddingError, match="distance 'x' is unknown; choose one of log_correlation"):
        search_hub(kind="x")
    with pytest.raises(HubError, match="limit=0 must be at least 1"):
        search_hub(limit=0)


def test_as_typed(filled: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("search", "zero")
    assert result.exit_code == 0, result.stderr
    assert [line.split() for line in result.stdout.splitlines()][:2] == [
        ["repository", "task", "classes", "probe", "changed"],
        ["org/zero", "task0", "3", "org/tiny-probe", "2026-01-01"],
    ]
    embedding(0).save("mine")
    near = run("search", "--near", "mine")
    assert near.stdout.splitlines()[1].split()[:3] == ["org/zero", "0.0000", "task0"]
    assert "org/index: an index" in near.stdout
    for task in ("mine", "org/zero"):
        document = json.loads(run("search", "--near", task, "--json").stdout)
        assert document["near"] == "task0"
        assert document["repositories"][0]["distance"] == pytest.approx(0.0, abs=1e-12)
    assert run("search", "--near", "mine", "-q").stdout.splitlines()[0] == "org/zero"
    assert "which has: aid" in run("search", "--near", "nothing").stderr
    assert run("search", "--near", "trashnet", "--probe", "org/tiny-probe").exit_code == 0
    assert "is not one of" in run("search", "--near", "mine", "--kind", "x").stderr
