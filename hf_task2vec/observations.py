"""Scores of an index as numbers a metric can learn from: logits, groups, noise, and features of both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.distance import log_profile

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.table import EmbeddingTable
    from hf_task2vec.zoo import ZooIndex

Array = NDArray[np.float64]

#: Numeric facts of a checkpoint, and how each is brought to unit order of magnitude: (x − centre) / spread.
CHECKPOINT_NUMBERS = ("in1k_logit", "in1k_unknown", "log_params", "log_input_px")
#: Label-sensitive descriptors of a task that the metric reads beside the Fisher vector.
TASK_DESCRIPTORS = ("log_classes", "probe_accuracy_gain", "class_separation", "log_side", "grey_share")


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
    from hf_task2vec.files import sha256_bytes

    names = [("value", v) if isinstance(v, str) else ("unknown", i) for v, i in zip(values, ids, strict=True)]
    code = {name: int(sha256_bytes("\0".join(name).encode())[:12], 16) for name in set(names)}
    return np.array([code[name] for name in names], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class TaskFeatures:
    """Tasks as the metric sees them.

    Attributes
    ----------
    names
        Task names; tasks of equal name are the same task.
    profiles
        Shape (n, F): centred and normalised log Fisher profiles, so that ``½‖u − v‖²`` is a correlation distance;
        zero rows for tasks without an embedding.
    moments
        Shape (n, 2d): the same of the features' means and log variances.
    descriptors
        Shape (n, 5), in the order of `TASK_DESCRIPTORS`.
    embedded
        Shape (n,), bool.
    """

    names: tuple[str, ...]
    profiles: Array
    moments: Array
    descriptors: Array
    embedded: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> TaskFeatures:
        """Return the tasks at `rows`."""
        names = tuple(self.names[i] for i in rows)
        return TaskFeatures(names, self.profiles[rows], self.moments[rows], self.descriptors[rows], self.embedded[rows])


@dataclass(frozen=True, eq=False)
class TaskSpace:
    """Maps embeddings of one probe to :class:`TaskFeatures`; centred on the reference tasks."""

    weights_hash: str
    layer_sizes: NDArray[np.int64]
    centre: Array
    moments_centre: Array
    moments_scale: Array

    @classmethod
    def fit(cls, table: EmbeddingTable) -> TaskSpace:
        """Centre the space on the tasks of an embedding table."""
        profiles = log_profile(table.values.astype(np.float64), table.layer_sizes)
        moments = _raw_moments(table.feature_mean, table.feature_var)
        return cls(
            table.weights_hash,
            table.layer_sizes,
            profiles.mean(axis=0),
            moments.mean(axis=0),
            np.maximum(moments.std(axis=0), 1e-6),
        )

    def features(
        self, names: tuple[str, ...], values: Any, mean: Any, var: Any, descriptors: Sequence[Mapping[str, float]]
    ) -> TaskFeatures:
        """Map raw embedding arrays, one row per task, into the space."""
        profiles = log_profile(np.asarray(values, dtype=np.float64), self.layer_sizes) - self.centre
        moments = (_raw_moments(mean, var) - self.moments_centre) / self.moments_scale
        described = np.array([_descriptor_row(d) for d in descriptors])
        return TaskFeatures(names, _unit(profiles), _unit(moments), described, np.ones(len(names), dtype=np.bool_))

    def of_table(self, table: EmbeddingTable) -> TaskFeatures:
        """Features of the reference tasks."""
        return self.features(tuple(table.tasks), table.values, table.feature_mean, table.feature_var, table.descriptors)

    def of_embedding(self, embedding: TaskEmbedding) -> TaskFeatures:
        """Features of one embedding, shape (1, ...)."""
        return self.features(
            (f"query:{embedding.name}",),
            embedding.values[None],
            embedding.feature_mean[None],
            embedding.feature_var[None],
            [embedding.descriptors],
        )

    def unknown(self, names: tuple[str, ...]) -> TaskFeatures:
        """Features of tasks without an embedding: similar to nothing but themselves."""
        n, f, m = len(names), len(self.centre), len(self.moments_centre)
        zeros = np.zeros((n, len(TASK_DESCRIPTORS)))
        return TaskFeatures(names, np.zeros((n, f)), np.zeros((n, m)), zeros, np.zeros(n, dtype=np.bool_))


def _raw_moments(mean: Any, var: Any) -> Array:
    mean, var = np.asarray(mean, dtype=np.float64), np.asarray(var, dtype=np.float64)
    return np.concatenate([mean, 0.5 * np.log(var + 1e-4)], axis=-1)


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def _descriptor_row(d: Mapping[str, float]) -> list[float]:
    return [
        np.log2(max(d["n_classes"], 2.0)) / 3.0,
        d["probe_accuracy_gain"] / 0.3,
        d["class_separation"] / 0.15,
        np.log2(max(d["median_side_px"], 1.0) / 150.0),
        d["grey_share"],
    ]


def join_tasks(first: TaskFeatures, second: TaskFeatures) -> TaskFeatures:
    """Stack two sets of tasks."""
    return TaskFeatures(
        first.names + second.names,
        np.concatenate([first.profiles, second.profiles]),
        np.concatenate([first.moments, second.moments]),
        np.concatenate([first.descriptors, second.descriptors]),
        np.concatenate([first.embedded, second.embedded]),
    )


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

    def rows(self, mask: NDArray[np.bool_]) -> Observations:
        """Return the observations selected by `mask`; tasks and checkpoints stay."""
        columns = ("task", "checkpoint", "group", "y", "error", "source", "score")
        return replace(self, **{name: getattr(self, name)[mask] for name in columns})


def logit(p: Any) -> Array:
    """Log-odds."""
    p = np.asarray(p, dtype=np.float64)
    return np.log(p) - np.log1p(-p)


def observations(index: ZooIndex, space: TaskSpace) -> Observations:
    """Collect the usable scores of an index: no leaks, and at least two checkpoints in a group.

    A published benchmark counts as embedded when the index holds an embedding of it or of a subset
    (``benchmark_name``).
    """
    scores = index.scores
    columns = ["source", "protocol", "metric", "split", "task"]
    scores = scores[~scores["leak"]].reset_index(drop=True)
    scores = scores[scores.groupby(columns)["checkpoint"].transform("nunique") >= 2].reset_index(drop=True)
    table = index.embeddings() if index.tables else None
    alias = _aliases(index, set(table.tasks) if table is not None else set())
    named = [alias.get(task, task) for task in scores["task"]]
    reference = space.of_table(table) if table is not None else space.unknown(())
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
