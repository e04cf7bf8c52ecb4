"""Cells of a sweep and their files: one measurement of one checkpoint on one task, kept under what determines it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import ZooIndexError
from hf_task2vec.files import atomic_path, canonical_json, sha256_bytes, write_json
from hf_task2vec.sweep_inputs import Checkpoint, Failure, SweepTask

logger = logging.getLogger(__name__)

MEASUREMENT_VERSION = 1
"""Part of every key: raised when the same features would give another measurement."""

FORMAT = 1
#: Classes of errors that say nothing about the cell itself: it is tried again at the next start.
TRANSIENT = ("HubError", "ConnectionError", "TimeoutError")
MAX_DEATHS = 3
"""A cell in which the process ended so often without a result is given up: it may need more memory than there is."""


@dataclass(frozen=True)
class Cell:
    """One unit of work: measure a checkpoint on a task, or embed a task with a probe.

    Attributes
    ----------
    config
        JSON-able settings that change the result.
    """

    kind: Literal["measure", "embed"]
    task: SweepTask
    checkpoint: Checkpoint
    config: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Name of the cell's files: changes with the task's content, the weights, and the settings."""
        return self._key(kind=self.kind, version=MEASUREMENT_VERSION)

    @cached_property
    def features_key(self) -> str:
        """Name of the features' file, which does not change with how features are evaluated."""
        return self._key(kind="features")

    def _key(self, **more: Any) -> str:
        parts = {"task": self.task.identity, "checkpoint": self.checkpoint.identity, "config": self.config, **more}
        return sha256_bytes(canonical_json(parts))[:40]

    @property
    def failure(self) -> Failure | None:
        """Why the cell cannot be measured, if that is known beforehand."""
        return self.checkpoint.failure or self.task.failure

    def __str__(self) -> str:
        return f"{self.checkpoint.name} on {self.task.name}"


@dataclass(frozen=True)
class CellResult:
    """What the work on a cell gave, in the form in which it is sent and stored.

    Attributes
    ----------
    document
        JSON-able: status, measurement, sample, facts, seconds, versions.
    payload
        A safetensors file: which examples were classified rightly, or the embedding.
    features
        A safetensors file of the features, if they are to be kept.
    """

    document: dict[str, Any]
    payload: bytes | None = None
    features: bytes | None = None


def failed(cell: Cell, failure: Failure, **more: Any) -> CellResult:
    """Return the result of a cell that cannot be measured."""
    return CellResult(describe(cell) | {"status": "failed", "error": failure.error, "reason": failure.reason} | more)


def describe(cell: Cell) -> dict[str, Any]:
    """Return what a cell's document says of the cell itself."""
    return {
        "format": FORMAT,
        "key": cell.key,
        "kind": cell.kind,
        "task": cell.task.name,
        "task_identity": dict(cell.task.identity),
        "checkpoint": cell.checkpoint.name,
        "checkpoint_identity": dict(cell.checkpoint.identity),
        "config": dict(cell.config),
    }


class CellStore:
    """The files of cells below a folder: ``cells/``, and ``features/`` where they are kept.

    Every file appears whole or not at all, and a cell's JSON document last: a cell without one is not done.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def document(self, cell: Cell) -> dict[str, Any] | None:
        """Return a cell's document, or None if it is not done (or its document is unreadable)."""
        path = self._path(cell, ".json")
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            document = None
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            logger.warning("%s is not readable; the cell is measured again", path)
            return None
        # The names are not part of the key: a task may have been renamed since.
        return document | {"task": cell.task.name, "checkpoint": cell.checkpoint.name}

    def is_finished(self, cell: Cell, *, retry_failed: bool = False) -> bool:
        """Say whether a cell needs no work: it is done, or failed for a reason of its own."""
        document = self.document(cell)
        if document is None:
            return False
        return document["status"] == "done" or not (retry_failed or document["error"] in TRANSIENT)

    def begin(self, cell: Cell) -> int:
        """Note that work on a cell begins; return how often it did so without an end."""
        path = self._path(cell, ".begun")
        times = (len(path.read_bytes()) if path.exists() else 0) + 1
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"x" * times)
        return times

    def write(self, cell: Cell, result: CellResult) -> None:
        """Store a result, the document last."""
        if result.features is not None:
            with atomic_path(self.features_path(cell)) as temporary:
                temporary.write_bytes(result.features)
        if result.payload is not None:
            with atomic_path(self._path(cell, ".safetensors")) as temporary:
                temporary.write_bytes(result.payload)
        write_json(self._path(cell, ".json"), result.document)
        self.forget(cell)

    def forget(self, cell: Cell) -> None:
        """Take back what :meth:`begin` noted."""
        self._path(cell, ".begun").unlink(missing_ok=True)

    def payload_path(self, cell: Cell) -> Path:
        """Return the path of a done cell's safetensors file."""
        return self._path(cell, ".safetensors")

    def correct(self, cell: Cell) -> dict[str, NDArray[np.bool_]]:
        """Return which examples were classified rightly, by classifier: ``linear``.

        Raises
        ------
        ZooIndexError
            The cell is not done.
        """
        from safetensors.numpy import load_file

        document, path = self.document(cell), self.payload_path(cell)
        if document is None or document["status"] != "done" or not path.is_file():
            raise ZooIndexError(f"{cell} is not measured yet in {self.folder}")
        count = document["sample"]["n"]
        return {name: np.unpackbits(bits, count=count).astype(np.bool_) for name, bits in load_file(path).items()}

    def features_path(self, cell: Cell) -> Path:
        """Return where a cell's features lie if they were kept."""
        return self.folder / "features" / cell.features_key[:2] / f"{cell.features_key}.safetensors"

    def features(self, cell: Cell) -> bytes | None:
        """Return the file of a cell's kept features."""
        try:
            return self.features_path(cell).read_bytes() if cell.kind == "measure" else None
        except FileNotFoundError:
            return None

    def _path(self, cell: Cell, suffix: str) -> Path:
        # Two digits in between: file systems dislike folders of a million files.
        return self.folder / "cells" / cell.key[:2] / f"{cell.key}{suffix}"
