"""Run the cells of a sweep, here or on a cluster, and keep every result as soon as it is there."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from hf_task2vec.cells import MAX_DEATHS, Cell, CellStore, failed
from hf_task2vec.errors import ZooIndexError
from hf_task2vec.files import atomic_path
from hf_task2vec.measured_rows import report_row
from hf_task2vec.ray_backend import Cluster, check_nodes, connected, run_on_cluster
from hf_task2vec.sweep_inputs import Checkpoint, Failure, SweepTask

logger = logging.getLogger(__name__)

CELLS_FILE = "cells.csv"
#: Columns of the report beside those of `measurement`.
_REPORT = (
    "task", "checkpoint", "kind", "status", "error", "reason", "n", "n_train", "n_test", "n_classes", "skipped", "dim",
    "linear", "linear_se", "load", "draw", "extract", "score", "device", "host", "measured", "key",
)  # fmt: skip


def plan_cells(
    tasks: Sequence[SweepTask],
    checkpoints: Sequence[Checkpoint],
    config: Mapping[str, Any],
    *,
    embedding: tuple[Checkpoint, Mapping[str, Any], Sequence[str]] | None = None,
) -> list[Cell]:
    """Return the cells of a sweep, task by task, so that images are decoded once.

    Every other task is walked in the opposite direction: the checkpoints loaded last are then used first.

    Parameters
    ----------
    tasks, checkpoints, config
        Every pair is measured, with the settings `config`.
    embedding
        Probe, settings, and the names of the tasks that are embedded with it.

    Raises
    ------
    ZooIndexError
        Two checkpoints have the same name.
    """
    names = [checkpoint.name for checkpoint in checkpoints]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ZooIndexError(
            f"several checkpoints would be {twice[0]!r} in the index (folders of the same name, or revisions of one "
            "repository); measure one of them at a time, or rename the folder"
        )
    cells: list[Cell] = []
    for position, task in enumerate(tasks):
        if embedding is not None and task.name in embedding[2]:
            cells.append(Cell("embed", task, embedding[0], embedding[1]))
        cells.extend(
            Cell("measure", task, checkpoint, config) for checkpoint in checkpoints[:: -1 if position % 2 else 1]
        )
    return cells


@dataclass(frozen=True)
class Sweep:
    """Cells, where their results are kept, and how they are worked on.

    Attributes
    ----------
    options
        Arguments of :class:`~hf_task2vec.sweep_worker.Worker`.
    retry_failed
        Try cells again that failed at an earlier start.
    cluster
        Work on a Ray cluster instead of here.
    """

    cells: Sequence[Cell]
    store: CellStore
    options: Mapping[str, Any]
    retry_failed: bool = False
    cluster: Cluster | None = None

    def pending(self) -> list[Cell]:
        """Return the cells that are left."""
        return [cell for cell in self.cells if not self.store.is_finished(cell, retry_failed=self.retry_failed)]

    def run(self, *, progress: bool = False) -> None:
        """Work on every cell that is left; each result is stored before the next is waited for."""
        pending = self.pending()
        if not pending:
            return
        told: set[str] = set()
        with ExitStack() as stack:
            # Closed in any case, so that an interrupted cluster is told to start nothing more.
            results = self._here(pending) if self.cluster is None else self._there(pending, self.cluster, stack)
            stack.callback(results.close)
            bar = stack.enter_context(
                tqdm(total=len(self.cells), initial=len(self.cells) - len(pending), unit="cell", disable=not progress)
            )
            for cell, result in results:
                self.store.write(cell, result)
                if result.document["status"] == "failed":
                    reason = result.document["reason"]
                    # A bad checkpoint fails on every task: told once, and found again in the report.
                    logger.log(logging.DEBUG if reason in told else logging.WARNING, "%s failed: %s", cell, reason)
                    told.add(reason)
                bar.set_postfix_str(str(cell), refresh=False)
                bar.update()

    def _here(self, pending: Iterable[Cell]) -> Any:
        from hf_task2vec.sweep_worker import Worker

        worker = Worker(**self.options)
        for cell in pending:
            if cell.failure is None and self.store.begin(cell) > MAX_DEATHS:
                reason = f"the process ended {MAX_DEATHS} times during this cell: is there enough memory for it?"
                yield cell, failed(cell, Failure("ProcessDied", reason))
                continue
            try:
                result = worker.run(cell, self.store.features(cell))
            except KeyboardInterrupt:
                self.store.forget(cell)  # that was the user, not the cell
                raise
            yield cell, result

    def _there(self, pending: Sequence[Cell], cluster: Cluster, stack: ExitStack) -> Any:
        slots = stack.enter_context(connected(cluster))
        known = [cell for cell in pending if cell.failure is not None]
        others = [cell for cell in pending if cell.failure is None]
        check_nodes(folder for cell in others for folder in (cell.task.spec.folder, cell.checkpoint.folder) if folder)
        device = "cuda" if cluster.gpus_per_cell else "cpu"
        options = {"device": device, **{name: v for name, v in self.options.items() if v is not None}}
        work = ((cell, self.store.features(cell)) for cell in others)
        return _chain(
            ((cell, failed(cell, cell.failure)) for cell in known if cell.failure),
            run_on_cluster(work, cluster, slots, options),
        )

    def documents(self) -> Iterator[tuple[Cell, dict[str, Any]]]:
        """Yield the documents of all finished cells."""
        for cell in self.cells:
            if (document := self.store.document(cell)) is not None:
                yield cell, document

    def write_report(self) -> None:
        """Write ``cells.csv`` into the cache: one row a cell with its status, reason, measurement and time."""
        rows = [report_row(document) for _, document in self.documents()]
        path = self.store.folder / CELLS_FILE
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, _REPORT, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda row: (row["task"], row["checkpoint"], row["kind"])))


def _chain(known: Iterable[Any], results: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from known
        yield from results
    finally:
        results.close()  # type: ignore[attr-defined]
