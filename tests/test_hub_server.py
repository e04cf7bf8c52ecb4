"""The loopback Hub of the test suite, driven by huggingface_hub."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub import HubServer, card

# Accounts and repositories


def test_three_tokens(hub: HubServer) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    write, read = hub.client(hub.tokens.write), hub.client(hub.tokens.read)
    assert write.whoami()["name"] == read.whoami()["name"] == "alice"
    assert hub.client(hub.tokens.other).whoami()["name"] == "bob"
    with pytest.raises(HfHubHTTPError, match="Invalid"):
        hub.client("hf_wrong").whoami()
    write.create_repo("org/name")
    for token, reason in ((hub.tokens.read, "token with write access"), (hub.tokens.other, "rights to write")):
        with pytest.raises(HfHubHTTPError, match="403") as caught:
            hub.client(token).upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="org/name")
        assert reason in str(caught.value)
    with pytest.raises(HfHubHTTPError, match="rights to create"):
        write.create_repo("elsewhere/name")


def test_create_and_delete(hub: HubServer) -> None:
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    client = hub.client(hub.tokens.write)
    url = client.create_repo("org/data", repo_type="dataset", private=True)
    assert (url.repo_id, url.repo_type, str(url)) == ("org/data", "dataset", f"{hub.endpoint}/datasets/org/data")
    assert client.create_repo("org/data", repo_type="dataset", exist_ok=True).repo_id == "org/data"
    with pytest.raises(HfHubHTTPError, match="409"):
        client.create_repo("org/data", repo_type="dataset")
    assert hub.repo("org/data").private
    client.update_repo_settings("org/data", repo_type="dataset", private=False, gated="auto")
    assert (hub.repo("org/data").private, hub.repo("org/data").gated) == (False, "auto")
    client.delete_repo("org/data", repo_type="dataset")
    with pytest.raises(RepositoryNotFoundError):
        client.dataset_info("org/data")


def test_private_and_gated(hub: HubServer) -> None:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    hub.create_dataset("org/private", {"a.txt": b"a"}, private=True)
    hub.create_dataset("org/gated", {"a.txt": b"a"}, gated=True)
    for token in (False, hub.tokens.other):
        client = hub.client(token)
        with pytest.raises(RepositoryNotFoundError) as caught:
            client.hf_hub_download("org/private", "a.txt", repo_type="dataset")
        assert not isinstance(caught.value, GatedRepoError)
        assert client.dataset_info("org/gated").gated == "auto"
        with pytest.raises(GatedRepoError):
            client.hf_hub_download("org/gated", "a.txt", repo_type="dataset")
        with pytest.raises(GatedRepoError):
            client.auth_check("org/gated", repo_type="dataset")
        assert [info.id for info in client.list_datasets()] == ["org/gated"]
    for name in ("org/private", "org/gated"):
        assert hub.client(hub.tokens.read).hf_hub_download(name, "a.txt", repo_type="dataset")
    hub.repo("org/gated").allowed.add("bob")
    assert hub.client(hub.tokens.other).hf_hub_download("org/gated", "a.txt", repo_type="dataset")


def test_list_filters_and_pages(hub: HubServer) -> None:
    from safetensors.numpy import save

    weights = save({"w": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)})
    for number in range(5):
        metadata = {"license": "mit" if number else "apache-2.0", "tags": ["task2vec"], "library_name": "timm"}
        files = {"README.md": card(**metadata), "model.safetensors": weights}
        hub.create_model(f"org/net-{number}", files if number < 4 else {"README.md": card(license="mit")})
        hub.repo(f"org/net-{number}").downloads = number
    hub.create_model("timm/other")
    hub.page_size = 2
    client = hub.client()

    def ids(**filters: Any) -> list[str]:
        return [info.id.rpartition("/")[2] for info in client.list_models(**filters)]

    assert ids(author="org") == [f"net-{number}" for number in range(5)]
    assert len(hub.requested("^/api/models")) == 3
    assert ids(filter=["task2vec", "license:mit"], sort="downloads") == ["net-3", "net-2", "net-1"]
    assert ids(search="OTHER") == ["other"]
    assert ids(filter="timm", limit=3) == ["net-0", "net-1", "net-2"]
    assert ids(num_parameters="max:1K") == [f"net-{number}" for number in range(4)]
    assert ids(gated=True) == []
    (info,) = client.list_models(search="net-0", expand=["safetensors", "cardData"])
    assert info.safetensors.parameters == {"F32": 12, "F16": 5}
    assert info.card_data.license == "apache-2.0"
    assert info.downloads is None
    hub.create_dataset("org/birds", {"README.md": card(task_categories=["image-classification"])})
    assert [info.id for info in client.list_datasets(filter="task_categories:image-classification")] == ["org/birds"]


# Content


@pytest.mark.parametrize("redirect", [False, True])
def test_folder_round_trip(hub: HubServer, tmp_path: Path, redirect: bool) -> None:
    hub.lfs_redirect = redirect
    client = hub.client(hub.tokens.write)
    client.create_repo("org/model", private=True)
    source = tmp_path / "source"
    content = {"README.md": card(tags=["x"]), "deep/er/config.json": b"{}", "weights.safetensors": b"\1" * 200_000}
    for name, data in content.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    commit = client.upload_folder(repo_id="org/model", folder_path=source, commit_message="all")
    repo = hub.repo("org/model")
    assert commit.oid == repo.sha
    assert {path: blob.lfs for path, blob in repo.resolve("main").tree.items() if path in content} == {
        "README.md": False,
        "deep/er/config.json": False,
        "weights.safetensors": True,
    }
    assert [entry.status for entry in hub.requested("^/lfs/", "PUT")] == [200]
    folder = Path(client.snapshot_download("org/model"))
    assert {name: (folder / name).read_bytes() for name in content} == content
    assert [entry.method for entry in hub.requested("^/lfs/", "GET")] == ["GET"] * redirect

    entries = {entry.path: entry for entry in client.list_repo_tree("org/model", recursive=True)}
    assert {"deep", "deep/er", *content} <= entries.keys()
    assert entries["weights.safetensors"].lfs.sha256 == hashlib.sha256(b"\1" * 200_000).hexdigest()
    siblings = {item.rfilename: item for item in client.model_info("org/model", files_metadata=True).siblings}
    assert siblings["weights.safetensors"].lfs.size == siblings["weights.safetensors"].size == 200_000
    assert [info.path for info in client.get_paths_info("org/model", ["deep", "absent", "README.md"])] == [
        "deep",
        "README.md",
    ]
    assert client.file_exists("org/model", "README.md")
    assert not client.file_exists("org/model", "absent")
    client.delete_folder("deep", "org/model")
    assert "deep/er/config.json" not in client.list_repo_files("org/model")


def test_download_is_cached_and_ranges_work(hub: HubServer) -> None:
    from huggingface_hub import HfFileSystem, get_session
    from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

    content = bytes(range(256)) * 1000
    sha = hub.create_dataset("org/data", {"data.parquet": content, "a.txt": b"text", "empty.txt": b""})
    client = hub.client()
    for revision, requests in (("main", 2), ("main", 1), (sha, 0)):
        hub.forget_requests()
        path = client.hf_hub_download("org/data", "data.parquet", repo_type="dataset", revision=revision)
        assert Path(path).read_bytes() == content
        assert len(hub.requested("resolve")) == requests
        assert hub.bytes_sent == (len(content) if requests == 2 else 0)
    assert Path(client.hf_hub_download("org/data", "empty.txt", repo_type="dataset")).read_bytes() == b""
    assert "hf_task2vec" in hub.requested("empty.txt")[0].headers["user-agent"]
    with HfFileSystem(endpoint=hub.endpoint).open("datasets/org/data/data.parquet", block_size=1000) as handle:
        hub.forget_requests()
        handle.seek(-300, io.SEEK_END)
        assert handle.read() == content[-300:]
    assert (hub.requests[0].status, hub.bytes_sent) == (206, 300)
    url = f"{hub.endpoint}/datasets/org/data/resolve/main/data.parquet"
    for header, part in (("bytes=5-9", content[5:10]), ("bytes=-7", content[-7:]), ("bytes=255990-", content[255990:])):
        response = get_session().get(url, headers={"Range": header})
        assert (response.status_code, response.content) == (206, part)
    assert get_session().get(url, headers={"Range": "bytes=256000-"}).status_code == 416
    with pytest.raises(EntryNotFoundError):
        client.hf_hub_download("org/data", "absent.txt", repo_type="dataset")
    with pytest.raises(RevisionNotFoundError):
        client.hf_hub_download("org/data", "a.txt", repo_type="dataset", revision="absent")


def test_file_on_disk_is_served_in_parts(hub: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import HfFileSystem

    big = tmp_path / "big.parquet"
    with big.open("wb") as handle:
        handle.truncate(64 << 20)
        handle.write(b"end")
    hub.create_dataset("org/big", {"big.parquet": big})
    with HfFileSystem(endpoint=hub.endpoint).open("datasets/org/big/big.parquet", block_size=4096) as handle:
        assert handle.size == big.stat().st_size
        handle.seek(handle.size - 3)
        assert handle.read() == big.read_bytes()[-3:]
    assert hub.bytes_sent < 10_000


def test_references_and_history(hub: HubServer) -> None:
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    first = hub.create_model("org/model", {"a.txt": b"1"})
    client = hub.client(hub.tokens.write)
    client.create_tag("org/model", tag="v1")
    client.create_branch("org/model", branch="side/way")
    with pytest.raises(HfHubHTTPError, match="409"):
        client.create_branch("org/model", branch="side/way")
    client.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="org/model", revision="side/way")
    refs = client.list_repo_refs("org/model", include_pull_requests=True)
    assert {branch.name: branch.target_commit for branch in refs.branches}["main"] == first
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", first)]
    assert (hub.repo("org/model").read("a.txt"), hub.repo("org/model").read("a.txt", "side/way")) == (b"1", b"2")
    assert Path(client.hf_hub_download("org/model", "a.txt", revision="side/way")).read_text() == "2"
    assert [entry.commit_id for entry in client.list_repo_commits("org/model", revision="side/way")][1:] == [first]
    client.delete_branch("org/model", branch="side/way")
    client.delete_tag("org/model", tag="v1")
    assert not client.list_repo_refs("org/model").tags
    with pytest.raises(RevisionNotFoundError):
        client.model_info("org/model", revision="side/way")


def test_pull_request_of_another_user(hub: HubServer) -> None:
    hub.create_dataset("org/data", {"a.txt": b"old", "b.txt": b"b"})
    bob, alice = hub.client(hub.tokens.other), hub.client(hub.tokens.write)
    commit = bob.upload_file(
        path_or_fileobj=b"\0" * 100,
        path_in_repo="task2vec/probe.safetensors",
        repo_id="org/data",
        repo_type="dataset",
        create_pr=True,
        commit_message="Add embedding",
    )
    assert (commit.pr_num, commit.pr_revision) == (1, "refs/pr/1")
    assert set(hub.repo("org/data").files()) == {"a.txt", "b.txt"}
    path = bob.hf_hub_download("org/data", "task2vec/probe.safetensors", repo_type="dataset", revision="refs/pr/1")
    assert Path(path).read_bytes() == b"\0" * 100
    (found,) = alice.get_repo_discussions("org/data", repo_type="dataset")
    assert (found.title, found.status, found.author, found.is_pull_request) == ("Add embedding", "open", "bob", True)
    alice.comment_discussion("org/data", 1, "thanks", repo_type="dataset")
    alice.merge_pull_request("org/data", 1, repo_type="dataset")
    details = alice.get_discussion_details("org/data", 1, repo_type="dataset")
    assert (details.status, details.merge_commit_oid) == ("merged", hub.repo("org/data").sha)
    assert [event.type for event in details.events] == ["comment"]
    assert set(hub.repo("org/data").files()) == {"a.txt", "b.txt", "task2vec/probe.safetensors"}


def test_stale_parent_and_bad_metadata(hub: HubServer) -> None:
    from huggingface_hub import CommitOperationAdd, ModelCard
    from huggingface_hub.errors import BadRequestError, HfHubHTTPError

    first = hub.create_model("org/model", {"a.txt": b"1"})
    second = hub.repo("org/model").commit({"a.txt": b"2"})
    client = hub.client(hub.tokens.write)
    operations = [CommitOperationAdd("b.txt", b"b")]
    with pytest.raises(HfHubHTTPError, match="412"):
        client.create_commit("org/model", operations, commit_message="late", parent_commit=first)
    client.create_commit("org/model", operations, commit_message="now", parent_commit=second)
    with pytest.raises(ValueError, match="tags"):
        ModelCard("---\ntags:\n- {a: 1}\n---\n").validate()
    ModelCard("---\ntags:\n- a\nlicense: mit\n---\n").validate()
    bad = b"---\ntags: [\n---\n"
    with pytest.raises((ValueError, BadRequestError), match="YAML"):
        client.upload_file(path_or_fileobj=bad, path_in_repo="README.md", repo_id="org/model")
    assert "README.md" not in hub.repo("org/model").files()


def test_many_parallel_downloads(hub: HubServer) -> None:
    files = {f"folder/{number}.bin": bytes([number]) * 50_000 for number in range(60)}
    hub.create_dataset("org/many", files)
    hub.page_size = 25
    client = hub.client()
    folder = Path(client.snapshot_download("org/many", repo_type="dataset", max_workers=16))
    assert {path: (folder / path).read_bytes() for path in files} == files
    assert len(hub.requested("/tree/")) == 3


def test_discussion_and_empty_pull_request(hub: HubServer) -> None:
    hub.create_model("org/model", {"a.txt": b"1"})
    bob = hub.client(hub.tokens.other)
    talk = bob.create_discussion("org/model", "A question")
    draft = bob.create_pull_request("org/model", "Later")
    assert (talk.is_pull_request, draft.is_pull_request, draft.status) == (False, True, "draft")
    bob.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id="org/model", revision=draft.git_reference)
    assert hub.repo("org/model").read("a.txt", "refs/pr/2") == b"2"
    found = bob.get_repo_discussions("org/model", discussion_type="pull_request")
    assert [item.num for item in found] == [2]
    hub.client(hub.tokens.write).change_discussion_status("org/model", 1, "closed")
    assert [item.num for item in bob.get_repo_discussions("org/model", discussion_status="closed")] == [1]
