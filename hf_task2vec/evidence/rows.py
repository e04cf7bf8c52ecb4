"""Measurements of a build as rows of an index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from hf_task2vec import __version__
from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.evidence.cells import Cell, CellStore
from hf_task2vec.evidence.inputs import TaskSpec
from hf_task2vec.zoo import CheckpointRow, SourceRow, TaskRow, ZooIndex, as_slug

SOURCE = "hf_task2vec_measured"
"""Source of all scores measured by this package; the metric's unit is that of its linear probes."""
PROTOCOL = "linear_probe_loo"
"""Protocol of :func:`~hf_task2vec.probes.transfer.linear_probe`."""

# Modules of timm's registry whose family the index calls otherwise.
_FAMILIES = {
    "vision_transformer": "vit",
    "vision_transformer_hybrid": "vit_hybrid",
    "vision_transformer_relpos": "vit_relpos",
    "vision_transformer_sam": "vit_sam",
    "swin_transformer": "swin",
    "swin_transformer_v2": "swinv2",
    "swin_transformer_v2_cr": "swinv2_cr",
    "mlp_mixer": "mixer",
}


def source_row() -> dict[str, Any]:
    """Return the row of ``sources.csv`` for scores measured by a build."""
    return {
        "source": SOURCE,
        "repo": "hf_task2vec",
        "path": "hf_task2vec/evidence/build.py",
        "protocol": (
            "frozen pooled features; linear_probe_loo: ridge on one-hot labels, closed-form leave-one-out over all "
            "images"
        ),
        "split": "both splits pooled, such as train-test",
        "metric": "top-1 accuracy",
        "license": "CC0-1.0",
    }


def extended(base: ZooIndex, finished: Sequence[tuple[Cell, Mapping[str, Any]]], store: CellStore) -> ZooIndex:
    """Return `base` with everything that the `finished` cells and their documents say.

    What the base says of tasks, checkpoints and embeddings stays; scores measured again are replaced.
    """
    tasks: dict[str, dict[str, Any]] = {}
    checkpoints: dict[str, dict[str, Any]] = {}
    scores, embeddings = [], {}
    for cell, document in finished:
        if cell.kind == "embed":
            tasks.setdefault(cell.task.name, task_row(cell.task.spec, document["sample"]))
            embeddings[cell.task.name] = TaskEmbedding.load(store.payload_path(cell))
            continue
        tasks[cell.task.name] = task_row(cell.task.spec, document["sample"])
        if cell.checkpoint.name not in base.names:
            checkpoints[cell.checkpoint.name] = checkpoint_row(cell.checkpoint.name, document["facts"])
        scores.append(report_row(document) | {"checkpoint_revision": cell.checkpoint.revision})
    index = base if SOURCE in base.by_name(SourceRow) else base.add_sources([source_row()])
    index = index.add_tasks([tasks[name] for name in tasks.keys() - base.by_name(TaskRow).keys()])
    index = index.add_checkpoints(list(checkpoints.values()))
    index = index.add_scores(score_rows(scores, index), replace=True)
    if embeddings:
        index = index.with_embeddings(TaskEmbedding.stack(list(embeddings.values())), list(embeddings))
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
        "family": family_of(library, facts.get("architecture")) or "unknown",
        "params_m": facts.get("params_m"),
        "gmacs": facts.get("gmacs"),
        "input_px": facts.get("input_px"),
        "facts_source": (SOURCE,),
    }


def family_of(library: str | None, architecture: str | None) -> str | None:
    """Return the family of an architecture: timm's module that defines it, or the model type of transformers."""
    if architecture is None or library != "timm":
        return as_slug(architecture or "") or None
    import timm

    if not timm.is_model(architecture):
        return None
    module = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    return _FAMILIES.get(module, module)


def score_rows(rows: Iterable[Mapping[str, Any]], index: ZooIndex) -> list[dict[str, Any]]:
    """Return rows of ``scores.csv`` of tasks and checkpoints that the index knows.

    Each of `rows` says ``task, checkpoint, n, splits, linear, linear_se, versions`` and, of a Hub checkpoint,
    ``checkpoint_revision``.
    """
    return [
        {
            "task": row["task"],
            "checkpoint": name,
            "score": round(row["linear"], 6),
            "score_std_error": round(row["linear_se"], 6),
            "metric": "top1",
            "protocol": PROTOCOL,
            "split": "-".join(as_slug(split or "all") for split in row["splits"]),
            "n_train": row["n"] - 1,
            "n_test": row["n"],
            "source": SOURCE,
            "checkpoint_match": "measured",
            "versions": _versions(row, index.by_name(CheckpointRow)[name]),
            **index.repeated_facts(row["task"], name, SOURCE),
        }
        for row in rows
        for name in (index.names[row["checkpoint"]],)
    ]


def _versions(row: Mapping[str, Any], checkpoint: CheckpointRow) -> str:
    library = "transformers" if checkpoint.library == "transformers" else "timm"
    text = f"torch {row['versions']['torch']} {library} {row['versions'][library]}"
    return text + (f" checkpoint {revision[:12]}" if (revision := row.get("checkpoint_revision")) else "")
