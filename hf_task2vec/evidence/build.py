"""Build an index: measure checkpoints on tasks, embed the tasks, and put all of it into one folder."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hf_task2vec import __version__
from hf_task2vec.embedding import DESCRIPTORS, SCHEMA_VERSION, Computing, embedding_config
from hf_task2vec.errors import ProbeError, ProbeMismatchError, TaskError, ZooIndexError
from hf_task2vec.evidence.cells import Cell, CellStore, Worker
from hf_task2vec.evidence.inputs import (
    Checkpoint,
    CheckpointInput,
    PinnedTask,
    TaskInput,
    TaskSpec,
    pinned_checkpoint,
    pinned_task,
    read_checkpoints,
    read_tasks,
)
from hf_task2vec.evidence.ray import Cluster, run_on_cluster
from hf_task2vec.evidence.rows import extended, report_row
from hf_task2vec.files import atomic_path, cache_dir, expanded
from hf_task2vec.probes import DEFAULT_PROBE
from hf_task2vec.tasks import bar, say
from hf_task2vec.zoo import MANIFEST, CheckpointRow, TaskRow, ZooIndex

__all__ = ["BuildReport", "Checkpoint", "Cluster", "TaskSpec", "build_index", "plan_cells", "run_cells"]

logger = logging.getLogger(__name__)

DEFAULT_SAMPLES = 1000
EMBEDDED_SAMPLES = 256
"""Images of the training split that an embedding is made of: as many as `select` takes of a user's dataset."""
_REPORT = (
    "task", "checkpoint", "kind", "status", "error", "reason", "n", "n_train", "n_test", "n_classes", "skipped", "dim",
    "linear", "linear_se", "load", "draw", "extract", "score", "device", "host", "measured", "key",
)  # fmt: skip


@dataclass(frozen=True)
class BuildReport:
    """What a build came to."""

    path: Path | None
    """Folder of the index, None if none was written."""
    cells_file: Path
    """CSV report with one row a cell."""
    done: int
    failed: int
    """Cells."""
    counts: Mapping[str, int]
    """Rows of the index by table."""
    failures: tuple[dict[str, str], ...]
    """For each failed cell: task, checkpoint, kind (``"measure"`` or ``"embed"``), error, reason."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"path": self.path and str(self.path), "cells_file": str(self.cells_file)}


def build_index(
    out: str | os.PathLike[str],
    tasks: Sequence[TaskInput],
    checkpoints: Sequence[CheckpointInput],
    *,
    base: ZooIndex | str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    max_samples: int | None = DEFAULT_SAMPLES,
    seed: int = 0,
    embed: bool = True,
    probe: str = DEFAULT_PROBE,
    retry_failed: bool = False,
    device: str | None = None,
    batch_size: int | None = None,
    token: str | None = None,
    cluster: Cluster | None = None,
    progress: bool = False,
) -> BuildReport:
    """Measure checkpoints on tasks, embed the tasks, and write an index that `select` can use.

    Every pair is a cell: frozen features are extracted once, and judged by a linear probe (leave-one-out over all
    images, training and test split pooled). Each cell is stored as soon as it is done, under a key of the dataset's
    revision, the checkpoint's revision and the settings: a build that was killed goes on where it was, and one that is
    complete measures nothing. A cell that cannot be measured is recorded with the reason, and the others go on. The
    same measurements give the same bytes.

    Parameters
    ----------
    out
        Folder of the index.
    tasks
        Datasets (Hub ids, folders, ``"sklearn:digits"``), ``.csv`` files with one a row, or
        :class:`~hf_task2vec.evidence.inputs.TaskSpec`.
    checkpoints
        Hub ids (with ``@revision`` if wanted), folders, ``.txt`` files with one a line, or
        :class:`~hf_task2vec.evidence.inputs.Checkpoint`. None at all: the tasks are only embedded.
    base
        Index to extend. What it says of tasks and checkpoints stays; a score measured again is replaced. None starts
        a new one.
    cache
        Folder of the cells; by default ``sweeps`` in :func:`~hf_task2vec.files.cache_dir`. The report ``cells.csv``
        is written there.
    max_samples
        Images of each split, drawn at random with the classes balanced; None for all. The evaluation needs time and
        memory of the order of their number's cube and square.
    seed
        Seed of the samples.
    embed
        Embed each task that the base has no embedding of, with the base's probe and 256 images of the training split.
    probe
        Probe of a new index.
    retry_failed
        Try cells again that failed before. Those that failed because the Hub could not be reached always are.
    device, batch_size
        Where and in which portions features are extracted; None takes a GPU if there is one, and what suits it.
    token
        Hub token.
    cluster
        Work on a Ray cluster instead of here.
    progress
        Show a bar with the time left on stderr.

    Returns
    -------
    BuildReport

    Raises
    ------
    TaskError, ProbeError, HubError
        No task or no checkpoint can be used at all, two have the same name, or an argument is out of range.
    ZooIndexError, ProbeMismatchError
        The base cannot be extended, or the index in `out` holds what would be lost.
    DistributedError
        The cluster cannot be used.
    """
    computing = Computing(device, batch_size, token, progress=progress)
    for name, value, least in (("max_samples", max_samples, 2), ("seed", seed, 0)):
        if value is not None and value < least:
            raise TaskError(f"{name}={value} must be at least {least}")
    if base is None:
        base = ZooIndex(rows={}, package_version=__version__)
    elif not isinstance(base, ZooIndex):
        base = ZooIndex.load(base)
    with ThreadPoolExecutor(8, thread_name_prefix="task2vec-pin") as pool:  # each waits for the Hub
        pinned = list(pool.map(partial(pinned_task, token=token), read_tasks(tasks)))
        named = read_checkpoints(checkpoints) if checkpoints or not embed else []
        known = list(pool.map(partial(pinned_checkpoint, token=token), named))
    for group in (pinned, known):
        _check_usable(group)
    _check_out(Path(out), base, pinned, known)
    cells = plan_cells(pinned, known, {"max_samples": max_samples, "seed": seed})
    if embed:
        cells = [*_embeddings(base, pinned, probe, token), *cells]
        cells.sort(key=lambda cell: pinned.index(cell.task))  # task by task: its embedding, then its measurements
    store = CellStore(cache_dir() / "sweeps" if cache is None else expanded(cache))
    pending = [cell for cell in cells if store.is_pending(cell, retry_failed=retry_failed)]
    _check_before_work(pending, base, None if cluster is not None else device)
    run_cells(pending, store, computing, cluster=cluster, done=len(cells) - len(pending))
    return _finished(Path(out), base, cells, store)


def plan_cells(tasks: Sequence[PinnedTask], checkpoints: Sequence[Checkpoint], config: Mapping[str, Any]) -> list[Cell]:
    """Return a cell for each pair, task by task, so that images are decoded once.

    Every other task is walked in the opposite direction: the checkpoints loaded last are then used first.
    """
    names = [checkpoint.name for checkpoint in checkpoints]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ZooIndexError(
            f"several checkpoints would be {twice[0]!r} in the index (folders of the same name, or revisions of one "
            "repository); measure one of them at a time, or rename the folder"
        )
    return [
        Cell("measure", task, checkpoint, config)
        for position, task in enumerate(tasks)
        for checkpoint in checkpoints[:: -1 if position % 2 else 1]
    ]


def run_cells(
    pending: Sequence[Cell],
    store: CellStore,
    computing: Computing,
    *,
    cluster: Cluster | None = None,
    done: int = 0,
) -> None:
    """Work on cells, here or on a cluster, and keep each result before the next is waited for.

    `done` cells more are shown as finished.
    """
    if not pending:
        return
    say("measuring %d cells", len(pending))
    told: set[str] = set()
    if cluster is None:
        worker = Worker(computing)
        results = ((cell, worker.run(cell)) for cell in pending)
    else:
        results = run_on_cluster(pending, cluster, computing)
    # Closed in any case, so that an interrupted cluster is told to start nothing more.
    with (
        closing(results),
        bar("measuring", "cell", done + len(pending), shown=computing.progress, done=done) as counter,
    ):
        for cell, result in results:
            store.write(cell, result)
            if result[0]["status"] == "failed":
                reason = result[0]["reason"]
                # A bad checkpoint fails on every task: told once, and found again in the report.
                logger.log(logging.DEBUG if reason in told else logging.WARNING, "%s failed: %s", cell, reason)
                told.add(reason)
            counter.set_postfix_str(str(cell), refresh=False)
            counter.update()


def _finished(out: Path, base: ZooIndex, cells: Sequence[Cell], store: CellStore) -> BuildReport:
    """Write the report of the cells, and the index of those that are done."""
    documents = [(cell, document) for cell in cells if (document := store.document(cell)) is not None]
    report = store.folder / "cells.csv"
    with atomic_path(report) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, _REPORT, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        rows = [report_row(document) for _, document in documents]
        writer.writerows(sorted(rows, key=lambda row: (row["task"], row["checkpoint"], row["kind"])))
    done = [found for found in documents if found[1]["status"] == "done"]
    counts: dict[str, int] = {}
    if done:
        index = extended(base, done, store)
        index.save(out)
        counts = {name: len(rows) for name, rows in index.rows.items()}
    told = ("task", "checkpoint", "kind", "error", "reason")
    failures = tuple({name: d[name] for name in told} for _, d in documents if d["status"] == "failed")
    return BuildReport(out if done else None, report, len(done), len(failures), counts, failures)


# ---------------------------------------------------------------------- checks before long work


def _check_usable(items: Sequence[PinnedTask] | Sequence[Checkpoint]) -> None:
    """Raise if nothing could be measured; if some can, the others are recorded as failed."""
    failures = [item.failure for item in items if item.failure is not None]
    if failures and len(failures) == len(items):
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise type(failures[0])(f"{failures[0]}{more}") from failures[0]
    for error in failures:
        logger.warning("%s", error)


def _check_out(out: Path, base: ZooIndex, tasks: Sequence[PinnedTask], checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse to write over an index that holds what the new one would not."""
    if not (out / MANIFEST).is_file():
        return
    there = ZooIndex.load(out)
    for table, row_type, items in (("tasks", TaskRow, tasks), ("checkpoints", CheckpointRow, checkpoints)):
        kept = base.by_name(row_type).keys() | base.names.keys() | {item.name for item in items}
        lost = there.by_name(row_type).keys() - kept
        if lost:
            raise ZooIndexError(
                f"{out} holds an index whose {len(lost)} {table} ({', '.join(sorted(lost)[:3])}, …) would be "
                f"lost; extend it with base={str(out)!r} (--base), or choose another folder"
            )


def _embeddings(base: ZooIndex, tasks: Sequence[PinnedTask], probe: str, token: str | None) -> list[Cell]:
    """Return a cell for each task that the base has no embedding of."""
    table = base.embeddings if base.embedded is not None else None
    config = embedding_config(seed=0 if table is None else table.config.get("seed", 0))
    if table is not None and table.config != config:
        raise ZooIndexError(
            f"the base's embeddings were made with {table.config}, which a build does not do; embed the new tasks "
            "with embed_task and add them by with_embeddings, or pass embed=False"
        )
    new = [task for task in tasks if table is None or task.name not in table.names]
    if not new:
        return []
    network = pinned_checkpoint(probe if table is None else table.probe["name"], token=token)
    if network.failure is not None:
        raise ProbeError(f"tasks cannot be embedded: {network.failure} Or pass embed=False (--no-embed)")
    version = {"schema_version": SCHEMA_VERSION, "descriptors": list(DESCRIPTORS)}
    return [Cell("embed", task, network, {"max_samples": EMBEDDED_SAMPLES, **config, **version}) for task in new]


def _check_before_work(pending: Sequence[Cell], base: ZooIndex, device: str | None) -> None:
    """Check what would make every cell fail: the device, and the probe's weights against the base's embeddings."""
    if pending and device is not None:
        from hf_task2vec.probes import usable_device

        usable_device(device)
    probe = next((cell.checkpoint for cell in pending if cell.kind == "embed"), None)
    if probe is None or base.embedded is None:
        return
    expected, found = base.embeddings.weights_hash, probe.load().weights_hash
    if found != expected:
        raise ProbeMismatchError(
            f"probe {probe.name!r} has weights {found[:12]}… here, but the base's tasks were "
            f"embedded with {expected[:12]}…; pass embed=False (--no-embed)"
        )
