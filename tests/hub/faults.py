"""Faults on demand: error statuses, resets, truncation, stalls and corruption of chosen requests."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

LONGEST_WAIT = 600.0


class Dropped(Exception):
    """The connection is to be closed now, with a TCP reset or (a truncation) in good order."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("reset" if reset else "cut")
        self.reset = reset


@dataclass
class Fault:
    """What happens to the next `times` requests that match; see :meth:`FaultInjector.inject`."""

    method: str | None
    pattern: re.Pattern[str]
    times: int | None
    skip: int = 0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    reset: bool = False
    cut: bool = False
    corrupt: bool = False
    delay: float = 0.0
    after: int | None = None
    seen: int = 0
    fired: int = 0

    @property
    def in_body(self) -> bool:
        """Whether the fault strikes while the response body is sent, thus after the request took effect."""
        return self.cut or self.corrupt or self.after is not None

    def strikes(self, method: str, target: str) -> bool:
        """Count a request and say whether it is one of those to fail."""
        if self.method not in (None, method) or not self.pattern.search(target):
            return False
        if self.times is not None and self.fired >= self.times:
            return False
        self.seen += 1
        if self.seen <= self.skip:
            return False
        self.fired += 1
        return True


class FaultInjector:
    """Thread-safe list of faults; for each request and phase at most the first that matches strikes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._release = threading.Event()
        self.faults: list[Fault] = []

    def inject(
        self,
        *,
        method: str | None = None,
        pattern: str = "",
        times: int | None = 1,
        skip: int = 0,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        reset: bool = False,
        cut: bool = False,
        corrupt: bool = False,
        delay: float = 0.0,
        after: int | None = None,
    ) -> Fault:
        """Make the next `times` matching requests (None: all of them) fail.

        Parameters
        ----------
        method
            HTTP method; None for any.
        pattern
            Regular expression searched in the raw path and query, e.g. ``"resolve/.*safetensors"``.
        skip
            Number of matching requests to let pass first.
        status
            Answer with this status instead of handling the request, which then has no effect.
        headers
            Headers added to the response, e.g. ``{"Retry-After": "1"}`` or ``{"X-Error-Code": "GatedRepo"}``.
        reset
            TCP reset. Without `after` it comes instead of an answer and the request has no effect; with `after` it
            comes after so many bytes of the body, and the request has taken effect (``after=0``: lost answer).
        cut
            Close the connection in good order before the whole body is sent (after half of it, or `after` bytes).
        corrupt
            Invert one byte of the body (the middle one, or number `after`); length and headers stay right.
        delay
            Seconds to wait, before the answer or (with `after`) inside the body.
        """
        if status is not None and (reset or cut or corrupt or after is not None):
            raise ValueError("status= replaces the response: it goes together with headers= and delay= only")
        fault = Fault(
            method=method,
            pattern=re.compile(pattern),
            times=times,
            skip=skip,
            status=status,
            headers=dict(headers or {}),
            reset=reset,
            cut=cut,
            corrupt=corrupt,
            delay=delay,
            after=after,
        )
        with self._lock:
            self.faults.append(fault)
        return fault

    def take(self, method: str, target: str, *, in_body: bool) -> Fault | None:
        """Return the fault that strikes this request in this phase, if any, and count it."""
        with self._lock:
            for fault in self.faults:
                if fault.in_body is in_body and fault.strikes(method, target):
                    return fault
        return None

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
