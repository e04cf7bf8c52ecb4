"""Learn the metric's length-scales and variances by marginal likelihood (Rasmussen and Williams 2006, chapter 5)."""

from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.metric import REFERENCE_SOURCE, SHARES, MetricParameters, covariance_matrix
from hf_task2vec.observations import Observations

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]
# A weak log-normal prior, centred on the built-in values, keeps parameters that the scores say nothing about in place.
_PRIOR_SPREAD = 1.0


def fit_parameters(
    data: Observations, start: MetricParameters | None = None, *, max_iterations: int = 60
) -> tuple[MetricParameters, dict[str, Any]]:
    """Maximise the marginal likelihood of the scores, times a weak prior on the parameters.

    Parameters
    ----------
    data
        Scores to learn from.
    start
        Starting point and centre of the prior; by default the built-in values.
    max_iterations
        Iterations of L-BFGS. The result is deterministic.

    Returns
    -------
    tuple
        The parameters, and a report: log likelihoods before and after, evaluations, seconds, number of scores.

    Raises
    ------
    MetricError
        There are no scores.
    """
    from scipy.optimize import minimize

    if not len(data.y):
        raise MetricError("no scores to learn the metric from; the index must hold comparable scores of embedded tasks")
    packing = _Packing(data.sources)
    centre = packing.pack(start or MetricParameters())
    objective = _Objective(data, packing, centre)
    started = time.perf_counter()
    before = objective(centre)[0]
    result = minimize(objective, centre, jac=True, method="L-BFGS-B", options={"maxiter": max_iterations})
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
    """Parameters as one unconstrained vector: scalars, then the logarithms of the slopes and noises by source.

    The slope of the reference source is not among them: it is 1 and defines the unit.
    """

    def __init__(self, sources: tuple[str, ...]) -> None:
        self.sources, self.scalars = sources, tuple(MetricParameters().scalars())
        self.free = np.array([name != REFERENCE_SOURCE for name in sources])

    def pack(self, parameters: MetricParameters) -> Array:
        values = parameters.scalars()
        packed = [np.log(v / (1.0 - v)) if name in SHARES else np.log(v) for name, v in values.items()]
        aligned = parameters.aligned(self.sources)
        return np.concatenate([packed, np.log(aligned.slope[self.free]), np.log(aligned.noise)])

    def tensors(self, x: Any, xp: Any) -> SimpleNamespace:
        """Unpack a torch tensor, keeping its gradient."""
        n, m = len(self.scalars), int(self.free.sum())
        values = {
            name: xp.sigmoid(v) if name in SHARES else xp.exp(v) for name, v in zip(self.scalars, x[:n], strict=True)
        }
        slope = xp.ones(len(self.sources), dtype=xp.float64)
        slope[xp.as_tensor(self.free)] = xp.exp(x[n : n + m])
        return SimpleNamespace(**values, slope=slope, noise=xp.exp(x[n + m :]))

    def unpack(self, packed: Array) -> MetricParameters:
        import torch

        found = self.tensors(torch.from_numpy(packed), torch)
        by_source = {
            name: dict(zip(self.sources, getattr(found, name).tolist(), strict=True)) for name in ("slope", "noise")
        }
        return MetricParameters(
            **{name: float(getattr(found, name)) for name in self.scalars},
            slopes=by_source["slope"],
            noises=by_source["noise"],
        )


class _Objective:
    """Negative log posterior of the packed parameters, and its gradient."""

    def __init__(self, data: Observations, packing: _Packing, centre: Array) -> None:
        import torch

        self._torch, self._packing, self._centre, self.evaluations = torch, packing, centre, 0

        def tensors(owner: Any, *names: str) -> SimpleNamespace:
            return SimpleNamespace(**{name: torch.tensor(np.asarray(getattr(owner, name))) for name in names})

        self._data = tensors(data, "task", "checkpoint", "group", "source", "y", "error")
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
        prior = 0.5 * ((x - torch.from_numpy(self._centre)) / _PRIOR_SPREAD).square().sum()
        total = likelihood + prior
        (gradient,) = torch.autograd.grad(total, x)
        return float(total.detach()), gradient.numpy()
