"""Faults on demand: error statuses, resets, truncation, stalls and corruption of chosen requests."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_WAIT = 600.0


class Dropped(Exception):
    """The connection is to be closed now, with a TCP reset or (a truncation) in good order."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "cut")
        self.reset = reset


@dataclass
class Fault:
    """What happens to the next `times` requests (None: to all) of a method whose path and query match a pattern."""

    method: str | None = None  # None: any
    pattern: str = ""
    times: int | None = 1
    skip: int = 0  # matching requests to let pass first
    status: int | None = None
    """Answer with this status instead of handling the request, which then has no effect."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to the response, e.g. ``{"Retry-After": "1"}`` or ``{"X-Error-Code": "GatedRepo"}``."""
    reset: bool = False
    """TCP reset: instead of an answer or, with `after`, in the body, when the request has taken effect."""
    cut: bool = False
    """Close the connection in good order before the whole body is sent (after half of it, or `after` bytes)."""
    corrupt: bool = False
    """Invert one byte of the body (the middle one, or number `after`); length and headers stay right."""
    delay: float = 0.0
    """Seconds to wait, before the answer or (with `after`) inside the body."""
    after: int | None = None
    fired: int = 0

    def strikes(self, method: str, target: str, *, in_body: bool) -> bool:
        """Say whether a request fails in this phase, and count it if it does."""
        if in_body is not (self.cut or self.corrupt or self.after is not None):
            return False
        if self.method not in (None, method) or not re.search(self.pattern, target):
            return False
        if self.times is not None and self.fired >= self.times:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.fired += 1
        return True


class FaultInjector:
    """Thread-safe list of faults; for each request and phase at most the first that matches strikes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._release = threading.Event()
        self.faults: list[Fault] = []

    def inject(self, **settings: Any) -> Fault:
        """Make matching requests fail: see :class:`Fault`."""
        fault = Fault(**settings)
        with self._lock:
            self.faults.append(fault)
        return fault

    def take(self, method: str, target: str, *, in_body: bool) -> Fault | None:
        """Return the fault that strikes this request in this phase, if any, and count it."""
        with self._lock:
            return next((fault for fault in self.faults if fault.strikes(method, target, in_body=in_body)), None)

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until :meth:`clear`."""
        self._release.wait(min(seconds, LONGEST_WAIT))

    def clear(self) -> None:
        """Forget all faults and wake the requests that wait."""
        with self._lock:
            self.faults = []
            release, self._release = self._release, threading.Event()
        release.set()

    def disturb(self, chunks: Iterable[bytes], length: int, fault: Fault) -> Iterator[bytes]:
        """Yield the body of `length` > 0 bytes as the fault leaves it; :exc:`Dropped` says to hang up."""
        position = length // 2 if fault.after is None else min(fault.after, length - 1)
        sent = 0
        for chunk in chunks:
            offset = position - sent
            sent += len(chunk)
            if not 0 <= offset < len(chunk):
                yield chunk
                continue
            if offset:
                yield chunk[:offset]
            if fault.delay:
                self.wait(fault.delay)
            if fault.reset or fault.cut:
                raise Dropped(reset=fault.reset)
            rest = chunk[offset:]
            yield bytes([rest[0] ^ 0xFF]) + rest[1:] if fault.corrupt else rest
