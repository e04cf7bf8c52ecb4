"""Every request that push, pull, search and loading make, under every fault; docs/hub.md tells what comes out.

Write the tables anew after a change that is meant with ``WRITE_FAULTS=1 pytest -m slow tests/test_hub_call_faults.py``.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest
from hub import HubServer
from hub_troubles import CALLS, REPO, SITUATIONS, TROUBLES, Call, fresh, in_situation, measure, pull, rows, shared_repo

from hf_task2vec.errors import HubError, HubUnavailableError
from hf_task2vec.hub import TIMEOUT_VARIABLE, time_limit
from hf_task2vec.hub_errors import brief, retry_delay

PAGE = Path(__file__).resolve().parents[1] / "docs" / "hub.md"


# ------------------------------------------------------------------------------------------------------ the tables


def table(corner: str, columns: list[str], lines: list[tuple[str, list[str]]]) -> str:
    rule = "|".join(["---", *(":-:" for _ in columns)])
    body = [f"| {name} | {' | '.join(cells)} |" for name, cells in lines]
    return "\n".join([f"| {corner} | {' | '.join(columns)} |", f"|{rule}|", *body]) + "\n"


def measured_tables(hub: HubServer) -> str:
    by_request = [
        (f"{call.name}: {request}", [measure(call, request, trouble, hub) for trouble in TROUBLES])
        for call, request in rows()
    ]
    by_call = [(call.name, [in_situation(call, name, hub) for name in SITUATIONS]) for call in CALLS]
    first = table("request", [trouble.name for trouble in TROUBLES], by_request)
    return first + "\n" + table("call", list(SITUATIONS), by_call)


def committed() -> dict[str, dict[str, str]]:
    """Return the tables of the documentation: row -> column -> word."""
    found: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for line in marked(PAGE.read_text(encoding="utf-8"))[1].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in ("request", "call"):
            columns = cells[1:]
        elif columns and len(cells) > 1 and not cells[0].startswith("---"):
            found.setdefault(cells[0], {}).update(zip(columns, cells[1:], strict=True))
    return found


def marked(text: str) -> tuple[str, str, str]:
    """Split a page into what stands before, between and after the marks of the tables."""
    before, rest = text.split(START)
    between, after = rest.split(END)
    return before + START, between, END + after


START, END = "<!-- faults: written by tests/test_hub_call_faults.py -->\n", "<!-- end of faults -->"


# ------------------------------------------------------------------------------------------------------- the tests


@pytest.mark.parametrize("number", range(len(rows())), ids=lambda i: f"{rows()[i][0].name}: {rows()[i][1]}")
def test_requests_in_trouble(number: int, hub: HubServer) -> None:
    """Three of the troubles for each request, others for each; the slow test has all."""
    call, request = rows()[number]
    expected = committed()[f"{call.name}: {request}"]
    for trouble in TROUBLES[number % 5 :: 5]:
        assert measure(call, request, trouble, hub) == expected[trouble.name], trouble.name


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_situations(call: Call, hub: HubServer) -> None:
    found = {name: in_situation(call, name, hub) for name in SITUATIONS}
    assert found == committed()[call.name]


@pytest.mark.slow
def test_the_tables_of_the_documentation_are_what_is_measured(hub: HubServer) -> None:
    before, written, after = marked(PAGE.read_text(encoding="utf-8"))
    measured = f"\n{measured_tables(hub)}\n"
    if os.environ.get("WRITE_FAULTS"):
        PAGE.write_text(before + measured + after, encoding="utf-8")
    else:
        assert written == measured


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_no_request_is_left_out(call: Call, hub: HubServer) -> None:
    fresh(call, hub)
    call.run(hub)
    known = {request for other_call in CALLS for request in other_call.requests.values()}
    for entry in hub.requests:
        covered = any(entry.method == method and re.search(pattern, entry.path) for method, pattern in known)
        assert covered or entry.path == "/api/agent-harnesses", entry
    for method, pattern in call.requests.values():
        assert hub.requested(pattern, method), (method, pattern)


def test_every_request_says_who_asks(hub: HubServer) -> None:
    from hf_task2vec import __version__

    for call in CALLS:
        fresh(call, hub)
        call.run(hub)
        for entry in hub.requests:
            if "/lfs/" not in entry.path and entry.path != "/api/agent-harnesses":
                assert f"hf_task2vec/{__version__}" in entry.headers["user-agent"], entry
                assert entry.headers["authorization"].startswith("Bearer hf_loopback_alice"), entry


# ---------------------------------------------------------------------------------------------- limits and waits


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


def test_waits_follow_the_hub_or_double() -> None:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    def answer(status: int, **headers: str) -> HfHubHTTPError:
        request = httpx.Request("GET", "http://127.0.0.1/")
        return HfHubHTTPError("x", response=httpx.Response(status, headers=headers, request=request))

    assert [retry_delay(answer(503), n) for n in range(1, 6)] == [1, 2, 4, 8, 8]
    assert retry_delay(answer(429, **{"Retry-After": "17"}), 1) == 17
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=60), usegmt=True)
    assert 50 < retry_delay(answer(503, **{"Retry-After": soon}), 1) <= 60
    assert retry_delay(answer(429, **{"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"}), 1) == 0
    assert retry_delay(answer(429, **{"Retry-After": "whenever"}), 1) == 1
    assert [retry_delay(answer(status), 1) for status in (400, 401, 403, 404, 409, 412, 501)] == [None] * 7
    assert retry_delay(ValueError("bad"), 1) is None
    assert retry_delay(OSError(errno.ENOSPC, "full"), 1) is None


def test_messages_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-of-the-environment")
    signed = "https://cdn.example/f?X-Amz-Signature=12"
    told = f"hf_{'abcDEF123' * 3} given secret-of-the-environment {signed} end\nsecond line"
    assert brief(told, "given") == "*** *** *** https://cdn.example/f?… end"


def test_the_limit_holds_for_the_whole(hub: HubServer) -> None:
    shared_repo(hub)
    for pattern in ("/api/datasets/org/shared", "resolve"):
        hub.inject(pattern=pattern, delay=0.3, times=None)
    started = time.monotonic()
    with pytest.raises(
        HubUnavailableError, match=r"was not done after .* s: .*allow more time: timeout=… or \$HF_TASK2"
    ):
        pull(hub, timeout=0.5)
    assert 0.4 < time.monotonic() - started < 3


def test_interruption_does_not_wait(hub: HubServer) -> None:
    """Ctrl-C ends a stalled download at once: the request runs in a daemon thread."""
    shared_repo(hub)
    hub.inject(method="GET", pattern=r"resolve/.*safetensors", delay=60, after=10)
    code = f"from hf_task2vec import TaskEmbedding; TaskEmbedding.from_pretrained({REPO!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not hub.requested(r"resolve/.*safetensors", "GET") and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert time.monotonic() - started < 10
