"""What a user who waits sees on standard error: messages, and the stage of the work where no bar is drawn yet.

The library logs the stages: a record with the attribute ``stage`` (``extra={"stage": "reading"}``) begins one. With the
empty name no line is drawn, because the library draws a bar itself, or nothing takes long: the message is the name.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Any

_TICK = 0.5  # seconds between two looks at the clock


def begin(stage: str) -> None:
    """Tell what begins now, as the library does; the empty name ends it."""
    logging.getLogger(__name__).debug("%s", stage, extra={"stage": stage})


class Messages(logging.StreamHandler):
    """Writes messages above the bars, not into them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        if not record.getMessage():
            return None
        if "tqdm" not in sys.modules:  # so there is no bar
            return super().emit(record)
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)
        return None


class Stages(logging.Handler):
    """Shows the name of the current stage, and for how long it has been going on.

    Parameters
    ----------
    show
        Draw it; else the name is only remembered.
    """

    def __init__(self, *, show: bool) -> None:
        super().__init__(logging.DEBUG)
        self._show = show
        self._bar: Any = None
        self._drawing = threading.Lock()  # or the clock could draw what was just cleared
        self._ended = threading.Event()
        self.current = ""

    def __enter__(self) -> Stages:
        if self._show:
            threading.Thread(target=self._tick, name="hf_task2vec-stage", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._clear()

    def emit(self, record: logging.LogRecord) -> None:
        """Begin or end a stage."""
        stage = getattr(record, "stage", None)
        if stage is not None:
            self.begin(str(stage), *getattr(record, "count", (0, None)))
            self.current = str(stage) or record.getMessage()

    def begin(self, name: str, done: int = 0, total: int | None = None) -> None:
        """Show a stage, or how far it is; the empty name shows none."""
        bar = self._bar
        if bar is not None and (bar.desc, bar.total) == (name, total):
            bar.update(done - bar.n)
            return
        self._clear()
        if self._show and name:
            from tqdm import tqdm

            form = "{desc} {elapsed}" if total is None else None
            self._bar = tqdm(
                desc=name, total=total, initial=done, unit="img", bar_format=form, leave=False, file=sys.stderr
            )

    def _clear(self) -> None:
        with self._drawing:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def _tick(self) -> None:
        while not self._ended.wait(_TICK):
            with self._drawing:
                if self._bar is not None:
                    self._bar.refresh()
