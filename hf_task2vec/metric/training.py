"""Learn the metric's length-scales and variances by marginal likelihood (Rasmussen and Williams 2006, chapter 5)."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.metric.covariance import SHARES, MetricParameters, covariance_matrix
from hf_task2vec.metric.observations import REFERENCE_SOURCE, Observations
from hf_task2vec.metric.task_space import TASK_DESCRIPTORS

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]
# A weak log-normal prior, centred on the built-in values, keeps parameters that the scores say nothing about in place.
_PRIOR_SPREAD = 1.5
RANK = 3
"""Factors of the residual; see ``ranks`` in the raw output of ``benchmarks/selection/leave_one_out.py``."""
# The spread of the prior on loadings and of their start, and the scores on embedded tasks that a checkpoint needs to
# have loadings of its own.
_LOADING_SPREAD, _LOADING_START, _LOADING_SCORES = 0.4, 0.2, 20


def fit_parameters(
    data: Observations,
    start: MetricParameters | None = None,
    *,
    fixed: Collection[str] = (),
    max_iterations: int = 60,
    rank: int = RANK,
) -> tuple[MetricParameters, dict[str, Any]]:
    """Maximise the marginal likelihood of the scores, times a weak prior on the parameters.

    Parameters
    ----------
    data
        Scores to learn from.
    start
        Starting point; by default the built-in values, on which the prior is centred. Loadings start from small
        random numbers where it has none.
    fixed
        Names of parameters that stay as in `start`; ``"lengths"`` and ``"factors"`` stand for the whole table.
    max_iterations
        Iterations of L-BFGS. The result is deterministic.
    rank
        Number of factors of the residual, ≥ 0.

    Returns
    -------
    tuple
        The parameters, and a report: objectives before and after, evaluations, seconds, number of scores.

    Raises
    ------
    MetricError
        There are no scores.
    """
    from scipy.optimize import minimize

    if not len(data.y):
        raise MetricError("no scores to learn the metric from; the index must hold comparable scores of embedded tasks")
    packing = _Packing(data, rank)
    centre = packing.pack(MetricParameters())
    objective = _Objective(data, packing, centre)
    first = packing.pack(start) if start is not None else centre
    if "factors" not in fixed:
        first = packing.off_zero(first)
    started = time.perf_counter()
    before = objective(first)[0]
    held = packing.positions(fixed)
    bounds = [(x, x) if i in held else (None, None) for i, x in enumerate(first)]
    options = {"maxiter": max_iterations}
    result = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    report = {
        "n_scores": len(data.y),
        "n_tasks": len(np.unique(data.task)),
        "n_checkpoints": len(np.unique(data.checkpoint)),
        "objective_before": before,
        "objective_after": float(result.fun),
        "evaluations": objective.evaluations,
        "seconds": round(time.perf_counter() - started, 1),
    }
    logger.info("metric trained: %s", report)
    return packing.unpack(result.x), report


class _Packing:
    """Parameters as one unconstrained vector.

    Scalars, the logarithms of the descriptors' lengths and of the slopes and noises by source, then the loadings. The
    slope of the reference source is not among them: it is 1 and defines the unit.
    """

    def __init__(self, data: Observations, rank: int = RANK) -> None:
        self.rank = rank
        self.sources, self.scalars = data.sources, tuple(MetricParameters().scalars())
        self.free = np.array([name != REFERENCE_SOURCE for name in self.sources])
        embedded = data.tasks.embedded[data.task]
        counts = np.bincount(data.checkpoint[embedded], minlength=len(data.checkpoints.ids))
        self.checkpoints = data.checkpoints.ids
        self.factored = np.flatnonzero(counts >= _LOADING_SCORES) if rank else np.zeros(0, dtype=np.int64)
        self.n_loadings = len(self.factored) * rank

    def positions(self, names: Collection[str]) -> set[int]:
        """Where the parameters of some names lie in the vector."""
        n, m = len(self.scalars), len(TASK_DESCRIPTORS)
        found = {i for i, name in enumerate(self.scalars) if name in names}
        if "lengths" in names:
            found |= set(range(n, n + m))
        if "factors" in names:
            end = n + m + int(self.free.sum()) + len(self.sources) + self.n_loadings
            found |= set(range(end - self.n_loadings, end))
        return found

    def pack(self, parameters: MetricParameters) -> Array:
        values = parameters.scalars()
        packed = [np.log(v / (1.0 - v)) if name in SHARES else np.log(v) for name, v in values.items()]
        aligned = parameters.aligned(self.sources, self.checkpoints)
        loadings = np.zeros((len(self.factored), self.rank))
        known = aligned.loadings[self.factored, : self.rank]
        loadings[:, : known.shape[1]] = known
        tables = (np.log(aligned.length), np.log(aligned.slope[self.free]), np.log(aligned.noise))
        return np.concatenate([packed, *tables, loadings.ravel()])

    def off_zero(self, packed: Array) -> Array:
        """Move the loadings off zero, where their gradient vanishes, if all of them are."""
        first = packed.copy()
        if self.n_loadings and not first[-self.n_loadings :].any():
            draws = np.random.default_rng(0).standard_normal(self.n_loadings)
            first[-self.n_loadings :] = _LOADING_START * draws
        return first

    def spread(self) -> Array:
        """Spread of the prior on each entry."""
        spread = np.full(len(self.pack(MetricParameters())), _PRIOR_SPREAD)
        if self.n_loadings:
            spread[-self.n_loadings :] = _LOADING_SPREAD
        return spread

    def tensors(self, x: Any, xp: Any) -> SimpleNamespace:
        """Unpack a torch tensor, keeping its gradient."""
        parts = xp.split(
            x,
            [len(self.scalars), len(TASK_DESCRIPTORS), int(self.free.sum()), len(self.sources), self.n_loadings],
        )
        values = {
            name: xp.sigmoid(v) if name in SHARES else xp.exp(v) for name, v in zip(self.scalars, parts[0], strict=True)
        }
        slope = xp.ones(len(self.sources), dtype=xp.float64)
        slope[xp.as_tensor(self.free)] = xp.exp(parts[2])
        loadings = xp.zeros(len(self.checkpoints), self.rank, dtype=xp.float64)
        loadings[xp.as_tensor(self.factored)] = parts[4].reshape(len(self.factored), self.rank)
        return SimpleNamespace(
            **values, length=xp.exp(parts[1]), slope=slope, noise=xp.exp(parts[3]), loadings=loadings
        )

    def unpack(self, packed: Array) -> MetricParameters:
        import torch

        found = self.tensors(torch.from_numpy(packed), torch)
        return MetricParameters(
            **{name: float(getattr(found, name)) for name in self.scalars},
            lengths=dict(zip(TASK_DESCRIPTORS, found.length.tolist(), strict=True)),
            factors={self.checkpoints[i]: tuple(found.loadings[i].tolist()) for i in self.factored},
            slopes=dict(zip(self.sources, found.slope.tolist(), strict=True)),
            noises=dict(zip(self.sources, found.noise.tolist(), strict=True)),
        )


class _Objective:
    """Negative log posterior of the packed parameters, and its gradient."""

    def __init__(self, data: Observations, packing: _Packing, centre: Array) -> None:
        import torch

        self._torch, self._packing, self.evaluations = torch, packing, 0
        self._centre, self._spread = torch.from_numpy(centre), torch.from_numpy(packing.spread())

        def tensors(owner: Any, *names: str) -> SimpleNamespace:
            return SimpleNamespace(**{name: torch.tensor(np.asarray(getattr(owner, name))) for name in names})

        self._data = tensors(data, "task", "checkpoint", "group", "source", "codes", "y", "error")
        self._data.tasks = tensors(data.tasks, "profiles", "moments", "descriptors", "embedded")
        self._data.checkpoints = tensors(data.checkpoints, "numbers", "pretraining", "family")

    def __call__(self, packed: Array) -> tuple[float, Array]:
        torch = self._torch
        self.evaluations += 1
        x = torch.tensor(packed, dtype=torch.float64, requires_grad=True)
        covariance = covariance_matrix(self._packing.tensors(x, torch), self._data, torch)
        factor = torch.linalg.cholesky(covariance)
        whitened = torch.linalg.solve_triangular(factor, self._data.y[:, None], upper=False)
        likelihood = 0.5 * whitened.square().sum() + factor.diagonal().log().sum()
        prior = 0.5 * ((x - self._centre) / self._spread).square().sum()
        total = likelihood + prior
        (gradient,) = torch.autograd.grad(total, x)
        return float(total.detach()), gradient.numpy()
