"""What a visitor may ask for, and the process that does it: bounded in time and memory, without any token."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from hf_task2vec.errors import TaskError

logger = logging.getLogger(__name__)

DIGITS = "sklearn:digits"
SECONDS = 600.0
"""Longest time that one request may take."""
MEMORY = 8 * 2**30
"""Most memory of one request, in bytes."""

_WORKER = Path(__file__).with_name("worker.py")
_BAR = "\x1e"  # marks a line of a progress bar among the other lines of standard error
_POLL = 0.5
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][\w.,:+\[\]%/ -]{0,99}", re.ASCII)
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|API_KEY|CREDENTIAL", re.IGNORECASE)


class WorkerError(Exception):
    """A request failed for a reason that is no concern of the visitor; the log has it."""


@dataclass(frozen=True)
class Job:
    """One request, checked.

    Attributes
    ----------
    dataset
        Hub id or the built-in sample; empty with an archive.
    archive, title
        The zip that was dropped, and the name shown for it.
    config, split, revision
        Of a dataset on the Hub.
    max_samples, top_k, max_params, licenses
        See :func:`hf_task2vec.select_backbone`.
    memory
        Limit in bytes.
    """

    dataset: str = ""
    archive: str | None = None
    title: str = "images"
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    max_samples: int = 256
    top_k: int = 10
    max_params: float | None = None
    licenses: tuple[str, ...] = ()
    memory: int = MEMORY

    def __post_init__(self) -> None:
        object.__setattr__(self, "licenses", tuple(self.licenses))
        if self.is_remote and not _HUB_ID.fullmatch(self.dataset):
            raise TaskError(f"{self.dataset[:100]!r} is no id of a dataset on the Hub; one looks like org/name")
        for name in ("config", "split", "revision"):
            value = getattr(self, name)
            if value is not None and (not _WORD.fullmatch(value) or ".." in value):
                raise TaskError(f"{name} {value[:100]!r} holds signs that the Hub does not use in such names")
        if not 2 <= self.max_samples <= 1024 or not 1 <= self.top_k <= 100:
            raise TaskError("2 to 1024 images can be drawn, and 1 to 100 checkpoints shown")

    @property
    def is_remote(self) -> bool:
        """Whether the dataset is one of the Hub."""
        return self.archive is None and self.dataset != DIGITS

    @classmethod
    def of_json(cls, text: str) -> Job:
        """Return the job that `to_json` wrote."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Return the job as one line."""
        return json.dumps(asdict(self))


def title_of(path: str) -> str:
    """Return the name of a dropped file without suffix, fit for the name of a folder.

    >>> title_of("uploads/My photos.zip")
    'My-photos'
    """
    return re.sub(r"[^\w.-]+", "-", Path(path).stem, flags=re.ASCII).strip("-._")[:60] or "images"


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a worker: no token, and caches that go with `folder`.

    A Space's own token could open private datasets of its owner to any visitor.
    """
    kept = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    return kept | {
        "HF_HOME": str(folder / "cache"),
        "HF_DATASETS_CACHE": str(folder / "cache" / "datasets"),
        "HF_HUB_CACHE": str(folder / "cache" / "hub"),
        "HF_XET_CACHE": str(folder / "cache" / "xet"),
        "HF_TASK2VEC_CACHE": str(folder / "cache" / "task2vec"),
        "TMPDIR": str(folder),
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "PYTHONIOENCODING": "utf-8",
        "TQDM_BAR_FORMAT": f"{_BAR}{{desc}}\t{{n}}\t{{total}}",
        "TQDM_MININTERVAL": "0.5",
    }


def run(job: Job, folder: Path, seconds: float | None = None) -> Iterator[dict[str, Any]]:
    """Do a job in a process of its own and yield what it tells, at least every half second.

    Parameters
    ----------
    job
        What to do.
    folder
        An empty folder, where the results will lie.
    seconds
        Longest time; by default `SECONDS`.

    Yields
    ------
    dict
        ``{"stage": …, "detail": …}``, ``{"bar": …, "done": n, "total": n}``, ``{}`` when there is nothing new, and
        last ``{"result": …}``. Closing the generator ends the process.

    Raises
    ------
    TaskError
        With a text for the visitor: what was asked for cannot be done, or not in this time.
    WorkerError
        The worker failed.
    """
    seconds = SECONDS if seconds is None else seconds
    end = time.monotonic() + seconds
    nowhere = folder / "nowhere"  # the working folder is empty: no name of a dataset is also one of a folder here
    nowhere.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(_WORKER), str(folder)],
        cwd=nowhere,
        env=environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(job.to_json())
        yield from _messages(process, end, seconds)
    except TaskError as error:
        raise TaskError(str(error).replace(f"{folder}{os.sep}", "")) from None
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _messages(process: subprocess.Popen[str], end: float, seconds: float) -> Iterator[dict[str, Any]]:
    lines: queue.Queue[tuple[str, str] | None] = queue.Queue()
    readers = [
        threading.Thread(target=_read, args=(pipe, name, lines), daemon=True)
        for name, pipe in (("out", process.stdout), ("err", process.stderr))
    ]
    for reader in readers:
        reader.start()
    log: list[str] = []
    running = len(readers)
    while running:
        if time.monotonic() > end:
            raise TaskError(f"This took longer than {seconds:.0f} seconds and was ended. Take fewer or smaller images.")
        try:
            found = lines.get(timeout=_POLL)
        except queue.Empty:
            yield {}
            continue
        if found is None:
            running -= 1
        elif found[0] == "err":
            if bar := _bar(found[1]):
                yield bar
            else:
                log = [*log[-40:], found[1][:500]]
        else:
            message = json.loads(found[1])
            if message.get("error"):
                raise TaskError(message["error"])
            if "error" in message:
                break
            yield message
            if "result" in message:
                return
    logger.error("the worker ended with %s\n%s", process.poll(), "\n".join(log))
    raise WorkerError


def _read(pipe: IO[str], name: str, lines: queue.Queue[tuple[str, str] | None]) -> None:
    with contextlib.suppress(ValueError, OSError):  # closed meanwhile
        for line in pipe:  # a progress bar's carriage return ends a line too
            if line := line.strip("\r\n "):
                lines.put((name, line))
    lines.put(None)


def _bar(line: str) -> dict[str, Any] | None:
    """Return the state of a progress bar that a line tells."""
    if not line.startswith(_BAR):
        return None
    parts = line[1:].split("\t")
    try:
        what, done, total = parts[0].rstrip(": "), float(parts[1]), float(parts[2])
    except (IndexError, ValueError):
        return None
    return {"bar": what, "done": done, "total": total}
