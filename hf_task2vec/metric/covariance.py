"""The covariance of the trained metric: its parameters (``metric.json``), and which checkpoints and groups are alike.

See :mod:`hf_task2vec.metric.ranking_metric` for the model. The functions that training differentiates work on torch
tensors as on numpy arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hf_task2vec.errors import MetricError
from hf_task2vec.metric.task_space import TASK_DESCRIPTORS

if TYPE_CHECKING:
    from hf_task2vec.metric.observations import CheckpointFeatures, Groups

Array = NDArray[np.float64]

METRIC_FILE = "metric.json"
SCHEMA_VERSION = 4
#: Facts of checkpoints (columns of `CHECKPOINT_FACTS`) that a standing is linear in, by the name of their kernel.
LINEAR: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "accuracy": ("in1k_logit",),
        "size": ("log_params", "log_gmacs"),
        "resolution": ("log_input_px",),
        "corpus": ("log_corpus",),
        "year": ("year",),
        "objective": ("distilled", "image-text", "self-distillation", "masked", "contrastive", "other_objective"),
        "pretraining": ("fine_tuned", "imagenet_only", "no_classifier"),
        "domain": ("histology", "remote-sensing", "biology"),
    }
)
#: All kernels of checkpoints: linear in some facts or in learned factors, smooth in all facts, of a family, or a
#: checkpoint's own.
CHECKPOINT_KERNELS = (*LINEAR, "factors", "facts", "family", "own")
#: With whom a checkpoint's peculiarity is shared: all groups of scores, the fine-tuned ones, those of frozen features,
#: similar tasks, tasks described alike, the fine-tuned ones of the same laboratory, its frozen ones, or none.
SHARED_WITH = ("all", "tuned", "frozen", "similar", "described", "recipe", "setup", "group")
#: What holds on every task under a protocol.
EVERYWHERE = SHARED_WITH[:3]
#: What says nothing of other tasks is learned with these.
TASK_BLIND = (*EVERYWHERE, "recipe", "setup")
#: What a domain encoder loses on tasks of other domains, as a share of what it gains at home. An assumption: no source
#: compares histology encoders and general ones on everyday pictures.
AWAY = 1.0
DEFAULT_NOISE, DEFAULT_LENGTH = 0.25, 4.0

Positive = Annotated[float, Field(gt=0.0, lt=1e6, allow_inf_nan=False)]
Finite = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


# What training starts from and is drawn to: rounded results of earlier trainings, but for what goes from a laboratory's
# fine-tuning to another's ("recipe", and "all" and "tuned" of what is no number). Recipes differ so much that what a
# checkpoint, its family or its objective won in one laboratory says next to nothing of the next; of frozen features it
# says much. Learned from scores alone, the metric trusts it, and then ranks the fine-tuned networks of a new laboratory
# worse than ImageNet accuracy does ("new laboratory" of ``benchmarks/selection/leave_one_out.py``, by which these were
# chosen).
_VARIANCES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "accuracy": (0.03, 0.01, 0.01, 0.002, 0.002, 0.1, 0.05, 0.001),
        "size": (0.075, 0.003, 0.003, 0.03, 0.004, 0.06, 0.005, 0.008),
        "resolution": (0.006, 0.003, 0.003, 0.002, 0.002, 0.06, 0.005, 0.002),
        "corpus": (0.016, 0.02, 0.02, 0.008, 0.005, 0.06, 0.025, 0.015),
        "year": (0.009, 0.007, 0.007, 0.006, 0.01, 0.06, 0.008, 0.004),
        "objective": (0.02, 0.025, 0.5, 0.8, 0.035, 0.13, 0.13, 0.9),
        "pretraining": (0.001, 0.0005, 0.03, 0.01, 0.005, 0.01, 0.01, 0.003),
        # What a domain encoder is worth on tasks of its domain says nothing of others.
        "domain": (0.0, 0.0, 0.0, 1.0, 0.02, 0.0, 0.0, 1.0),
        # Loadings have their own scale, and say what checkpoints share on similar tasks.
        "factors": (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
        # Wiggly functions of the facts fit known families well, and mislead about new ones.
        "facts": (0.0003, 0.001, 0.03, 0.016, 0.004, 0.01, 0.01, 0.003),
        "family": (0.002, 0.002, 0.04, 0.017, 0.003, 0.1, 0.08, 0.013),
        "own": (0.001, 0.001, 0.016, 0.002, 0.003, 0.1, 0.0015, 0.0015),
    }
)


def _variances() -> dict[str, dict[str, float]]:
    named = {kernel: dict(zip(SHARED_WITH, row, strict=True)) for kernel, row in _VARIANCES.items()}
    return {kernel: {name: value for name, value in row.items() if value} for kernel, row in named.items()}


@dataclass(frozen=True)
class Level:
    """How hard a task is under a protocol, from how hard it is for linear probes: a line, in logits.

    Attributes
    ----------
    intercept, slope
        Of the average checkpoint's logit on that of the linear probe.
    deviation
        Standard deviation of what the line leaves open.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    intercept: Finite = 1.0
    slope: Finite = 0.7
    deviation: Positive = 1.0


@dataclass(frozen=True)
class MetricParameters:
    """What the trained metric has learned; variances in squared units of a group's `scale`.

    Attributes
    ----------
    variances
        By kernel of checkpoints (`CHECKPOINT_KERNELS`), then by whom the peculiarity is shared with (`SHARED_WITH`).
    match
        Variance of what a domain encoder gains on tasks of its domain (see :func:`at_home`).
    length_facts
        Length-scale of the kernel that is smooth in the facts.
    length_fisher, length_moments
        Length-scales on the correlation distances of Fisher profiles and of feature moments.
    lengths
        By descriptor (`TASK_DESCRIPTORS`): its length-scale. Descriptors not named here get `DEFAULT_LENGTH`.
    loadings
        By checkpoint: how it leans, by its own scores, on a few factors that similar tasks share (a linear model of
        coregionalisation: Alvarez et al. 2012, section 4.2). Checkpoints not named here have none.
    noises
        By source (``"source/protocol"``): variance of what nothing else explains. Sources not named here get
        `DEFAULT_NOISE`.
    spreads
        By protocol: by how much the variances that the model states of results on a new task are multiplied, so that
        its intervals hold what they say: of the index's own tasks left out (see the coverage of
        ``benchmarks/selection/leave_one_out.py``), and of differences in laboratories left out for fine-tuning.
    scales
        By protocol: by how many logits results differ where the model's unit is 1.
    levels
        By protocol: how hard a task is under it (none is needed for linear probes).
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    variances: Mapping[str, Mapping[str, Positive]] = field(default_factory=_variances)
    match: Positive = 1.0
    length_facts: Positive = 4.0
    length_fisher: Positive = 1.6
    length_moments: Positive = 1.6
    lengths: Mapping[str, Positive] = field(default_factory=dict)
    loadings: Mapping[str, tuple[Finite, ...]] = field(default_factory=dict)
    noises: Mapping[str, Positive] = field(default_factory=dict)
    spreads: Mapping[str, Positive] = field(default_factory=dict)
    scales: Mapping[str, Positive] = field(default_factory=dict)
    levels: Mapping[str, Level] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: bytes) -> MetricParameters:
        """Read ``metric.json``.

        Raises
        ------
        MetricError
            The file is malformed, or was written by another version of the format.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise MetricError(f"{METRIC_FILE} cannot be read as JSON: {error}") from error
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != SCHEMA_VERSION:
            raise MetricError(
                f"{METRIC_FILE} has schema version {version!r}, this version reads {SCHEMA_VERSION}; learn it "
                "anew with hf_task2vec.metric.training.train(index, MetricParameters())"
            )
        try:
            found = TypeAdapter(cls).validate_json(json.dumps(document.get("parameters")))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "parameters"
            raise MetricError(f"{METRIC_FILE}: {where} = {first['input']!r}: {first['msg']}") from error
        names = {"lengths": (found.lengths, TASK_DESCRIPTORS), "variances": (found.variances, CHECKPOINT_KERNELS)}
        names |= {f"variances.{kernel}": (found.variances[kernel], SHARED_WITH) for kernel in found.variances}
        for table, (given, known) in names.items():
            if unknown := sorted(set(given) - set(known)):
                raise MetricError(f"{METRIC_FILE}: {table} names what is unknown: {', '.join(unknown)}")
        if len({len(row) for row in found.loadings.values()}) > 1:
            raise MetricError(f"{METRIC_FILE}: loadings must give every checkpoint the same number of factors")
        return found

    def to_json(self, report: Mapping[str, Any] | None = None) -> bytes:
        """Return ``metric.json`` as bytes; `report` (of the training) is kept beside the parameters."""
        document = {"schema_version": SCHEMA_VERSION, "parameters": asdict(self), "training": dict(report or {})}
        return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()

    def scalars(self) -> dict[str, float]:
        """Return the parameters that are single numbers."""
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), float)}

    @property
    def weights(self) -> Array:
        """The variances as a table, in the order of `CHECKPOINT_KERNELS` and `SHARED_WITH`; what is not named is 0."""
        return np.array([[self.variances.get(k, {}).get(s, 0.0) for s in SHARED_WITH] for k in CHECKPOINT_KERNELS])

    @property
    def length(self) -> Array:
        """The descriptors' length-scales, in the order of `TASK_DESCRIPTORS`."""
        return np.array([self.lengths.get(name, DEFAULT_LENGTH) for name in TASK_DESCRIPTORS])

    def factors(self, ids: tuple[str, ...]) -> Array:
        """Return the loadings of n checkpoints, shape (n, factors)."""
        found = np.zeros((len(ids), max(map(len, self.loadings.values()), default=1)))
        for i, name in enumerate(ids):
            if name in self.loadings:
                found[i] = self.loadings[name]
        return found

    def noise(self, sources: tuple[str, ...]) -> Array:
        """Return the noises of `sources`."""
        return np.array([self.noises.get(name, DEFAULT_NOISE) for name in sources])


def checkpoint_kernels(p: MetricParameters, a: CheckpointFeatures, b: CheckpointFeatures) -> Array:
    """Kernels of two sets of checkpoints in the order of `CHECKPOINT_KERNELS`, shape (kernels, n, m)."""
    found = [a.facts(columns) @ b.facts(columns).T / len(columns) for columns in LINEAR.values()]
    found.append(p.factors(a.ids) @ p.factors(b.ids).T)
    distance = (a.smooth**2).sum(axis=1)[:, None] + (b.smooth**2).sum(axis=1) - 2.0 * a.smooth @ b.smooth.T
    found.append(np.exp(-0.5 * np.maximum(distance, 0.0) / p.length_facts**2))
    found.append((a.family[:, None] == b.family).astype(np.float64))
    own = np.zeros((len(a.ids), len(b.ids)))
    own[tuple(same_checkpoints(a.ids, b.ids))] = 1.0
    return np.stack([*found, own])


def checkpoint_diagonal(p: MetricParameters, a: CheckpointFeatures) -> Array:
    """The diagonals of :func:`checkpoint_kernels` of a set with itself, shape (kernels, n)."""
    linear = [(a.facts(columns) ** 2).sum(axis=1) / len(columns) for columns in LINEAR.values()]
    return np.stack([*linear, (p.factors(a.ids) ** 2).sum(axis=1), *3 * [np.ones(len(a.ids))]])


def same_checkpoints(a: tuple[str, ...], b: tuple[str, ...]) -> NDArray[np.int64]:
    """Where two lists of ids name the same checkpoint: positions in both, shape (2, k)."""
    position = {name: j for j, name in enumerate(b)}
    pairs = [(i, position[name]) for i, name in enumerate(a) if name in position]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2).T


def at_home(home: Any, kinds: Any) -> Array:
    """How far a checkpoint is made for a task: its domain's share in the task, less that of other domains.

    `home` and `kinds`, shapes (..., kinds), are multiplied by rows. Checkpoints for all domains get 0, and so does what
    is not known of a task.
    """
    share = np.einsum("...k,...k->...", home, kinds)
    return np.asarray(share - AWAY * home.any(axis=-1) * (np.sum(kinds, axis=-1) - share))


def task_kernel(p: Any, a: Any, b: Any, same: Any, xp: Any = np) -> Any:
    """Similarity of tasks, shape (n, m): 1 for the same task, falling with the distances of their embeddings."""
    exponent = (1.0 - a.profiles @ b.profiles.T) / p.length_fisher**2
    exponent = exponent + (1.0 - a.moments @ b.moments.T) / p.length_moments**2
    for j in range(a.descriptors.shape[1]):
        exponent = exponent + ((a.descriptors[:, None, j] - b.descriptors[None, :, j]) / p.length[j]) ** 2
    both = a.embedded[:, None] * b.embedded[None, :]
    return xp.where(same, xp.ones_like(exponent), xp.exp(-exponent) * both)


def of_one_group(tuned: bool, shared: tuple[str, ...] = SHARED_WITH) -> Array:
    """Which of `SHARED_WITH` there are for a group of fine-tuned or of frozen results, of those asked for: 0 or 1."""
    not_its = ("frozen", "setup") if tuned else ("tuned", "recipe")
    return np.array([float(name in shared and name not in not_its) for name in SHARED_WITH])


def group_kernels(similar: Any, a: Groups, b: Groups, same: NDArray[np.bool_] | None = None) -> list[Any]:
    """What groups share, in the order of `SHARED_WITH`, shapes (n, m); `similar` is the kernel of their tasks.

    `same` says which groups are one; by default, none.
    """
    equal = np.zeros(similar.shape, dtype=bool) if same is None else same
    laboratory = a.source[:, None] == b.source
    return [
        np.ones(similar.shape),
        a.tuned[:, None] & b.tuned,
        ~(a.tuned[:, None] | b.tuned),
        similar,
        a.described @ b.described.T / a.described.shape[1],
        laboratory & a.tuned[:, None],
        laboratory & ~a.tuned[:, None],
        equal,
    ]
