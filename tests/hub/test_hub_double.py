"""The loopback Hub of the test suite: a real client works against it, and nothing else can be reached."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.hub import HubServer, card


def test_a_real_client_works_against_it(hub: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    client, reader = (HfApi(endpoint=hub.endpoint, token=token) for token in (hub.tokens.write, hub.tokens.read))
    content = {"README.md": card(tags=["x"]), "deep/er/config.json": b"{}", "weights.safetensors": b"\1" * 200_000}
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    client.create_repo("org/model", private=True)
    commit = client.upload_folder(repo_id="org/model", folder_path=tmp_path)
    assert commit.oid == hub.repo("org/model").sha
    folder = Path(reader.snapshot_download("org/model"))
    assert {name: (folder / name).read_bytes() for name in content} == content
    assert [info.id for info in reader.list_models(filter="x")] == ["org/model"]
    hub.create_dataset("org/gated", {"a.txt": b"a"}, gated=True)
    other = HfApi(endpoint=hub.endpoint, token=hub.tokens.other)
    for kind, repo_id, error in (
        ("model", "org/model", RepositoryNotFoundError),
        ("dataset", "org/gated", GatedRepoError),
    ):
        with pytest.raises(error):
            other.hf_hub_download(repo_id, "a.txt", repo_type=kind)
    with pytest.raises(EntryNotFoundError):
        reader.hf_hub_download("org/model", "absent.txt")
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="org/model")


def test_only_loopback_can_be_reached() -> None:
    from tests import conftest

    with pytest.raises(OSError, match="loopback only"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="loopback only"):
        socket.getaddrinfo("huggingface.co", 443)
    assert conftest._outside == ["192.0.2.1", "huggingface.co"]
    conftest._outside.clear()
