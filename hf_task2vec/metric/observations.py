"""Scores of an index as numbers a metric can learn from: logits, groups, noise, and features of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.files import sha256_bytes
from hf_task2vec.metric.task_space import KINDS, TaskFeatures, TaskSpace
from hf_task2vec.zoo import ZERO_SHOT

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.zoo import ZooIndex

Array = NDArray[np.float64]

#: The protocol of the scores that the index measures itself.
REFERENCE_SOURCE = "hf_task2vec_measured/linear_probe_loo"
#: What can be asked for: accuracy after fine-tuning all weights, or of a linear probe on frozen features.
PROTOCOLS = ("fine-tune", "linear-probe")
_TUNED = ("finetune", "lora")
# Weight, in scores, of the assumption that a checkpoint is average: keeps one lucky score from ruling.
_SHRINKAGE = 0.1
#: Numeric facts of a checkpoint: their centre and spread, which bring each to unit order of magnitude.
_NUMBERS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "in1k_logit": (1.5, 0.45),
        "log_params": (6.0, 2.0),
        "log_gmacs": (3.3, 2.2),
        "log_input_px": (0.2, 0.45),
        "log_corpus": (1.2, 1.4),
        "year": (2021.5, 2.2),
    }
)
_OBJECTIVES = ("distilled", "image-text", "self-distillation", "masked", "contrastive")
_DOMAINS = ("histology", "remote-sensing", "biology")
_FLAGS = (*_OBJECTIVES, "other_objective", "fine_tuned", "imagenet_only", "no_classifier", *_DOMAINS)
#: What `CheckpointFeatures.numbers` holds.
CHECKPOINT_FACTS = (*_NUMBERS, *_FLAGS)
# How much a flag counts in distances, beside a numeric fact.
_FLAG_WEIGHT = 1.5
#: ImageNet accuracy of a checkpoint without one, from its other numeric facts (unit order of magnitude), as a ridge
#: regression on those that have one gives it; `benchmarks/index/train_metric.py` prints it.
TYPICAL_ACCURACY = (0.3, 0.35, 0.15, 0.15, 0.1, 0.15)
#: Kinds of tasks that a domain encoder is made for.
_AT_HOME: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "histology": {"histology": 1.0},
        "remote-sensing": {"satellite": 1.0},
        "biology": {"nature": 1.0},
        # No score of such an encoder is known: they are taken to gain there what those of other domains gain at home.
        "radiology": {"radiology": 1.0},
    }
)


@dataclass(frozen=True, eq=False)
class CheckpointFeatures:
    """Facts of checkpoints as the metric sees them.

    Attributes
    ----------
    ids
        Hub ids.
    numbers
        Shape (n, facts), in the order of `CHECKPOINT_FACTS`.
    family
        Shape (n,): codes of architecture family and objective together; unknown ones differ from all.
    home
        Shape (n, kinds): 1 for the kinds of tasks (`KINDS`) that a domain encoder is made for.
    """

    ids: tuple[str, ...]
    numbers: Array
    family: NDArray[np.int64]
    home: Array

    def take(self, rows: NDArray[np.int64]) -> CheckpointFeatures:
        """Return the checkpoints at `rows`."""
        ids = tuple(self.ids[i] for i in rows)
        return CheckpointFeatures(ids, self.numbers[rows], self.family[rows], self.home[rows])

    def facts(self, columns: Sequence[str]) -> Array:
        """Return some of the facts, shape (n, columns)."""
        return self.numbers[:, [CHECKPOINT_FACTS.index(name) for name in columns]]

    @cached_property
    def smooth(self) -> Array:
        """All facts, as distances between checkpoints weigh them."""
        weights = np.where(np.arange(len(CHECKPOINT_FACTS)) < len(_NUMBERS), 1.0, _FLAG_WEIGHT)
        return self.numbers * weights


def checkpoint_features(frame: pd.DataFrame) -> CheckpointFeatures:
    """Read the facts that the metric uses from rows of ``checkpoints.csv``."""

    def column(name: str) -> Array:
        return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)

    top1, probe = column("in1k_top1"), column("in1k_linear_probe")
    accuracy = np.where(np.isnan(top1), probe, top1)
    with np.errstate(divide="ignore"):
        raw = {
            "in1k_logit": logit(np.clip(accuracy, 0.01, 0.99)),
            "log_params": np.log2(column("params_m")),
            "log_gmacs": np.log2(np.maximum(column("gmacs"), 1e-3)),
            "log_input_px": np.log2(column("input_px") / 224.0),
            "log_corpus": np.log10(column("corpus_images_m")),
            "year": column("year"),
        }
    numbers = np.column_stack([(raw[name] - centre) / spread for name, (centre, spread) in _NUMBERS.items()])
    size = list(_NUMBERS).index("log_params")
    numbers[:, size + 1] = np.where(np.isnan(numbers[:, size + 1]), numbers[:, size], numbers[:, size + 1])
    unknown = np.isnan(numbers[:, 0])
    numbers = np.nan_to_num(numbers)
    guess = np.column_stack([np.ones(len(numbers)), numbers[:, 1:]]) @ TYPICAL_ACCURACY
    numbers[:, 0] = np.where(unknown, guess, numbers[:, 0])
    objective, domain, pretraining = (frame[name].fillna("") for name in ("objective", "domain", "pretraining"))
    flags = [
        *(objective == name for name in _OBJECTIVES),
        ~objective.isin(["", "supervised", *_OBJECTIVES]),
        pretraining.str.contains("_ft_in"),
        frame["corpus"].fillna("imagenet1k") == "imagenet1k",
        np.isnan(top1),
        *(domain == name for name in _DOMAINS),
    ]
    families = [f"{f}/{o}" if isinstance(f, str) else None for f, o in zip(frame["family"], objective, strict=True)]
    return CheckpointFeatures(
        tuple(frame["hub_id"]),
        np.column_stack([numbers, *(np.asarray(flag, dtype=np.float64) for flag in flags)]),
        _codes(families, frame["hub_id"]),
        np.array([[_AT_HOME.get(d, {}).get(kind, 0.0) for kind in KINDS] for d in domain], dtype=np.float64).reshape(
            -1, len(KINDS)
        ),
    )


def _codes(values: Sequence[str | None], ids: pd.Series) -> NDArray[np.int64]:
    """Codes of text values that are the same in every frame; a missing value gets one of its checkpoint's own."""
    names = [("unknown", i) if v is None else ("value", v) for v, i in zip(values, ids, strict=True)]
    code = {name: int(sha256_bytes("\0".join(name).encode())[:12], 16) for name in set(names)}
    return np.array([code[name] for name in names], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Groups:
    """What n groups of comparable scores share with others.

    Attributes
    ----------
    tuned
        Shape (n,), bool: all weights are fine-tuned.
    source
        Shape (n,): codes of the laboratory, its fine-tuned and its frozen results apart (`Observations.laboratories`).
    kinds
        Shape (n, kinds): shares of the kinds of task (`KINDS`).
    described
        Shape (n, descriptors): what the tasks' descriptors say, about the mean; zero rows where unknown.
    """

    tuned: NDArray[np.bool_]
    source: NDArray[np.int64]
    kinds: Array
    described: Array


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
        Shape (N,): variance of `y` from the finite number of test images, stated or binomial; 0 where it is unknown.
    source
        Shape (N,): index into `sources`.
    sources
        Names ``source/protocol``.
    score
        Shape (N,): the raw scores.
    part
        Shape (N,), bool: of the score's task the index has embedded and measured a part with fewer classes.
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
    part: NDArray[np.bool_]

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Shape (G,): a row of each group; -1 for a group without rows."""
        found = np.full(int(self.group.max(initial=-1)) + 1, -1)
        found[self.group] = np.arange(len(self.group))
        return found

    @cached_property
    def groups(self) -> Groups:
        """The G groups."""
        source, task = self.source[self.first], self.task[self.first]
        tuned = np.array([is_tuned(name) for name in self.sources], dtype=bool)
        ways = 2 * self.laboratories + tuned
        return Groups(tuned[source], ways[source], self.tasks.kinds[task], self.tasks.descriptors[task])

    @cached_property
    def laboratories(self) -> NDArray[np.int64]:
        """Shape (sources,): codes of who reports the scores of a source."""
        names = [name.partition("/")[0] for name in self.sources]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the solution of the metric depends on: not of the names of the checkpoints."""
        names = "\0".join((*self.tasks.names, *self.sources))
        rows = (self.task, self.checkpoint, self.group, self.source, self.y.astype("<f4"), self.error.astype("<f4"))
        known = (self.checkpoints.numbers.astype("<f4"), self.checkpoints.family, self.checkpoints.home)
        embedded = self.tasks.embedded
        tasks = (
            self.tasks.kinds,
            embedded,
            *(x[embedded] for x in (self.tasks.profiles, self.tasks.moments, self.tasks.descriptors)),
        )
        # Features of tasks differ in their last digits between machines.
        rounded = [np.round(x.astype(np.float64), 4) + 0.0 for x in tasks]
        return sha256_bytes(names.encode() + b"".join(x.tobytes() for x in (*rows, *known, *rounded)))

    def scores_by_checkpoint(self) -> dict[str, int]:
        """Number of scores of each checkpoint."""
        counts = np.bincount(self.checkpoint, minlength=len(self.checkpoints.ids))
        return dict(zip(self.checkpoints.ids, counts.tolist(), strict=True))

    def rows(self, mask: NDArray[np.bool_]) -> Observations:
        """Return the observations selected by `mask`; tasks and checkpoints stay."""
        columns = ("task", "checkpoint", "group", "y", "error", "source", "score", "part")
        return replace(self, **{name: getattr(self, name)[mask] for name in columns})


def is_tuned(source: str) -> bool:
    """Whether the protocol of a source (``"lab/full_finetune"``) tunes all weights."""
    return any(word in source.rpartition("/")[2] for word in _TUNED)


def check_protocol(protocol: str) -> str:
    """Return a protocol that can be asked for; raise MetricError for another."""
    if protocol not in PROTOCOLS:
        raise MetricError(f"protocol {protocol!r} is unknown; choose {' or '.join(map(repr, PROTOCOLS))}")
    return protocol


def logit(p: Any) -> Array:
    """Log-odds."""
    p = np.asarray(p, dtype=np.float64)
    return np.log(p) - np.log1p(-p)


def log_logistic(x: Any) -> Array:
    """Logarithm of the share that log-odds stand for; in numpy, as `select` would wait for the import of scipy."""
    return np.asarray(-np.logaddexp(0.0, -np.asarray(x, dtype=np.float64)))


def observations(index: ZooIndex, space: TaskSpace) -> Observations:
    """Collect the usable scores of an index: no leaks, nothing without training, two checkpoints or more in a group.

    A published benchmark counts as embedded when the index holds an embedding of it or of a subset
    (``benchmark_name``).
    """
    columns = ["source", "protocol", "metric", "split", "task"]
    scores = index.scores[~index.scores["leak"] & (index.scores["protocol"] != ZERO_SHOT)]
    scores = scores[scores.groupby(columns)["checkpoint"].transform("nunique") >= 2].reset_index(drop=True)
    alias, classes = embedded_as(index), index.tasks.set_index("task")["n_classes"]
    named = [alias.get(task, task) for task in scores["task"]]
    reference = space.of_embedding(index.embeddings, index.embeddings.names)
    tasks = reference.and_unknown(tuple(sorted(set(named) - set(reference.names))))
    tasks = tasks.of_domains(dict(zip(index.tasks["task"], index.tasks["domain"], strict=True)))
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
    stated = scores["score_std_error"].to_numpy(dtype=np.float64, na_value=np.nan)
    # Where a source states none, that of drawing the test images.
    binomial = np.sqrt(smoothed * (1.0 - smoothed) / np.where(np.isnan(n_test), np.inf, n_test))
    deviation = np.where(np.isnan(stated), binomial, stated)
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
        part=classes.reindex(named).lt(classes.reindex(scores["task"]).to_numpy()).to_numpy(dtype=bool, na_value=False),
    )


def embedded_as(index: ZooIndex) -> dict[str, str]:
    """Map a benchmark without an embedding to an embedded task that is the benchmark or a subset of it."""
    embedded, alias = set() if index.embedded is None else set(index.embeddings.names), dict[str, str]()
    for row in index.tasks.itertuples():
        if row.task in embedded and row.benchmark_name and row.benchmark_name not in embedded:
            alias.setdefault(str(row.benchmark_name), str(row.task))
    return alias


def additive_fit(data: Observations) -> tuple[Array, Array]:
    """Fit ``y = level(group) + standing(checkpoint)`` by least squares.

    Returns
    -------
    tuple of ndarray
        Standings, shape (C,), with a little shrinkage to 0 (all that checkpoints without a score get), and what is left
        of the N scores.
    """
    c, g = len(data.checkpoints.ids), int(data.group.max(initial=-1)) + 1
    # Levels are eliminated, so that only the C standings are solved for.
    counts = np.zeros((g, c))
    np.add.at(counts, (data.group, data.checkpoint), 1.0)
    sizes = np.maximum(counts.sum(axis=1), 1.0)
    level_y = np.bincount(data.group, data.y, minlength=g) / sizes
    normal = np.diag(counts.sum(axis=0) + _SHRINKAGE) - counts.T @ (counts / sizes[:, None])
    centred = np.bincount(data.checkpoint, data.y - level_y[data.group], minlength=c)
    standing = np.linalg.solve(normal, centred)
    level = level_y - (counts @ standing) / sizes
    return standing, data.y - level[data.group] - standing[data.checkpoint]
