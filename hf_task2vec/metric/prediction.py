"""A metric's prediction for one task, and what measurements on that very task make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.metric.covariance import (
    AWAY,
    LINEAR,
    Level,
    MetricParameters,
    checkpoint_diagonal,
    checkpoint_kernels,
    same_checkpoints,
)
from hf_task2vec.metric.observations import CHECKPOINT_FACTS, CheckpointFeatures, log_logistic
from hf_task2vec.probes import Score

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
# Far more than are needed, unless something is wrong with the numbers.
_NEWTON_STEPS = 100
# Candidates compared with the scored checkpoints at a time.
_CHUNK = 256
# Candidates whose covariances with the scored checkpoints are kept.
_KEPT = 5000
#: Share of the sampling error that checkpoints measured on the same images have in common, because they fail on the
#: same ones (mean correlation of right answers among a task's six best checkpoints: ``shared_error`` in
#: ``benchmarks/results/selection.json``). It moves all of them alike, so it belongs to the task's level, and only the
#: rest blurs the differences.
SHARED_ERROR = 0.47
#: Prior variance of a task's level, in squared logits: so wide that one measurement tells of the level alone. A tighter
#: one would take a hard task for a weakness of whatever was measured first.
LEVEL_VARIANCE = 1e3


def kernel_products(p: MetricParameters, a: CheckpointFeatures, b: CheckpointFeatures, vectors: Array) -> Array:
    """Sum of the kernels of n and C checkpoints, each times vectors of its own, shape (kernels, C, q) to (n, q).

    A few hundred candidates at a time, and no matrix for what is linear: an index may hold a million checkpoints.
    """
    slopes = np.zeros((len(CHECKPOINT_FACTS), vectors.shape[2]))
    for columns, vector in zip(LINEAR.values(), vectors, strict=False):
        slopes[[CHECKPOINT_FACTS.index(name) for name in columns]] += b.facts(columns).T @ vector / len(columns)
    found = a.numbers @ slopes
    factors, smooth, family, own = vectors[-4:]
    found += p.factors(a.ids) @ (p.factors(b.ids).T @ factors)
    x, y = a.smooth / p.length_facts, b.smooth / p.length_facts
    x = np.column_stack([x, -0.5 * (x**2).sum(axis=1), np.ones(len(x))])
    y = np.column_stack([y, np.ones(len(y)), -0.5 * (y**2).sum(axis=1)])
    for rows in _chunks(np.arange(len(x))):
        exponent = x[rows] @ y.T
        found[rows] += np.exp(exponent, out=exponent) @ smooth
    names, code = np.unique(b.family, return_inverse=True)
    of_family = np.zeros((len(names) + 1, vectors.shape[2]))
    np.add.at(of_family, code, family)
    at = np.minimum(np.searchsorted(names, a.family), len(names) - 1)
    found += of_family[np.where(names[at] == a.family, at, len(names))]
    i, j = same_checkpoints(a.ids, b.ids)
    found[i] += own[j]
    return found


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the scores of an index tell of n candidates on one task: a covariance, in numbers.

    The standing on all tasks is known from what each of the C scored checkpoints got, with fine-tuning and with frozen
    features; what this task adds is taken to be unknown but for the share that similar tasks tell.

    Attributes
    ----------
    parameters
        Of the metric.
    scored, candidates
        The C and the n checkpoints.
    blind, rest
        Shape (kernels,): variances of the standing on all tasks, and of what this task adds.
    shared
        Shape (kernels, 2): how far the standing on all tasks is shared with frozen and with tuned results.
    known
        Shape (2C, 2C): what the scores know of these.
    match
        Shape (n,): by how much a domain encoder's gain or loss on this task varies, as a standard deviation.
    other
        `shared` of the results in columns, where these are of another protocol than those in rows; `blind` and `rest`
        are then what the two have in common.
    spread
        By how much all that is multiplied (see `MetricParameters.spreads`).
    kept
        Covariances with the scored checkpoints by what is shared, which posteriors of the same candidates hand on.
    """

    parameters: MetricParameters
    scored: CheckpointFeatures
    candidates: CheckpointFeatures
    blind: Array
    rest: Array
    shared: Array
    known: Array
    match: Array
    other: Array | None = None
    spread: float = 1.0
    kept: dict[bytes, Array] = field(default_factory=dict, repr=False)

    @property
    def away(self) -> NDArray[np.bool_]:
        """Shape (n,): encoders made for a domain that the task is of with a probability of less than a quarter."""
        return np.asarray(self.match < (0.25 - 0.75 * AWAY) * np.sqrt(self.parameters.match))

    def covariance(self, rows: Rows, columns: Rows) -> Array:
        """Covariance of two sets of candidates, shape (rows, columns)."""
        b = self.candidates.take(columns)
        explained = self._told @ self._with_scored(columns, self.other).T
        found = [np.zeros((0, len(columns)))]
        for part in _chunks(rows):
            kernels = checkpoint_kernels(self.parameters, self.candidates.take(part), b)
            before = np.tensordot(self.blind + self.rest, kernels, 1) + np.outer(self.match[part], self.match[columns])
            found.append(before - self._with_scored(part) @ explained)
        return self.spread * np.concatenate(found)

    def variance(self, rows: Rows) -> Array:
        """Variance of each of the candidates at `rows`."""
        diagonal = checkpoint_diagonal(self.parameters, self.candidates.take(rows))
        before = (self.blind + self.rest) @ diagonal + self.match[rows] ** 2
        parts = [self._with_scored(part) for part in _chunks(rows)]
        explained = [((part @ self._told) * part).sum(axis=1) for part in parts]
        return np.asarray(self.spread * (before - np.concatenate([np.zeros(0), *explained])))

    @cached_property
    def _of(self) -> tuple[Rows, Rows]:
        """The scored checkpoints of which something is known, frozen and tuned."""
        frozen, tuned = self.known.any(axis=0).reshape(2, -1)
        return np.flatnonzero(frozen), np.flatnonzero(tuned)

    @cached_property
    def _told(self) -> Array:
        """What is known of their results, shape (told, told)."""
        at = np.concatenate([self._of[0], len(self.scored.ids) + self._of[1]])
        return self.known[np.ix_(at, at)]

    def _with_scored(self, rows: Rows, shared: Array | None = None) -> Array:
        """Covariances with results of the scored checkpoints of which something is known, shape (rows, told)."""
        shared = self.shared if shared is None else shared
        if len(self.candidates.ids) > _KEPT:
            found = self._sums(rows, [*shared.T])
            return np.concatenate([part[:, of] for part, of in zip(found, self._of, strict=True)], axis=1)
        if new := {weights.tobytes(): weights for weights in shared.T if weights.tobytes() not in self.kept}:
            parts = [self._sums(part, [*new.values()]) for part in _chunks(np.arange(len(self.candidates.ids)))]
            self.kept.update(zip(new, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        kept = (self.kept[weights.tobytes()] for weights in shared.T)
        return np.concatenate([part[np.ix_(rows, of)] for part, of in zip(kept, self._of, strict=True)], axis=1)

    def _sums(self, rows: Rows, several: list[Array]) -> list[Array]:
        kernels = checkpoint_kernels(self.parameters, self.candidates.take(rows), self.scored)
        return [np.tensordot(weights, kernels, 1) for weights in several]


def _chunks(rows: Rows) -> list[Rows]:
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


@dataclass(frozen=True, eq=False)
class Heirs:
    """N checkpoints, of which some were fine-tuned from others and inherit what is known of these.

    Attributes
    ----------
    ids
        The N checkpoints.
    base
        Shape (N,): whose evidence each has, as rows of the checkpoints that a metric judges by themselves.
    gain, variance
        Shape (N,): by how many logits a fine-tuned one is expected to be better than its base on the task, and the
        variance of that; 0 for a checkpoint with evidence of its own.
    """

    ids: tuple[str, ...]
    base: Rows
    gain: Array
    variance: Array

    @property
    def tuned(self) -> NDArray[np.bool_]:
        """Shape (N,): which are fine-tuned from others."""
        return self.variance > 0.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted standing of checkpoints on one task, in logits of the accuracy under the protocol asked for.

    Attributes
    ----------
    ids
        The n checkpoints.
    prior, residual
        Shape (n,): the task-blind and the task-specific part of the mean. Zero is the average checkpoint until
        measurements fix the level.
    task_weight
        In [0, 1]: similarity of the task to the nearest reference task; near 0 the prior rules.
    noise
        Variance of a checkpoint's result on the task about what the model can know.
    posterior
        Covariance of the means, in units of `unit` logits; None where they are taken to be exact.
    level
        Logit of the task's level; 0 without measurements.
    update
        Shape (n,): what measurements on this task add to level, prior and residual.
    measured
        Whether it is conditioned on measurements on this task; the mean is then an accuracy's logit.
    heirs
        How the checkpoints inherit from those of the posterior, where some do.
    """

    ids: tuple[str, ...]
    prior: Array
    residual: Array
    task_weight: float
    noise: float
    posterior: Posterior | None = None
    unit: float = 1.0
    level: float = 0.0
    update: Array | float = 0.0
    measured: bool = False
    heirs: Heirs | None = None
    # Rows of the m measured checkpoints, and how far each moves what is correlated with it, shape (m,).
    _at: Rows | None = field(default=None, repr=False)
    _pulls: Array | None = field(default=None, repr=False)
    # Root of the covariance of what was measured, shape (m, m).
    _root: Array | None = field(default=None, repr=False)
    # Where linear probes told of another protocol: their prediction, how both go together, and what that is of the m.
    _probed: tuple[Prediction, Posterior, Array] | None = field(default=None, repr=False)
    # Shape (n, m): products of its rows are what m measurements take off the covariance, and that of the level.
    _learned: Array | None = field(default=None, repr=False)
    _level_variance: float = field(default=0.0, repr=False)

    @property
    def mean(self) -> Array:
        """The predicted logit, shape (n,): level, prior, residual and update."""
        total: Array = self.level + self.prior + self.residual + self.update
        return total

    def inherited_by(self, heirs: Heirs | None) -> Prediction:
        """Return the prediction for checkpoints that inherit from these; None for these themselves.

        The result of an heir is that of its base, whatever that will be, and a gain that is independent of it.
        """
        if heirs is None:
            return self
        prior, residual = self.prior[heirs.base], self.residual[heirs.base] + heirs.gain
        return replace(self, ids=heirs.ids, prior=prior, residual=residual, heirs=heirs)

    def bases(self, rows: Rows) -> Rows:
        """Rows of the posterior that the checkpoints at `rows` have their evidence from."""
        return rows if self.heirs is None else self.heirs.base[rows]

    def variance(self, rows: Rows | None = None) -> Array:
        """Variance of the result of the checkpoints at `rows` (all by default).

        Without measurements, that of the standing alone: the task's level is unknown.
        """
        rows = np.arange(len(self.ids)) if rows is None else np.asarray(rows)
        total = self.noise + (
            np.zeros(len(rows)) if self.posterior is None else self.unit**2 * self.posterior.variance(self.bases(rows))
        )
        if self.heirs is not None:
            total = total + self.heirs.variance[rows]
        if self._learned is not None:
            total = total - np.square(self._learned[rows]).sum(axis=1)
        return np.maximum(total + self._level_variance, 1e-9)

    def covariance(self, rows: Rows) -> Array:
        """Joint covariance of the results of the checkpoints at `rows`; see :meth:`variance`."""
        found = self._with_noise(rows, rows) + self._level_variance
        return found if self._learned is None else found - self._learned[rows] @ self._learned[rows].T

    def variance_of_differences(self, i: int, rows: Rows) -> Array:
        """Variance of the differences between the results of the checkpoint at row `i` and of those at `rows`."""
        at, rows = np.array([i]), np.asarray(rows)
        between = self._with_noise(rows, at)[:, 0]
        if self._learned is not None:
            between = between - self._learned[rows] @ self._learned[i]
        # The level is common to both.
        own = self.variance(np.concatenate([at, rows])) - self._level_variance
        return np.asarray(np.maximum(own[0] + own[1:] - 2.0 * between, 1e-9))

    def given(self, measured: Mapping[str, Score], level_variance: float = LEVEL_VARIANCE) -> Prediction:
        """Condition on scores measured on this task.

        The numbers of right answers are binomial. Their likelihood is replaced by the normal one that agrees with it at
        the posterior mode (Laplace's method: Rasmussen and Williams 2006, section 3.4). Taken at the measured accuracy
        instead, it would trust least what surprises most: few images all right, or all wrong.

        Parameters
        ----------
        measured
            By checkpoint; those that are not among `ids` raise.
        level_variance
            Prior variance of the task's level.

        Raises
        ------
        MetricError
            A measured checkpoint is not among the candidates.
        """
        position = {name: i for i, name in enumerate(self.ids)}
        if missing := [name for name in measured if name not in position]:
            raise MetricError(f"measured checkpoints that are not among the candidates: {', '.join(missing)}")
        at = np.array([position[name] for name in measured], dtype=np.int64)
        share = np.array([m.smoothed for m in measured.values()])
        n = np.array([m.trials for m in measured.values()]) / (1.0 - SHARED_ERROR)
        cross = self._with_noise(np.arange(len(self.ids)), at)
        before = cross[at] + level_variance
        excess, error = _normal_likelihood((self.prior + self.residual)[at], before, share, n)
        inner = before + np.diag(error)
        solved = np.asarray(np.linalg.solve(inner, excess), dtype=np.float64)
        root = np.asarray(np.linalg.cholesky(inner), dtype=np.float64)
        return replace(
            self,
            level=float(level_variance * solved.sum()),
            update=cross @ solved,
            measured=True,
            _at=at,
            _pulls=solved,
            _root=root,
            _learned=np.asarray(np.linalg.solve(root, (cross + level_variance).T).T, dtype=np.float64),
            _level_variance=level_variance,
        )

    def at_level_of(self, probed: Prediction, level: Level, between: Posterior) -> Prediction:
        """Take over what measurements with linear probes told, `probed`, to predictions under another protocol.

        What they told of the candidates' standings counts as far as results of both protocols go together, which
        `between` says; how hard the task is follows `level`. Variances of the standings stay as they were.
        """
        assert probed._at is not None
        assert probed._pulls is not None
        rows, units = np.arange(len(self.ids)), self.unit * probed.unit
        cross = self._inherited(lambda a, b: units * between.covariance(a, b), rows, probed._at)
        return replace(
            self,
            level=level.intercept + level.slope * probed.level,
            update=cross @ probed._pulls,
            measured=probed.measured,
            _probed=(probed, between, cross),
            _level_variance=level.deviation**2,
        )

    def probing(self, rows: Rows) -> tuple[Array, Array]:
        """How results of the checkpoints at `rows` go together with linear probes of them, and these with one another.

        Covariances given what is measured already, shapes (rows, rows).
        """
        if self._probed is None:
            return (covariance := self.covariance(rows)), covariance
        probed, between, of_measured = self._probed
        assert probed._root is not None
        assert probed._learned is not None
        cross = self._inherited(lambda a, b: self.unit * probed.unit * between.covariance(a, b), rows, rows)
        known = np.linalg.solve(probed._root, of_measured[rows].T)
        return cross - known.T @ probed._learned[rows].T, probed.covariance(rows)

    def _with_noise(self, rows: Rows, columns: Rows) -> Array:
        return self._inherited(self._of_bases, rows, columns)

    def _inherited(self, covariance: Callable[[Rows, Rows], Array], rows: Rows, columns: Rows) -> Array:
        """Return a covariance of the checkpoints, given that of those which they inherit from."""
        if self.heirs is None:
            return covariance(rows, columns)
        (a, i), (b, j) = (np.unique(self.heirs.base[part], return_inverse=True) for part in (rows, columns))
        own = self.heirs.variance[rows][:, None] * (rows[:, None] == columns)
        return np.asarray(covariance(a, b)[np.ix_(i, j)] + own)

    def _of_bases(self, rows: Rows, columns: Rows) -> Array:
        noise: Array = self.noise * (rows[:, None] == columns)
        return noise if self.posterior is None else noise + self.unit**2 * self.posterior.covariance(rows, columns)


def _normal_likelihood(mean: Array, covariance: Array, share: Array, n: Array) -> tuple[Array, Array]:
    """Normal observations that agree with binomial ones at the posterior mode of their logits.

    Newton's method on a concave function, with halved steps where a whole one leads down.

    Parameters
    ----------
    mean, covariance
        Prior of the m logits, shapes (m,) and (m, m).
    share, n
        Shares of right answers, in (0, 1), and of how many.

    Returns
    -------
    tuple of ndarray
        How far the equivalent observations lie above `mean`, and their variances, shapes (m,).
    """

    def log_posterior(weights: Array) -> float:
        f = mean + covariance @ weights
        likelihood = n * (share * log_logistic(f) + (1.0 - share) * log_logistic(-f))
        return float(likelihood.sum() - 0.5 * weights @ covariance @ weights)

    def equivalent(weights: Array) -> tuple[Array, Array]:
        shift = covariance @ weights
        right = np.exp(log_logistic(mean + shift))
        spread = np.maximum(right * np.exp(log_logistic(-mean - shift)), 1e-12)
        return shift + (share - right) / spread, 1.0 / (n * spread)

    weights, excess, error = np.zeros(len(mean)), *equivalent(np.zeros(len(mean)))
    for _ in range(_NEWTON_STEPS):
        step = np.linalg.solve(covariance + np.diag(error), excess) - weights
        least = log_posterior(weights)
        while log_posterior(weights + step) < least and np.abs(step).max() > 1e-12:
            step = 0.5 * step
        weights = weights + step
        excess, error = equivalent(weights)
        if np.abs(covariance @ step).max() < 1e-10:
            break
    return excess, error
