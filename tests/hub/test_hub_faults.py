"""Every request that push, pull, search and loading make, in every trouble; docs/hub.md tells what comes out.

Write the tables anew after a change that is meant with ``WRITE_FAULTS=1 pytest -m slow tests/hub/test_hub_faults.py``.
"""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import HubError, HubUnavailableError, Task2VecError
from hf_task2vec.evidence.harvest import harvest
from hf_task2vec.hub.client import TIMEOUT_VARIABLE, time_limit
from hf_task2vec.hub.errors import redact, retry_delay
from hf_task2vec.sharing.search import search_hub
from hf_task2vec.zoo.index import ZooIndex
from tests import conftest
from tests.support.hub import HubServer, card
from tests.support.hub.waits import hurried
from tests.support.synthetic import embedding, zoo

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hub.md"
START, END = "<!-- faults: written by tests/hub/test_hub_faults.py -->\n", "<!-- end of faults -->"
REPO, DATA, INDEX, CHECKPOINT = "org/shared", "org/data", "org/index", "org/net"
SMALL_INDEX = zoo()
SHARED = embedding(7, task={"dataset": "task0"})


# ------------------------------------------------------------------------------------------------------- the calls


@dataclass(frozen=True)
class Call:
    """Something a user does; its requests (name -> method and pattern of the address) are faulted one by one."""

    name: str
    run: Callable[..., Any]
    requests: dict[str, tuple[str, str]]
    prepare: Callable[[HubServer], object]
    changes: str | None = None
    """The repository in which it changes all or nothing."""

    def content(self, hub: HubServer) -> dict[str, dict[str, str]]:
        """Return what is in that repository, on every branch and in every pull request."""
        if ("dataset", self.changes) not in hub.repo_ids():
            return {}
        found = {
            name: {path: blob.oid for path, blob in commit.tree.items() if path[0] != "."}
            for name, commit in hub.repo(str(self.changes)).refs.items()
        }
        return {name: files for name, files in found.items() if files}


def share(hub: HubServer) -> None:
    SHARED.push_to_hub(REPO, token=hub.tokens.write, index=SMALL_INDEX)


def push(hub: HubServer, **options: Any) -> Any:
    return embedding().push_to_hub(REPO, index=SMALL_INDEX, **{"token": hub.tokens.write, **options})


def propose(hub: HubServer, **options: Any) -> Any:
    return embedding().push_to_hub(DATA, into_dataset=True, **{"token": hub.tokens.write, **options})


def push_index(hub: HubServer, **options: Any) -> Any:
    return SMALL_INDEX.push_to_hub(INDEX, **{"token": hub.tokens.write, **options})


def pull(hub: HubServer, **options: Any) -> Any:
    found = TaskEmbedding.from_pretrained(REPO, **{"token": hub.tokens.read, **options})
    assert found.describe() == SHARED.describe()


def pull_index(hub: HubServer, **options: Any) -> Any:
    found = ZooIndex.from_pretrained(INDEX, **{"token": hub.tokens.read, **options})
    assert found.fingerprint == SMALL_INDEX.fingerprint


def search(hub: HubServer, **options: Any) -> Any:
    (found,) = search_hub(near=SHARED, **{"token": hub.tokens.read, **options})
    assert found.distance == (None if found.problem else 0.0)
    return found


def load(hub: HubServer, *, token: str | None = None, timeout: float = 300) -> Any:
    from hf_task2vec.probes.checkpoint_files import find_checkpoint

    with mock.patch.dict(os.environ, {TIMEOUT_VARIABLE: str(timeout)}):
        return find_checkpoint(CHECKPOINT, revision=None, token=token or hub.tokens.read)


def harvest_cards(hub: HubServer, *, token: str | None = None, timeout: float = 300) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        found = harvest(SMALL_INDEX, state=Path(folder, "state"), token=token or hub.tokens.read, timeout=timeout)
    assert found.rows == (0 if found.skipped else 1)
    return SimpleNamespace(problem=found.skipped)


FACTS = ("GET", r"/api/datasets/org/\w+(\?|$)")
HEAD, GET, COMMIT = ("HEAD", r"/resolve/"), ("GET", r"/resolve/"), ("POST", "/commit/")
PUSH = {
    "look at the repository": FACTS,
    "look for the card": HEAD,
    "read the card": GET,
    "check the new card": ("POST", "/api/validate-yaml"),
    "announce the files": ("POST", "/preupload/"),
    "announce large files": ("POST", "/objects/batch"),
    "send a large file": ("PUT", "/lfs/"),
    "confirm it": ("POST", "/lfs/verify"),
    "commit": COMMIT,
}
PULL_INDEX = {
    "look for the manifest": ("HEAD", "manifest.json"),
    "download it": ("GET", "manifest.json"),
    "look for a table": ("HEAD", "tasks.csv"),
    "download the table": ("GET", "tasks.csv"),
    "download embeddings": ("GET", r"resolve/.*\.safetensors"),
}
SEARCH = {"list repositories": ("GET", r"/api/datasets\?"), "look for an embedding": HEAD, "download it": GET}
HARVEST = {"list models": ("GET", r"/api/models\?"), "read a card": GET}


def add_dataset(hub: HubServer) -> None:
    hub.create_dataset(DATA, {"README.md": card(license="mit")})


def add_checkpoint(hub: HubServer) -> None:
    hub.create_model(CHECKPOINT, {"config.json": b'{"architecture": "resnet18"}'})


def add_classifier(hub: HubServer) -> None:
    text = "It reaches an accuracy of 93 %.\n" * 50
    metadata = {"pipeline_tag": "image-classification", "base_model": "org/huge", "datasets": ["org/leaves"]}
    hub.create_model("bob/leaves", {"README.md": card(**metadata) + text.encode()})


def nothing(hub: HubServer) -> None:
    pass


CALLS = [
    Call("push an embedding", push, PUSH, share, REPO),
    Call("push to a new repository", push, {"create it": ("POST", "/api/repos/create")}, nothing, REPO),
    Call("pull request to a dataset", propose, {"look at the dataset": FACTS, "open it": COMMIT}, add_dataset, DATA),
    Call("push an index", push_index, {"look at the repository": FACTS, "commit": COMMIT}, nothing, INDEX),
    Call("pull an embedding", pull, {"look for the file": HEAD, "download it": GET}, share),
    Call("pull an index", pull_index, PULL_INDEX, push_index),
    Call("search by distance", search, SEARCH, share),
    Call("harvest cards", harvest_cards, HARVEST, add_classifier),
    Call("load a checkpoint's config", load, {"look for it": HEAD, "download it": GET}, add_checkpoint),
]
ROWS = [(call, request) for call in CALLS for request in call.requests]


# ---------------------------------------------------------------------------------------------------- the troubles


@dataclass(frozen=True)
class Trouble:
    """A fault of one kind of request; with `times` it passes, and with `timeout` the call waits so many seconds."""

    name: str
    settings: dict[str, Any]
    times: int | None = None
    timeout: float | None = None
    in_body: bool = False


BUSY = {"status": 429, "headers": {"Retry-After": "2"}}
LONG = {"status": 429, "headers": {"Retry-After": "3600"}}
TROUBLES = [
    Trouble("401", {"status": 401}),
    Trouble("403", {"status": 403}),
    Trouble("404", {"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}),
    Trouble("gated", {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}),
    Trouble("429 once", BUSY, times=1),
    Trouble("429, 1 h", LONG, timeout=2.0),
    Trouble("503 once", {"status": 503}, times=1),
    Trouble("503", {"status": 503}),
    Trouble("reset once", {"reset": True}, times=1),
    Trouble("reset", {"reset": True}),
    Trouble("answer lost once", {"reset": True, "after": 20}, times=1, in_body=True),
    Trouble("answer stalls", {"delay": 60, "after": 20}, timeout=2.0, in_body=True),
    Trouble("garbled once", {"corrupt": True}, times=1, in_body=True),
    Trouble("garbled", {"corrupt": True}, in_body=True),
]
QUICK = [trouble for trouble in TROUBLES if trouble.timeout is None]
WORDS = {
    "HubAccessError": "access",
    "HubNotFoundError": "not found",
    "HubUnavailableError": "unavailable",
    "HubCorruptError": "corrupt",
    "EmbeddingError": "corrupt",
    "ZooIndexError": "corrupt",
    "HubError": "disk",
    "ProbeError": "probe",
}


def fresh(call: Call, hub: HubServer) -> None:
    """Empty the Hub, its faults and the cache, and prepare the call."""
    hub.reset()
    conftest._clear_client_caches()
    call.prepare(hub)
    conftest._clear_client_caches()
    hub.forget_requests()


def outcome(call: Call, hub: HubServer, **options: Any) -> str:
    """Run the call and say in a word what came of it; it must leave nothing half done and tell no token."""
    from huggingface_hub.constants import HF_HUB_CACHE

    before, failure, result = call.content(hub), None, None
    try:
        result = call.run(hub, **options)
    except Task2VecError as error:
        failure = error
    changed = call.content(hub) != before
    for path in Path(HF_HUB_CACHE).rglob("*.incomplete"):
        assert not path.stat().st_size, path  # the client sleeps for an hour with an empty one open
    if failure is None:
        assert changed == (call.changes is not None)
        return "reason" if getattr(result, "problem", None) else "done"
    told = " ".join(f"{e} {e!r}" for e in (failure, failure.__cause__, failure.__context__))
    assert "hf_loopback" not in told, told
    assert len(str(failure)) > 40, str(failure)
    assert not changed or "may have been done all the same" in told, told
    return WORDS[type(failure).__name__] + ("†" if changed else "")


def measure(call: Call, request: str, trouble: Trouble, hub: HubServer) -> str:
    """Return what becomes of a call when one kind of its requests is in trouble; "–" if it cannot be in such."""
    method, pattern = call.requests[request]
    if trouble.in_body and method == "HEAD":
        return "–"
    fresh(call, hub)
    running = set(threading.enumerate())
    fault = hub.inject(method=method, pattern=pattern, times=trouble.times, **trouble.settings)
    with hurried() if trouble.timeout is None else nullcontext([]) as sleeps:
        word = outcome(call, hub, **({} if trouble.timeout is None else {"timeout": trouble.timeout}))
    assert fault.fired, f"{call.name}, {request}, {trouble.name}: never struck; requests: {hub.requests}"
    # (The client repeats a HEAD once without any wait.)
    if trouble.settings is BUSY and word == "done" and method != "HEAD":
        assert max(sleeps) >= 2, "Retry-After was not heeded"
    hub.faults.clear()  # which lets stalled answers go on
    if trouble.settings is LONG:
        return word  # the client, which waits for an hour, has a lock until then
    for thread in set(threading.enumerate()) - running:
        if thread.name == "hf_task2vec-hub":
            thread.join(5)
    if call.changes and word != "done":  # the same again, now without trouble, does it
        call.run(hub)
        twice = {"refs/pr/2"} if "†" in word else set()  # which the message had said
        assert set(call.content(hub)) <= {"refs/heads/main", "refs/pr/1"} | twice
    return word


# --------------------------------------------------------------------------------------------------- the situations


def dead_server(call: Call, hub: HubServer) -> str:
    from huggingface_hub import HfApi

    with mock.patch("hf_task2vec.hub.client.client", lambda token: HfApi(endpoint=hub.dead_endpoint, token=token)):
        return outcome(call, hub)


def offline(call: Call, hub: HubServer) -> str:
    with mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
        return outcome(call, hub)


def cached(situation: Callable[[Call, HubServer], str]) -> Callable[[Call, HubServer], str]:
    def after_a_first_time(call: Call, hub: HubServer) -> str:
        if call.changes:
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
        return SITUATIONS[name](call, hub)


# ------------------------------------------------------------------------------------------------------- the tests


def table(corner: str, columns: list[str], lines: list[tuple[str, list[str]]]) -> str:
    rule = "|".join(["---", *(":-:" for _ in columns)])
    body = [f"| {name} | {' | '.join(cells)} |" for name, cells in lines]
    return "\n".join([f"| {corner} | {' | '.join(columns)} |", f"|{rule}|", *body]) + "\n"


def line_of(name: str) -> list[str]:
    """Return the words of one line of the tables in the documentation."""
    (line,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize("number", range(len(ROWS)), ids=lambda i: f"{ROWS[i][0].name}: {ROWS[i][1]}")
def test_requests_in_trouble(number: int, hub: HubServer) -> None:
    """A few of the troubles for each request, others for each; the slow test has all."""
    call, request = ROWS[number]
    expected = dict(zip([trouble.name for trouble in TROUBLES], line_of(f"{call.name}: {request}"), strict=True))
    for trouble in QUICK[number % 5 :: 5]:
        assert measure(call, request, trouble, hub) == expected[trouble.name], trouble.name


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_situations(call: Call, hub: HubServer) -> None:
    assert [in_situation(call, name, hub) for name in SITUATIONS] == line_of(call.name)


@pytest.mark.slow
def test_the_tables_of_the_documentation_are_what_is_measured(hub: HubServer) -> None:
    by_request = [
        (f"{call.name}: {request}", [measure(call, request, trouble, hub) for trouble in TROUBLES])
        for call, request in ROWS
    ]
    by_call = [(call.name, [in_situation(call, name, hub) for name in SITUATIONS]) for call in CALLS]
    first = table("request", [trouble.name for trouble in TROUBLES], by_request)
    measured = f"\n{first}\n{table('call', list(SITUATIONS), by_call)}\n"
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    written, after = rest.split(END)
    if os.environ.get("WRITE_FAULTS"):
        PAGE.write_text(before + START + measured + END + after, encoding="utf-8")
    else:
        assert written == measured


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_no_request_is_left_out_and_each_says_who_asks(call: Call, hub: HubServer) -> None:
    from hf_task2vec import __version__

    fresh(call, hub)
    call.run(hub)
    known = {request for other in CALLS for request in other.requests.values()}
    for entry in hub.requests:
        if entry.path == "/api/agent-harnesses":
            continue
        assert any(entry.method == method and re.search(pattern, entry.path) for method, pattern in known), entry
        if "/lfs/" not in entry.path:
            assert f"hf_task2vec/{__version__}" in entry.headers["user-agent"], entry
            assert entry.headers["authorization"].startswith("Bearer hf_loopback_alice"), entry
    for method, pattern in call.requests.values():
        assert hub.requested(pattern, method), (method, pattern)


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_limit_of_time_is_a_positive_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT_VARIABLE, value)
    with pytest.raises(HubError, match=re.escape(f"${TIMEOUT_VARIABLE} is '{value}'; it must be a positive number")):
        time_limit()
    with pytest.raises(HubError, match="timeout is 0; it must be"):
        time_limit(0)
    assert time_limit(2) == 2.0
    monkeypatch.setenv(TIMEOUT_VARIABLE, "")
    assert time_limit() == 300.0


def test_the_limit_of_time_holds_for_the_whole(hub: HubServer) -> None:
    """Two requests of which each would be in time."""
    share(hub)
    conftest._clear_client_caches()
    hub.inject(pattern="resolve", delay=2, times=None)
    with pytest.raises(
        HubUnavailableError, match=r"was not done after .* s: .*allow more time: timeout=… or \$HF_TASK2"
    ):
        pull(hub, timeout=3)


def test_waits_follow_the_hub_or_double() -> None:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    def answer(status: int, **headers: str) -> HfHubHTTPError:
        request = httpx.Request("GET", "http://127.0.0.1/")
        return HfHubHTTPError("x", response=httpx.Response(status, headers=headers, request=request))

    assert [retry_delay(answer(503), n) for n in range(1, 6)] == [1, 2, 4, 8, 8]
    assert retry_delay(answer(429, **{"Retry-After": "17"}), 1) == 17
    later = format_datetime(datetime.now(timezone.utc) + timedelta(hours=1), usegmt=True)
    assert 3000 < retry_delay(answer(503, **{"Retry-After": later}), 1) <= 3600
    assert retry_delay(answer(429, **{"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"}), 1) == 0
    assert retry_delay(answer(429, **{"Retry-After": "whenever"}), 1) == 1
    assert retry_delay(answer(429, RateLimit='"api";r=0;t=55'), 1) == 56
    assert [retry_delay(answer(status), 1) for status in (400, 401, 403, 404, 409, 412, 501)] == [None] * 7
    assert retry_delay(ValueError("bad"), 1) is None
    assert retry_delay(OSError(errno.ENOSPC, "full"), 1) is None


def test_messages_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-of-the-environment")
    signed = "https://cdn.example/f?X-Amz-Signature=12"
    told = f"hf_{'abcDEF123' * 3} given secret-of-the-environment {signed} end\nsecond line"
    assert redact(told, "given") == "*** *** *** https://cdn.example/f?… end"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HF_ENDPOINT", "huggingface.co", "HF_ENDPOINT is 'huggingface.co', which is no address such as https://"),
        ("HTTP_PROXY", "http://me:secret@nonsense.invalid:1", r"through the proxy 'nonsense.invalid:1' \(HTTP_PROXY\)"),
        ("HTTP_PROXY", "ftp://nonsense.invalid", r"through the proxy 'ftp://nonsense.invalid' \(HTTP_PROXY\)"),
    ],
)
def test_a_wrong_address_is_named(variable: str, value: str, said: str) -> None:
    code = (
        "from hf_task2vec.hub import HubSession\n"
        "session = HubSession('org/pets')\n"
        "session.call('asking', session.api.dataset_info, 'org/pets', attempts=1)"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://hub.invalid", variable: value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert re.search(said, done.stderr.splitlines()[-1]), done.stderr
    assert "secret" not in done.stderr.splitlines()[-1]


def test_a_proxy_that_never_answers_is_not_waited_for_again_and_again() -> None:
    """Neither by us nor by the clients, which would wait for it up to six minutes a file."""
    code = (
        "import sys; from hf_task2vec.hub import HubSession, client\n"
        "from hf_task2vec.tasks import Task; from hf_task2vec.tasks import hub_datasets\n"
        "from hf_task2vec.sharing import search_hub, search; from hf_task2vec.sharing.pull import pull\n"
        "for module in (client, search, hub_datasets): module.REQUEST_TIMEOUT = 0.2\n"
        "client._PATIENCE = 0.1\n"
        "for ask in (search_hub, lambda: Task.from_dataset('org/pets'), lambda: pull(HubSession('org/pets'))):\n"
        "    try: ask()\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": f"http://{address}"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert all(re.match(rf"HubUnavailableError .*through the proxy 'http://{address}'", line) for line in lines), lines
