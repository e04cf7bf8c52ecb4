"""How far long work is: a bar on a terminal or in a notebook, else a line in the log for each stage and every 15 s."""

from __future__ import annotations

import io
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

T = TypeVar("T")
EVERY = 15.0
"""Seconds between two lines of one stage."""


def say(stage: str, *facts: object) -> None:
    """Log that a stage of the work begins."""
    logger.info(stage, *facts)


@contextmanager
def stage(name: str, *facts: object) -> Iterator[None]:
    """Log that a stage begins, and every 15 s how long it has taken."""
    say(name, *facts)
    start = time.monotonic()
    with _repeated(lambda: say(f"{name}: %.0f s so far", *facts, time.monotonic() - start)):
        yield


@contextmanager
def bar(name: str, unit: str, total: int | None, *, shown: bool, done: int = 0) -> Iterator[tqdm[Any]]:
    """Count on a bar; where there is no terminal, but somebody listens to the log, every 15 s there."""
    options: dict[str, Any] = {"desc": name, "unit": unit, "total": total, "initial": done, "leave": False}
    if not shown or sys.stderr.isatty() or not logger.isEnabledFor(logging.INFO):
        with tqdm(**options, disable=not shown) as counter:
            yield counter
        return
    with tqdm(**options, file=io.StringIO(), mininterval=math.inf) as counter:

        def tell() -> None:
            what, of = counter.desc.removesuffix(": "), "" if total is None else f" of {total:,}"
            say("%s", f"{what}: {counter.n:,}{of} {unit}, {counter.format_dict['elapsed']:.0f} s so far")

        with _repeated(tell):
            yield counter


def each(items: Collection[T], name: str, unit: str, *, shown: bool) -> Iterator[T]:
    """Yield items, counted on a `bar`."""
    with bar(name, unit, len(items), shown=shown) as counter:
        for item in items:
            yield item
            counter.update()


@contextmanager
def _repeated(tell: Callable[[], object]) -> Iterator[None]:
    """Call a function every 15 s, if the log is listened to."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(EVERY):
            tell()

    if logger.isEnabledFor(logging.INFO):
        threading.Thread(target=go_on, daemon=True, name="hf_task2vec-progress").start()
    try:
        yield
    finally:
        ended.set()
