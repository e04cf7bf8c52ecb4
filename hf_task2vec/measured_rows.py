"""Measurements of a sweep as rows of an index."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from hf_task2vec import __version__
from hf_task2vec.cells import Cell, CellStore
from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.errors import ZooIndexError
from hf_task2vec.schema import CheckpointRow, SourceRow, TaskRow, is_leak
from hf_task2vec.sweep_inputs import TaskSpec
from hf_task2vec.zoo import ZooIndex

SOURCE = "hf_task2vec_measured"
"""Source of all scores measured by this package; the metric's unit is that of its linear probes."""

LICENSE = "CC0-1.0"


def source_row() -> dict[str, Any]:
    """Return the row of ``sources.csv`` for scores measured by a sweep."""
    return {
        "source": SOURCE,
        "repo": "hf_task2vec",
        "path": "hf_task2vec/build.py",
        "protocol": (
            "frozen pooled features; linear_probe_loo: ridge on one-hot labels, closed-form leave-one-out over all "
            "images"
        ),
        "split": "both splits pooled, such as train-test",
        "metric": "top-1 accuracy",
        "license": LICENSE,
    }


def with_source(index: ZooIndex) -> ZooIndex:
    """Return the index with the source of measured scores; one that is there already stays as it is."""
    return index if source_of(index) is not None else index.add_sources([source_row()])


def source_of(index: ZooIndex) -> SourceRow | None:
    """Return the index's row of the source of measured scores."""
    rows = (row for row in index.rows["sources"] if isinstance(row, SourceRow))
    return next((row for row in rows if row.source == SOURCE), None)


def extended(base: ZooIndex, finished: Sequence[tuple[Cell, dict[str, Any]]], store: CellStore) -> ZooIndex:
    """Return `base` with everything that was measured.

    Parameters
    ----------
    base
        What it says of tasks, checkpoints and embeddings stays; scores measured again are replaced.
    finished
        Cells that are done, and their documents.
    store
        Where the embeddings lie.
    """
    specs = {cell.task.name: cell.task.spec for cell, _ in finished}
    samples: dict[str, dict[str, Any]] = {}
    facts: dict[str, dict[str, Any]] = {}
    rows, tables = [], []
    for cell, document in finished:
        if cell.kind == "embed":
            samples.setdefault(cell.task.name, document["sample"])
            # Under the name that the task has now.
            tables.append(TaskEmbedding.stack([TaskEmbedding.load(store.payload_path(cell))], [cell.task.name]))
            continue
        samples[cell.task.name] = document["sample"]
        if len(document["facts"]) > len(facts.get(cell.checkpoint.name, ())):  # fewer with features kept from earlier
            facts[cell.checkpoint.name] = document["facts"]
        rows.append(report_row(document) | {"checkpoint_revision": cell.checkpoint.revision})
    index = with_source(base)
    new_tasks = samples.keys() - {row.key[0] for row in index.rows["tasks"]}
    new_checkpoints = {row["checkpoint"] for row in rows} - {row.key[0] for row in index.rows["checkpoints"]}
    index = index.add_tasks([task_row(specs[name], samples[name]) for name in sorted(new_tasks)])
    index = index.add_checkpoints([checkpoint_row(name, facts.get(name, {})) for name in sorted(new_checkpoints)])
    index = index.add_scores(score_rows(rows, index), replace=True)
    if tables:
        index = index.with_embeddings(TaskEmbedding.stack(tables))
    days = [document["measured"][:10] for _, document in finished]
    return replace(index, created=max([base.created, *days]), package_version=__version__, path=None)


def report_row(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's document as one flat row."""
    parts = (document.get(name, {}) for name in ("sample", "measurement", "seconds"))
    return dict(chain(document.items(), *(part.items() for part in parts)))


def task_row(spec: TaskSpec, sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of ``tasks.csv`` for a new task: what was declared, and the counts of its `sample`."""
    declared = spec.model_dump(include={"domain", "license", "benchmark_name", "near_duplicate_group", "flags"})
    on_hub = spec.folder is None
    return declared | {
        "task": spec.slug,
        "title": spec.title or spec.slug,
        "n_classes": sample["n_classes"],
        "n_images": sample["n"],
        "source": spec.dataset if on_hub else None,
        "source_revision": sample["revision"],
        "images_from": spec.images_from or (spec.slug,),
    }


def checkpoint_row(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of ``checkpoints.csv`` for a new checkpoint; facts that loading does not show stay blank."""
    library = facts.get("library")
    return {
        "hub_id": name,
        "library": library if library in ("timm", "transformers") else "other",
        "architecture": facts.get("architecture") or "unknown",
        "family": facts.get("family") or "unknown",
        "params_m": facts.get("params_m"),
        "gmacs": facts.get("gmacs"),
        "input_px": facts.get("input_px"),
        "facts_source": (SOURCE,),
    }


def score_rows(rows: Iterable[Mapping[str, Any]], index: ZooIndex) -> list[dict[str, Any]]:
    """Return rows of ``scores.csv``: leave-one-out over all images.

    Parameters
    ----------
    rows
        One a cell: ``task, checkpoint, n, splits, linear, linear_se, versions`` and, of a Hub checkpoint,
        ``checkpoint_revision``.
    index
        Holds the tasks, checkpoints and the source; rows of others are an error.

    Raises
    ------
    ZooIndexError
        The index does not know a task or checkpoint.
    """
    tasks = {row.task: row for row in index.rows["tasks"] if isinstance(row, TaskRow)}
    checkpoints = {row.hub_id: row for row in index.rows["checkpoints"] if isinstance(row, CheckpointRow)}
    source = source_of(index)
    found = []
    for row in rows:
        if source is None or row["task"] not in tasks or row["checkpoint"] not in checkpoints:
            raise ZooIndexError(f"the index has no row of {row['task']!r}, {row['checkpoint']!r} or {SOURCE!r}")
        leak = is_leak(tasks[row["task"]], checkpoints[row["checkpoint"]])
        found.append(
            {
                "task": row["task"],
                "checkpoint": row["checkpoint"],
                "score": round(row["linear"], 6),
                "score_std_error": round(row["linear_se"], 6),
                "metric": "top1",
                "protocol": "linear_probe_loo",
                "split": "-".join(_slug(split) for split in row["splits"]),
                "n_train": row["n"] - 1,
                "n_test": row["n"],
                "source": SOURCE,
                "source_license": source.license,
                "checkpoint_match": "measured",
                "leak": leak,
                "versions": _versions(row, checkpoints[row["checkpoint"]]),
            }
        )
    return found


def _versions(row: Mapping[str, Any], checkpoint: CheckpointRow) -> str:
    library = "transformers" if checkpoint.library == "transformers" else "timm"
    text = f"torch {row['versions']['torch']} {library} {row['versions'][library]}"
    return text + (f" checkpoint {revision[:12]}" if (revision := row.get("checkpoint_revision")) else "")


def _slug(split: str | None) -> str:
    return re.sub(r"[^a-z0-9_.\-]", "_", (split or "all").lower()).lstrip("_.-") or "all"
