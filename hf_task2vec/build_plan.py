"""A planned build of an index: what is measured, and what is left of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hf_task2vec import __version__, errors
from hf_task2vec.bundled import DEFAULT_PROBE
from hf_task2vec.cells import CellStore
from hf_task2vec.embedding import DESCRIPTORS, SCHEMA_VERSION, embedding_config
from hf_task2vec.errors import ProbeError, ProbeMismatchError, Task2VecError, TaskError, ZooIndexError
from hf_task2vec.files import cache_dir
from hf_task2vec.measured_rows import extended
from hf_task2vec.ray_backend import Cluster
from hf_task2vec.records import MANIFEST
from hf_task2vec.sweep import CELLS_FILE, Sweep, plan_cells
from hf_task2vec.sweep_inputs import (
    Checkpoint,
    CheckpointInput,
    SweepTask,
    TaskInput,
    read_checkpoints,
    read_tasks,
    resolve_checkpoint,
    resolve_task,
)
from hf_task2vec.zoo import ZooIndex

logger = logging.getLogger(__name__)

DEFAULT_SAMPLES = 1000
EMBEDDED_SAMPLES = 256
"""Images of the training split that an embedding is made of: as many as `select` takes of a user's dataset."""


@dataclass(frozen=True)
class BuildReport:
    """What a sweep came to.

    Attributes
    ----------
    path
        Folder of the index, None if none was written.
    done, failed
        Cells.
    failures
        For each failed cell: task, checkpoint, kind (``"measure"`` or ``"embed"``), error, reason.
    cells_file
        CSV report with one row a cell.
    counts
        Rows of the index by table.
    """

    path: Path | None
    done: int
    failed: int
    failures: tuple[dict[str, str], ...]
    cells_file: Path
    counts: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        paths = {"path": None if self.path is None else str(self.path), "cells_file": str(self.cells_file)}
        return {
            **paths,
            "done": self.done,
            "failed": self.failed,
            "counts": dict(self.counts),
            "failures": list(self.failures),
        }


class Build:
    """A planned build: nothing is measured before :meth:`run`. Parameters as of :func:`build_index`."""

    def __init__(
        self,
        out: str | os.PathLike[str] | None,
        tasks: Sequence[TaskInput],
        checkpoints: Sequence[CheckpointInput],
        *,
        base: ZooIndex | str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
        max_samples: int | None = DEFAULT_SAMPLES,
        seed: int = 0,
        embed: bool = True,
        probe: str = DEFAULT_PROBE,
        keep_features: bool = False,
        retry_failed: bool = False,
        device: str | None = None,
        batch_size: int | None = None,
        token: str | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        _check_counts(max_samples=max_samples, seed=seed, batch_size=batch_size)
        self.out = None if out is None else Path(out)
        self.base = _base(base)
        with ThreadPoolExecutor(8, thread_name_prefix="task2vec-resolve") as pool:  # each waits for the Hub
            self.tasks = list(pool.map(partial(resolve_task, token=token), read_tasks(tasks)))
            self.checkpoints = list(pool.map(partial(resolve_checkpoint, token=token), read_checkpoints(checkpoints)))
        _check_any(self.tasks, self.checkpoints)
        self._check_out()
        embedding = self._embedding(probe, token) if embed else None
        cells = plan_cells(
            self.tasks, self.checkpoints, {"max_samples": max_samples, "seed": seed}, embedding=embedding
        )
        folder = cache_dir() / "sweeps" if cache is None else Path(cache).expanduser()
        options = {"device": device, "batch_size": batch_size, "token": token, "keep_features": keep_features}
        self.sweep = Sweep(cells, CellStore(folder), options, retry_failed, cluster)

    def run(self, *, progress: bool = False) -> BuildReport:
        """Measure what is left and write the index; see :func:`build_index`."""
        self._check_before_work()
        self.sweep.run(progress=progress)
        self.sweep.write_report()
        finished = list(self.sweep.documents())
        failures = tuple(
            {name: document[name] for name in ("task", "checkpoint", "kind", "error", "reason")}
            for _, document in finished
            if document["status"] == "failed"
        )
        index = None
        if self.out is not None and len(failures) < len(finished):
            measured = [(cell, document) for cell, document in finished if document["status"] == "done"]
            index = extended(self.base, measured, self.sweep.store)
            index.save(self.out)
        counts = {} if index is None else {name: len(rows) for name, rows in index.rows.items()}
        return BuildReport(
            path=self.out if index is not None else None,
            done=len(finished) - len(failures),
            failed=len(failures),
            failures=failures,
            cells_file=self.sweep.store.folder / CELLS_FILE,
            counts=counts,
        )

    def _embedding(self, probe: str, token: str | None) -> tuple[Checkpoint, dict[str, Any], list[str]] | None:
        """Return probe, settings and names of the tasks to embed: those that the base has no embedding of."""
        table = self.base.embeddings if self.base.embedded is not None else None
        config = embedding_config(seed=0 if table is None else table.config.get("seed", 0))
        if table is not None and table.config != config:
            raise ZooIndexError(
                f"the base's embeddings were made with {table.config}, which a build does not do; embed the new tasks "
                "with embed_task and add them by with_embeddings, or pass embed=False"
            )
        names = [task.name for task in self.tasks if table is None or task.name not in table.names]
        if not names:
            return None
        checkpoint = resolve_checkpoint(probe if table is None else table.probe["name"], token=token)
        if checkpoint.failure is not None:
            raise ProbeError(f"tasks cannot be embedded: {checkpoint.failure.reason} Or pass embed=False (--no-embed)")
        version = {"schema_version": SCHEMA_VERSION, "descriptors": list(DESCRIPTORS)}
        return checkpoint, {"max_samples": EMBEDDED_SAMPLES, **config, **version}, names

    def _check_before_work(self) -> None:
        """Check what would make every cell fail: the device, and the probe's weights against the base's embeddings."""
        device, pending = self.sweep.options["device"], self.sweep.pending()
        if pending and device is not None and self.sweep.cluster is None:
            from hf_task2vec.devices import usable_device

            usable_device(device)
        pending = [cell for cell in pending if cell.kind == "embed"]
        if not pending or self.base.embedded is None:
            return
        expected, found = self.base.embeddings.weights_hash, pending[0].checkpoint.load().weights_hash
        if found != expected:
            raise ProbeMismatchError(
                f"probe {pending[0].checkpoint.name!r} has weights {found[:12]}… here, but the base's tasks were "
                f"embedded with {expected[:12]}…; pass embed=False (--no-embed)"
            )

    def _check_out(self) -> None:
        """Refuse to write over an index that holds what the new one would not."""
        if self.out is None or not (self.out / MANIFEST).is_file():
            return
        there = ZooIndex.load(self.out)
        kept = {
            "tasks": {task.name for task in self.tasks},
            "checkpoints": {checkpoint.name for checkpoint in self.checkpoints},
        }
        for table, names in kept.items():
            lost = {row.key[0] for row in there.rows[table]} - names - {row.key[0] for row in self.base.rows[table]}
            if lost:
                raise ZooIndexError(
                    f"{self.out} holds an index whose {len(lost)} {table} ({', '.join(sorted(lost)[:3])}, …) would be "
                    f"lost; extend it with base={str(self.out)!r} (--base), or choose another folder"
                )


def _base(base: ZooIndex | str | os.PathLike[str] | None) -> ZooIndex:
    if base is None:
        return ZooIndex(rows={}, package_version=__version__)
    return base if isinstance(base, ZooIndex) else ZooIndex.load(base)


def _check_counts(**values: int | None) -> None:
    for name, value in values.items():
        least = {"max_samples": 2, "seed": 0}.get(name, 1)
        if value is not None and value < least:
            raise TaskError(f"{name}={value} must be at least {least}")


def _check_any(tasks: Sequence[SweepTask], checkpoints: Sequence[Checkpoint]) -> None:
    """Raise if nothing could be measured; if some can, the others are recorded as failed."""
    for items in (tasks, checkpoints):
        failures = [item.failure for item in items]
        if (first := failures[0]) is not None and all(failures):
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            raise getattr(errors, first.error, Task2VecError)(first.reason + more)
