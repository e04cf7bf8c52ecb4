"""What a user does with the Hub, request by request, and every trouble that a request can meet."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import conftest
from hub import HubServer, card
from synthetic import embedding, zoo

from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.errors import Task2VecError
from hf_task2vec.hub import TIMEOUT_VARIABLE
from hf_task2vec.zoo import ZooIndex

REPO, DATA, INDEX, CHECKPOINT = "org/shared", "org/data", "org/index", "org/net"
INDEX_WITHOUT = zoo(weights_hash="ef" * 32)  # no nearest tasks and no heat map, which would take time
SMALL_INDEX = zoo()


# ------------------------------------------------------------------------------------------------------- the calls


@dataclass(frozen=True)
class Call:
    """Something a user does; its requests (name -> method and pattern of the address) are faulted one by one."""

    name: str
    run: Callable[..., Any]
    requests: dict[str, tuple[str, str]]
    prepare: Callable[[HubServer], object]
    content: Callable[[HubServer], dict[str, dict[str, str]]] | None = None
    """What is on the Hub, for calls that write: all of the change, or nothing."""


def other() -> TaskEmbedding:
    return embedding(7, task={"dataset": "task0"})


def shared_repo(hub: HubServer) -> None:
    other().push_to_hub(REPO, token=hub.tokens.write, index=INDEX_WITHOUT)


def push(hub: HubServer, **options: Any) -> Any:
    return embedding().push_to_hub(REPO, index=INDEX_WITHOUT, **{"token": hub.tokens.write, **options})


def propose(hub: HubServer, **options: Any) -> Any:
    return embedding().push_to_hub(DATA, into_dataset=True, **{"token": hub.tokens.write, **options})


def push_index(hub: HubServer, **options: Any) -> Any:
    return SMALL_INDEX.push_to_hub(INDEX, **{"token": hub.tokens.write, **options})


def pull(hub: HubServer, **options: Any) -> Any:
    found = TaskEmbedding.from_pretrained(REPO, **{"token": hub.tokens.read, **options})
    assert found.describe() == other().describe()
    return found


def pull_index(hub: HubServer, **options: Any) -> Any:
    found = ZooIndex.from_pretrained(INDEX, **{"token": hub.tokens.read, **options})
    assert found.fingerprint == SMALL_INDEX.fingerprint
    return found


def search(hub: HubServer, **options: Any) -> Any:
    from hf_task2vec.hub_search import search_hub

    (found,) = search_hub(near=other(), **{"token": hub.tokens.read, **options})
    if found.problem:
        assert found.distance is None
        return found
    assert found.distance == 0.0
    return found


def load(hub: HubServer, *, token: str | None = None, timeout: float = 300) -> Any:
    from hf_task2vec.checkpoint_files import find_checkpoint

    with mock.patch.dict(os.environ, {TIMEOUT_VARIABLE: str(timeout)}):
        return find_checkpoint(CHECKPOINT, revision=None, token=token or hub.tokens.read)


def content(repo_id: str) -> Callable[[HubServer], dict[str, dict[str, str]]]:
    """Return what is in a repository, on every branch and in every pull request."""

    def of(hub: HubServer) -> dict[str, dict[str, str]]:
        if ("dataset", repo_id) not in hub.repo_ids():
            return {}
        refs = hub.repo(repo_id).refs
        found = {
            name: {path: blob.oid for path, blob in commit.tree.items() if path[0] != "."}
            for name, commit in refs.items()
        }
        return {name: paths for name, paths in found.items() if paths}

    return of


FACTS = ("GET", r"/api/datasets/org/\w+(\?|$)")
HEAD, GET = ("HEAD", r"/resolve/"), ("GET", r"/resolve/")
UPLOAD = {
    "announce the files": ("POST", "/preupload/"),
    "announce large files": ("POST", "/objects/batch"),
    "send a large file": ("PUT", "/lfs/"),
    "confirm it": ("POST", "/lfs/verify"),
    "commit": ("POST", "/commit/"),
}
CALLS = [
    Call(
        "push an embedding",
        push,
        {
            "look at the repository": FACTS,
            "look for the card": HEAD,
            "read the card": GET,
            "check the new card": ("POST", "/api/validate-yaml"),
            **UPLOAD,
        },
        shared_repo,
        content(REPO),
    ),
    Call(
        "push to a new repository",
        push,
        {"create it": ("POST", "/api/repos/create")},
        lambda hub: None,
        content(REPO),
    ),
    Call(
        "pull request to a dataset",
        propose,
        {"look at the dataset": FACTS, "open it": ("POST", "/commit/")},
        lambda hub: hub.create_dataset(DATA, {"README.md": card(license="mit")}),
        content(DATA),
    ),
    Call(
        "push an index",
        push_index,
        {"look at the repository": FACTS, "commit": ("POST", "/commit/")},
        lambda hub: None,
        content(INDEX),
    ),
    Call(
        "pull an embedding",
        pull,
        {"look for the file": HEAD, "download it": GET},
        shared_repo,
    ),
    Call(
        "pull an index",
        pull_index,
        {
            "look for the manifest": ("HEAD", "manifest.json"),
            "download it": ("GET", "manifest.json"),
            "look for a table": ("HEAD", "tasks.csv"),
            "download the table": ("GET", "tasks.csv"),
            "download embeddings": ("GET", r"resolve/.*\.safetensors"),
        },
        lambda hub: push_index(hub),
    ),
    Call(
        "search by distance",
        search,
        {"list repositories": ("GET", r"/api/datasets\?"), "look for an embedding": HEAD, "download it": GET},
        shared_repo,
    ),
    Call(
        "load a checkpoint's config",
        load,
        {"look for it": HEAD, "download it": GET},
        lambda hub: hub.create_model(CHECKPOINT, {"config.json": b'{"architecture": "resnet18"}'}),
    ),
]


# ------------------------------------------------------------------------------------------------------ the faults


@dataclass(frozen=True)
class Trouble:
    """A fault of one kind of request; with `times` it passes, and then the call must succeed."""

    name: str
    settings: dict[str, Any]
    times: int | None = None
    timeout: float | None = None
    real_sleep: bool = False
    in_body: bool = False


BUSY = {"status": 429, "headers": {"Retry-After": "2"}}
LONG = {"status": 429, "headers": {"Retry-After": "3600"}}
TROUBLES = [
    Trouble("401", {"status": 401}),
    Trouble("403", {"status": 403}),
    Trouble("404", {"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}),
    Trouble("gated", {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}),
    Trouble("429 once", BUSY, times=1),
    Trouble("429, 1 h", LONG, timeout=0.7, real_sleep=True),
    Trouble("503 once", {"status": 503}, times=1),
    Trouble("503", {"status": 503}),
    Trouble("reset once", {"reset": True}, times=1),
    Trouble("reset", {"reset": True}),
    Trouble("answer lost once", {"reset": True, "after": 20}, times=1, in_body=True),
    Trouble("answer stalls", {"delay": 30, "after": 20}, timeout=0.7, real_sleep=True, in_body=True),
    Trouble("garbled once", {"corrupt": True}, times=1, in_body=True),
    Trouble("garbled", {"corrupt": True}, in_body=True),
]
#: Longest that a call may take here, seconds: no waiting but for the limits of time above, and a busy machine.
LONGEST = 15.0


WORDS = {
    "done": "done",
    "HubAccessError": "access",
    "HubNotFoundError": "not found",
    "HubUnavailableError": "unavailable",
    "HubCorruptError": "corrupt",
    "EmbeddingError": "corrupt",
    "ZooIndexError": "corrupt",
    "HubError": "disk",
    "ProbeError": "probe",
    "reason given": "reason",
}


def outcome(call: Call, hub: HubServer, **options: Any) -> str:
    """Run the call and say in a word what came of it; it must leave nothing half done and tell no token."""
    before = call.content(hub) if call.content else None
    started = time.monotonic()
    failure: Task2VecError | None = None
    try:
        result = call.run(hub, **options)
    except Task2VecError as error:
        failure = error
    assert time.monotonic() - started < LONGEST
    changed = call.content is not None and call.content(hub) != before
    if failure is None:
        assert changed or call.content is None
        return "reason" if getattr(result, "problem", None) else "done"
    told = " ".join(f"{e} {e!r}" for e in (failure, failure.__cause__, failure.__context__))
    assert "hf_loopback" not in told, told
    assert len(str(failure)) > 40, str(failure)
    assert not changed or "may have been done all the same" in told, told
    return WORDS[type(failure).__name__] + ("†" if changed else "")


def check_cache() -> None:
    """No half of a file lies in the Hub cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    for path in Path(HF_HUB_CACHE).rglob("*.incomplete"):
        assert not path.stat().st_size, path  # the client sleeps for an hour with an empty one open


def fresh(call: Call, hub: HubServer) -> None:
    """Empty the Hub, its faults and the cache, and prepare the call."""
    hub.reset()
    conftest._clear_client_caches()
    call.prepare(hub)
    conftest._clear_client_caches()
    hub.forget_requests()


@contextmanager
def hurried(real: bool = False) -> Iterator[list[float]]:
    """Make every wait between tries short, unless it shall be real; the list says how long each would have been."""
    from huggingface_hub import file_download
    from huggingface_hub.utils import _http

    from hf_task2vec import hub

    sleeps: list[float] = []
    with ExitStack() as stack:
        for module in () if real else (_http, file_download, hub):
            stack.enter_context(mock.patch.object(module, "time", SimpleNamespace(sleep=sleeps.append)))
        yield sleeps


def measure(call: Call, request: str, trouble: Trouble, hub: HubServer) -> str:
    """Return what becomes of a call when one kind of its requests is in trouble; "–" if it cannot be in such."""
    method, pattern = call.requests[request]
    if trouble.in_body and method == "HEAD":
        return "–"
    fresh(call, hub)
    running = set(threading.enumerate())
    fault = hub.inject(method=method, pattern=pattern, times=trouble.times, **trouble.settings)
    with hurried(trouble.real_sleep) as sleeps:
        word = outcome(call, hub, **({} if trouble.timeout is None else {"timeout": trouble.timeout}))
    assert fault.fired, f"{call.name}, {request}, {trouble.name}: never struck; requests: {hub.requests}"
    if (
        trouble.settings is BUSY and word == "done" and method != "HEAD"
    ):  # the client repeats a HEAD once without any wait
        assert max(sleeps) >= 2, "Retry-After was not heeded"
    hub.faults.clear()  # which lets stalled answers go on
    for thread in set(threading.enumerate()) - running:
        if thread.name == "hf_task2vec-hub" and trouble.settings is not LONG:
            thread.join(5)
    check_cache()
    # The same again, now without trouble, does it, once. (The client that waits for an hour has a lock until then.)
    if call.content and word != "done" and trouble.settings is not LONG:
        call.run(hub)
        twice = {"refs/pr/2"} if "†" in word else set()  # which the message had said
        assert set(call.content(hub)) <= {"refs/heads/main", "refs/pr/1"} | twice
    return word


def rows() -> list[tuple[Call, str]]:
    return [(call, request) for call in CALLS for request in call.requests]


# ---------------------------------------------------------------------------------------------- circumstances


def dead_server(call: Call, hub: HubServer) -> str:
    from huggingface_hub import HfApi

    with mock.patch("hf_task2vec.hub.client", lambda token: HfApi(endpoint=hub.dead_endpoint, token=token)):
        return outcome(call, hub)


def offline(call: Call, hub: HubServer) -> str:
    with mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
        return outcome(call, hub)


def cached(situation: Callable[[Call, HubServer], str]) -> Callable[[Call, HubServer], str]:
    def after_a_first_time(call: Call, hub: HubServer) -> str:
        if call.content:
            return "–"
        call.run(hub)
        return situation(call, hub)

    return after_a_first_time


def full_disk(call: Call, hub: HubServer) -> str:
    """Let no file in the Hub cache be written."""

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    plain = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        return Full() if self.suffix == ".incomplete" else plain(self, mode, *args, **options)

    with mock.patch.object(Path, "open", opened):
        return outcome(call, hub)


SITUATIONS: dict[str, Callable[[Call, HubServer], str]] = {
    "server down": dead_server,
    "server down, cached": cached(dead_server),
    "offline": offline,
    "offline, cached": cached(offline),
    "read-only token": lambda call, hub: outcome(call, hub, token=hub.tokens.read),
    "wrong token": lambda call, hub: outcome(call, hub, token="hf_loopback_wrong"),
    "full disk": full_disk,
}


def in_situation(call: Call, name: str, hub: HubServer) -> str:
    fresh(call, hub)
    with hurried():
        word = SITUATIONS[name](call, hub)
    check_cache()
    return word
