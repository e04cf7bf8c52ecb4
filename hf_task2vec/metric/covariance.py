"""The covariance of the trained metric: its parameters (``metric.json``), and which checkpoints and tasks are alike.

See :mod:`hf_task2vec.metric.ranking_metric` for the model. Every function works on numpy arrays, and on torch tensors
for gradients in the parameters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hf_task2vec.errors import MetricError, SchemaVersionError
from hf_task2vec.metric.task_space import TASK_DESCRIPTORS

METRIC_FILE = "metric.json"
SCHEMA_VERSION = 2
DEFAULT_SLOPE, DEFAULT_NOISE, DEFAULT_LENGTH = 0.7, 0.03, 4.0
# Rows of the observations' covariance made at a time: their temporary arrays then stay in the processor's cache.
_CHUNK = 64

Positive = Annotated[float, Field(gt=0.0, lt=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Loadings = Annotated[tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...], Field(min_length=1, max_length=16)]


@dataclass(frozen=True)
class MetricParameters:
    """Variances, length-scales and mixing weights of the covariance, in logits of a linear probe's accuracy.

    Attributes
    ----------
    offset
        Variance of a group's common offset.
    linear
        Variance of the slope on each numeric fact of a checkpoint.
    prior_smooth, prior_own
        Variances of the prior that checkpoints with like facts share, and of each checkpoint's own.
    protocol_smooth, source_smooth
        Variances of what a kind of protocol (such as fine-tuning), and what one source, adds to a checkpoint's standing
        on all tasks; checkpoints with like facts share it. The reference source and its kind define the unit: they add
        nothing.
    residual_smooth, residual_own
        The same of the task-specific residual.
    unseen
        Variance of a checkpoint's result on a task that the index has not seen, beyond what the model states: it makes
        up for what the model does not know of itself (see the coverage of ``benchmarks/selection/leave_one_out.py``).
    length_in1k, length_size, length_px
        Length-scales on ImageNet accuracy (in half logits), size (in factors of four) and image size (in octaves).
    pretraining_shared, family_shared
        Covariance left between checkpoints of different pretraining or architecture family, in (0, 1).
    length_fisher, length_moments
        Length-scales on the correlation distances of Fisher profiles and of feature moments.
    lengths
        By descriptor (`TASK_DESCRIPTORS`): its length-scale. Descriptors not named here get `DEFAULT_LENGTH`.
    factors
        By checkpoint: loadings, learned from its own scores, on a few factors that tasks share (a linear model of
        coregionalisation: Alvarez et al. 2012, section 4.2). Checkpoints not named here have none.
    slopes, noises
        By source (``"source/protocol"``): how far it spreads what a linear probe spreads by 1, and the variance of what
        nothing else explains. Sources not named here get `DEFAULT_SLOPE` and `DEFAULT_NOISE`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    offset: Positive = 4.0
    linear: Positive = 0.1
    prior_smooth: Positive = 0.1
    prior_own: Positive = 0.03
    protocol_smooth: Positive = 0.02
    source_smooth: Positive = 0.02
    residual_smooth: Positive = 0.05
    residual_own: Positive = 0.05
    unseen: Positive = 0.02
    length_in1k: Positive = 1.0
    length_size: Positive = 1.0
    length_px: Positive = 1.0
    pretraining_shared: Share = 0.5
    family_shared: Share = 0.7
    length_fisher: Positive = 1.6
    length_moments: Positive = 1.6
    lengths: Mapping[str, Positive] = field(default_factory=dict)
    factors: Mapping[str, Loadings] = field(default_factory=dict)
    slopes: Mapping[str, Positive] = field(default_factory=dict)
    noises: Mapping[str, Positive] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: bytes) -> MetricParameters:
        """Read ``metric.json``.

        Raises
        ------
        SchemaVersionError
            The file was written by another version of the format.
        MetricError
            The file is malformed.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise MetricError(f"{METRIC_FILE} cannot be read as JSON: {error}") from error
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{METRIC_FILE} has schema version {version!r}, this version reads {SCHEMA_VERSION}"
            )
        try:
            found = TypeAdapter(cls).validate_json(json.dumps(document.get("parameters")))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "parameters"
            raise MetricError(f"{METRIC_FILE}: {where} = {first['input']!r}: {first['msg']}") from error
        if unknown := sorted(set(found.lengths) - set(TASK_DESCRIPTORS)):
            raise MetricError(f"{METRIC_FILE}: lengths names unknown descriptors: {', '.join(unknown)}")
        if len({len(row) for row in found.factors.values()}) > 1:
            raise MetricError(f"{METRIC_FILE}: factors must give every checkpoint the same number of loadings")
        return found

    def to_json(self, report: Mapping[str, Any] | None = None) -> bytes:
        """Return ``metric.json`` as bytes; `report` (of the training) is kept beside the parameters."""
        document = {"schema_version": SCHEMA_VERSION, "parameters": asdict(self), "training": dict(report or {})}
        return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()

    def scalars(self) -> dict[str, float]:
        """Return the parameters that are single numbers."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in TABLES}

    def aligned(self, sources: Sequence[str], checkpoints: Sequence[str]) -> SimpleNamespace:
        """Return the parameters as attributes, with tables as arrays.

        `slope` and `noise` follow the order of `sources`, `loadings`, shape (C, R), that of `checkpoints`, and `length`
        that of `TASK_DESCRIPTORS`.
        """
        slope = np.array([self.slopes.get(name, DEFAULT_SLOPE) for name in sources])
        noise = np.array([self.noises.get(name, DEFAULT_NOISE) for name in sources])
        length = np.array([self.lengths.get(name, DEFAULT_LENGTH) for name in TASK_DESCRIPTORS])
        loadings = self.loadings(checkpoints)
        return SimpleNamespace(**self.scalars(), slope=slope, noise=noise, length=length, loadings=loadings)

    def loadings(self, checkpoints: Sequence[str]) -> np.ndarray:
        """Return the loadings of `checkpoints` on the R factors, shape (C, R)."""
        found = np.zeros((len(checkpoints), max((len(values) for values in self.factors.values()), default=0)))
        for row, name in enumerate(checkpoints):
            if name in self.factors:
                found[row] = self.factors[name]
        return found


#: Parameters that are tables rather than single numbers.
TABLES = ("lengths", "factors", "slopes", "noises")
#: Parameters that are shares in (0, 1); all other single numbers are positive.
SHARES = ("pretraining_shared", "family_shared")


def checkpoint_kernel(p: Any, a: Any, b: Any, xp: Any = np) -> Any:
    """Smooth similarity of checkpoints' facts, shape (n, m), 1 for equal facts. `xp` is numpy or torch."""
    lengths = (p.length_in1k, p.length_in1k, p.length_size, p.length_px)
    exponent = sum(((a.numbers[:, None, j] - b.numbers[None, :, j]) / s) ** 2 for j, s in enumerate(lengths))
    pretraining = p.pretraining_shared + (1.0 - p.pretraining_shared) * (
        a.pretraining[:, None] == b.pretraining[None, :]
    )
    family = p.family_shared + (1.0 - p.family_shared) * (a.family[:, None] == b.family[None, :])
    return xp.exp(-0.5 * exponent) * pretraining * family


def smooth_products(p: Any, a: Any, b: Any, vectors: np.ndarray) -> np.ndarray:
    """``checkpoint_kernel(p, a, b) @ vectors``, shape (n, q): of each pair, one product and one exponential."""
    lengths = np.array([p.length_in1k, p.length_in1k, p.length_size, p.length_px])
    x, y = a.numbers / lengths, b.numbers / lengths
    # Their product is minus half the squared distance.
    x = np.column_stack([x, -0.5 * (x**2).sum(axis=1), np.ones(len(x))])
    y = np.column_stack([y, np.ones(len(y)), -0.5 * (y**2).sum(axis=1)])
    shared = []
    for of_a, of_b, share in (
        (a.pretraining, b.pretraining, p.pretraining_shared),
        (a.family, b.family, p.family_shared),
    ):
        known = np.unique(of_b)
        table = np.full((len(known) + 1, len(of_b)), np.log(share))
        table[:-1][known[:, None] == of_b] = 0.0
        place = np.minimum(np.searchsorted(known, of_a), len(known) - 1)
        shared.append((table, np.where(known[place] == of_a, place, len(known))))
    found = np.empty((len(x), vectors.shape[1]))
    for start in range(0, len(x), _CHUNK):
        rows = slice(start, start + _CHUNK)
        exponent = x[rows] @ y.T
        for table, row in shared:
            exponent += table[row[rows]]
        found[rows] = np.exp(exponent, out=exponent) @ vectors
    return found


def prior_covariance(p: Any, a: Any, b: Any, smooth: Any, own: Any) -> Any:
    """Covariance of two sets of checkpoints on any task; `own` is 1 where both are the same checkpoint."""
    return p.linear * (1.0 + a.numbers @ b.numbers.T) + p.prior_smooth * smooth + p.prior_own * own


def source_covariance(p: Any, a: Any, b: Any) -> Any:
    """Covariance of what two sources add to checkpoints of equal facts; `a` and `b` are (kinds, sources) as codes."""
    return sum(
        variance * ((x == y) & (x >= 0))
        for variance, x, y in zip((p.protocol_smooth, p.source_smooth), a, b, strict=True)
    )


def residual_covariance(p: Any, a: Any, b: Any, smooth: Any, own: Any) -> Any:
    """Covariance of what one task adds; `a` and `b` are the checkpoints' loadings."""
    return p.residual_smooth * smooth + p.residual_own * own + a @ b.T


def task_kernel(p: Any, a: Any, b: Any, same: Any, xp: Any = np) -> Any:
    """Similarity of tasks, shape (n, m): 1 for the same task, falling with the distances of their embeddings."""
    exponent = (1.0 - a.profiles @ b.profiles.T) / p.length_fisher**2
    exponent = exponent + (1.0 - a.moments @ b.moments.T) / p.length_moments**2
    for j in range(a.descriptors.shape[1]):
        exponent = exponent + ((a.descriptors[:, None, j] - b.descriptors[None, :, j]) / p.length[j]) ** 2
    both = a.embedded[:, None] * b.embedded[None, :]
    return xp.where(same, xp.ones_like(exponent), xp.exp(-exponent) * both)


def covariance_matrix(p: Any, data: Any, xp: Any = np) -> Any:
    """Covariance of the observations, shape (N, N); `p` holds aligned parameters."""
    c, t = data.checkpoints, data.tasks
    smooth = checkpoint_kernel(p, c, c, xp)
    own = xp.eye(c.numbers.shape[0], dtype=smooth.dtype)
    same = xp.eye(t.profiles.shape[0], dtype=smooth.dtype) > 0
    at, task, source = data.checkpoint, data.task, data.source
    # Each table is laid out along the columns once; rows of it are then taken a few at a time.
    prior = prior_covariance(p, c, c, smooth, own)[:, at]
    residual = residual_covariance(p, p.loadings, p.loadings, smooth, own)[:, at]
    similarity = task_kernel(p, t, t, same, xp)[:, task]
    shared = source_covariance(p, data.codes[:, :, None], data.codes[:, None, :])[:, source]
    smooth, slope = smooth[:, at], p.slope[source]

    def block(rows: Any) -> Any:
        i = at[rows]
        found = prior[i] + residual[i] * similarity[task[rows]] + smooth[i] * shared[source[rows]]
        found = found * (slope[rows, None] * slope)
        return found + p.offset * (data.group[rows, None] == data.group)

    noise = data.error + p.noise[source]
    if xp is not np:
        return block(slice(None)) + xp.diag(noise)
    covariance = np.empty((len(at), len(at)))
    for start in range(0, len(at), _CHUNK):
        covariance[start : start + _CHUNK] = block(slice(start, start + _CHUNK))
    covariance[np.diag_indices(len(at))] += noise
    return covariance
