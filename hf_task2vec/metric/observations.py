"""Scores of an index as numbers a metric can learn from: logits, groups, noise, and features of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.files import sha256_bytes
from hf_task2vec.metric.task_space import TaskFeatures, TaskSpace, join_tasks
from hf_task2vec.zoo import ZERO_SHOT

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.zoo import ZooIndex

Array = NDArray[np.float64]

#: The source that defines the unit: its slope is 1, and its protocol adds nothing to a checkpoint's standing.
REFERENCE_SOURCE = "hf_task2vec_measured/linear_probe_loo"
#: Numeric facts of a checkpoint, and how each is brought to unit order of magnitude: (x − centre) / spread.
CHECKPOINT_NUMBERS = ("in1k_logit", "in1k_unknown", "log_params", "log_input_px")


@dataclass(frozen=True, eq=False)
class CheckpointFeatures:
    """Facts of checkpoints as the metric sees them.

    Attributes
    ----------
    ids
        Hub ids.
    numbers
        Shape (n, 4), in the order of `CHECKPOINT_NUMBERS`.
    pretraining, family
        Shape (n,): codes of the kind of pretraining and of the architecture family; unknown ones differ from all.
    """

    ids: tuple[str, ...]
    numbers: Array
    pretraining: NDArray[np.int64]
    family: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> CheckpointFeatures:
        """Return the checkpoints at `rows`."""
        ids = tuple(self.ids[i] for i in rows)
        return CheckpointFeatures(ids, self.numbers[rows], self.pretraining[rows], self.family[rows])


def checkpoint_features(frame: pd.DataFrame) -> CheckpointFeatures:
    """Read the facts that the metric uses from rows of ``checkpoints.csv``."""
    top1 = frame["in1k_top1"].to_numpy(dtype=np.float64, na_value=np.nan)
    params = frame["params_m"].to_numpy(dtype=np.float64, na_value=np.nan)
    px = frame["input_px"].to_numpy(dtype=np.float64, na_value=np.nan)
    unknown = np.isnan(top1)
    with np.errstate(divide="ignore"):
        clipped = np.clip(np.where(unknown, 0.8, top1), 0.01, 0.99)
    numbers = np.column_stack(
        [
            (logit(clipped) - 1.4) / 0.5,
            unknown.astype(np.float64),
            np.log2(np.where(np.isnan(params), 50.0, params) / 30.0) / 2.0,
            np.log2(np.where(np.isnan(px), 224.0, px) / 224.0),
        ]
    )
    return CheckpointFeatures(
        tuple(frame["hub_id"]),
        numbers,
        _codes(frame["pretraining"], frame["hub_id"]),
        _codes(frame["family"], frame["hub_id"]),
    )


def _codes(values: pd.Series, ids: pd.Series) -> NDArray[np.int64]:
    """Codes of text values that are the same in every frame; a missing value gets one of its checkpoint's own."""
    names = [("value", v) if isinstance(v, str) else ("unknown", i) for v, i in zip(values, ids, strict=True)]
    code = {name: int(sha256_bytes("\0".join(name).encode())[:12], 16) for name in set(names)}
    return np.array([code[name] for name in names], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Observations:
    """Scores as rows for regression.

    Attributes
    ----------
    tasks, checkpoints
        The distinct tasks (T) and checkpoints (C).
    task, checkpoint, group
        Shape (N,): index of the row's task, checkpoint, and group of comparable scores (one source, protocol, metric,
        split and task).
    y
        Shape (N,): logit of the score.
    error
        Shape (N,): variance of `y` from the finite number of test images, 0 where unknown.
    source
        Shape (N,): index into `sources`.
    sources
        Names ``source/protocol``.
    score
        Shape (N,): the raw scores.
    """

    tasks: TaskFeatures
    checkpoints: CheckpointFeatures
    task: NDArray[np.int64]
    checkpoint: NDArray[np.int64]
    group: NDArray[np.int64]
    y: Array
    error: Array
    source: NDArray[np.int64]
    sources: tuple[str, ...]
    score: Array

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """Shape (2, number of sources): the result of :func:`source_codes`."""
        return source_codes(self.sources)

    def scores_by_checkpoint(self) -> dict[str, int]:
        """Number of scores of each checkpoint."""
        counts = np.bincount(self.checkpoint, minlength=len(self.checkpoints.ids))
        return dict(zip(self.checkpoints.ids, counts.tolist(), strict=True))

    def rows(self, mask: NDArray[np.bool_]) -> Observations:
        """Return the observations selected by `mask`; tasks and checkpoints stay."""
        columns = ("task", "checkpoint", "group", "y", "error", "source", "score")
        return replace(self, **{name: getattr(self, name)[mask] for name in columns})


def kind_of_protocol(source: str) -> str:
    """Return the kind of a source's protocol: ``"linear_probe"`` of ``"lab/linear_probe_full"``."""
    return "_".join(source.rpartition("/")[2].split("_")[:2])


def source_codes(sources: Sequence[str]) -> NDArray[np.int64]:
    """Code the kinds of sources' protocols, and the sources; -1 for the reference and its kind. Shape (2, n)."""
    unit = kind_of_protocol(REFERENCE_SOURCE), REFERENCE_SOURCE
    names = [kind_of_protocol(source) for source in sources], list(sources)
    return np.array(
        [
            [-1 if name == skipped else int(sha256_bytes(name.encode())[:12], 16) for name in row]
            for row, skipped in zip(names, unit, strict=True)
        ],
        dtype=np.int64,
    ).reshape(2, -1)


def logit(p: Any) -> Array:
    """Log-odds."""
    p = np.asarray(p, dtype=np.float64)
    return np.log(p) - np.log1p(-p)


def observations(index: ZooIndex, space: TaskSpace) -> Observations:
    """Collect the usable scores of an index: no leaks, nothing without training, two checkpoints or more in a group.

    A published benchmark counts as embedded when the index holds an embedding of it or of a subset
    (``benchmark_name``).
    """
    columns = ["source", "protocol", "metric", "split", "task"]
    scores = index.scores[~index.scores["leak"] & (index.scores["protocol"] != ZERO_SHOT)]
    scores = scores[scores.groupby(columns)["checkpoint"].transform("nunique") >= 2].reset_index(drop=True)
    embedded = index.embeddings if index.embedded is not None else None
    alias = _aliases(index, set(embedded.names) if embedded is not None else set())
    named = [alias.get(task, task) for task in scores["task"]]
    reference = space.unknown(()) if embedded is None else space.of_embedding(embedded, embedded.names)
    other = tuple(sorted(set(named) - set(reference.names)))
    tasks = join_tasks(reference, space.unknown(other))
    position = {name: i for i, name in enumerate(tasks.names)}
    used = index.checkpoints[index.checkpoints["hub_id"].isin(set(scores["checkpoint"]))].reset_index(drop=True)
    checkpoints = checkpoint_features(used)
    row_of = {name: i for i, name in enumerate(checkpoints.ids)}
    sources = (scores["source"] + "/" + scores["protocol"]).astype("category")
    group = scores.groupby(columns).ngroup().to_numpy(dtype=np.int64)
    value = scores["score"].to_numpy(dtype=np.float64)
    n_test = scores["n_test"].to_numpy(dtype=np.float64, na_value=np.nan)
    smoothed = np.where(np.isnan(n_test), np.clip(value, 0.004, 0.996), (value * n_test + 0.5) / (n_test + 1.0))
    source = sources.cat.codes.to_numpy(dtype=np.int64)
    deviation = scores["score_std_error"].to_numpy(dtype=np.float64, na_value=0.0)
    return Observations(
        tasks=tasks,
        checkpoints=checkpoints,
        task=np.array([position[name] for name in named], dtype=np.int64),
        checkpoint=np.array([row_of[name] for name in scores["checkpoint"]], dtype=np.int64),
        group=group,
        y=logit(smoothed),
        error=(deviation / (smoothed * (1.0 - smoothed))) ** 2,
        source=source,
        sources=tuple(sources.cat.categories),
        score=value,
    )


def _aliases(index: ZooIndex, embedded: set[str]) -> dict[str, str]:
    """Map a benchmark without an embedding to an embedded task that is the benchmark or a subset of it."""
    alias: dict[str, str] = {}
    for row in index.tasks.itertuples():
        if row.task in embedded and row.benchmark_name and row.benchmark_name not in embedded:
            alias.setdefault(str(row.benchmark_name), str(row.task))
    return alias
