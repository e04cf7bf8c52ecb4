"""Injected faults and what the real clients make of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub import Fault, HubServer

Inject = Callable[..., Fault]


def test_status_fault_is_retried_and_headers_are_kept(
    hub: HubServer, hub_fault: Inject, retry_sleeps: list[float]
) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    hub.create_model("org/model", {"a.txt": b"a"})
    fault = hub_fault(method="GET", pattern="/tree/", status=429, headers={"Retry-After": "3"}, times=2)
    assert [entry.path for entry in hub.client().list_repo_tree("org/model")] == ["a.txt"]
    assert (fault.fired, retry_sleeps) == (2, [4.0, 4.0])
    assert [entry.status for entry in hub.requested("/tree/")][:3] == [429, 429, 200]
    hub_fault(method="POST", pattern="/commit/", status=503)
    with pytest.raises(HfHubHTTPError, match="503"):
        hub.client(hub.tokens.write).upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id="org/model")
    assert set(hub.repo("org/model").files()) == {"a.txt"}


def test_connection_faults(hub: HubServer, hub_fault: Inject, retry_sleeps: list[float]) -> None:
    import httpx2

    content = bytes(range(256)) * 2000
    hub.create_model("org/model", {"w.safetensors": content})
    client = hub.client()
    hub_fault(pattern="/api/models/org/model", reset=True)
    with pytest.raises(httpx2.HTTPError):
        client.model_info("org/model")
    hub_fault(method="GET", pattern="w.safetensors", reset=True, after=70_000)
    with pytest.raises(httpx2.HTTPError):
        client.hf_hub_download("org/model", "w.safetensors")
    assert hub.requested("w.safetensors", "GET")[-1].bytes_sent == 70_000
    hub_fault(method="GET", pattern="w.safetensors", cut=True, times=None)
    with pytest.raises(httpx2.RemoteProtocolError):
        client.hf_hub_download("org/model", "w.safetensors")
    hub.faults.clear()
    assert Path(client.hf_hub_download("org/model", "w.safetensors")).read_bytes() == content
    hub_fault(method="POST", pattern="/commit/", reset=True, after=0)
    with pytest.raises(httpx2.HTTPError):
        hub.client(hub.tokens.write).upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id="org/model")
    assert hub.repo("org/model").read("b.txt") == b"b"


def test_corruption_goes_unnoticed_and_delay_is_bounded(hub: HubServer, hub_fault: Inject) -> None:
    import httpx2
    from huggingface_hub import HfApi, get_session

    content = b"\0" * 1001
    hub.create_model("org/model", {"w.safetensors": content})
    hub_fault(method="GET", pattern="resolve", corrupt=True)
    got = Path(hub.client().hf_hub_download("org/model", "w.safetensors")).read_bytes()
    assert (len(got), [i for i, byte in enumerate(got) if byte]) == (1001, [500])
    for after in (None, 10):
        hub_fault(method="GET", pattern="resolve", delay=60, after=after)
        started = time.monotonic()
        with pytest.raises(httpx2.ReadTimeout):
            get_session().get(f"{hub.endpoint}/org/model/resolve/main/w.safetensors", timeout=0.2)
        assert time.monotonic() - started < 5
    with pytest.raises(httpx2.ConnectError):
        HfApi(endpoint=hub.dead_endpoint).model_info("org/model")


def test_only_loopback_can_be_reached() -> None:
    import conftest

    with pytest.raises(OSError, match="loopback only"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="loopback only"):
        socket.getaddrinfo("huggingface.co", 443)
    assert conftest._outside == ["192.0.2.1", "huggingface.co"]
    conftest._outside.clear()
