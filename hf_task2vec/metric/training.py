"""Learn the trained metric's parameters by marginal likelihood."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import MetricError
from hf_task2vec.metric.covariance import (
    CHECKPOINT_KERNELS,
    SHARED_WITH,
    Level,
    MetricParameters,
    checkpoint_kernels,
    group_kernels,
    task_kernel,
)
from hf_task2vec.metric.observations import PROTOCOLS, REFERENCE_SOURCE, Groups
from hf_task2vec.metric.ranking_metric import LEVEL, RankingMetric, evidence
from hf_task2vec.metric.task_space import TASK_DESCRIPTORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_task2vec.metric.observations import Observations
    from hf_task2vec.zoo import ZooIndex

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

#: Tasks that a line needs.
LEAST_TASKS = 5
_STEP, _SEED = 0.12, 0
# A source of many groups, or of a few with hundreds of scores each, must not outweigh the rest: scores drawn of a group
# of an embedded task; groups of a laboratory, and scores of each.
_SCORES_OF_A_GROUP = 60
_GROUPS, _SCORES = 4, 25
# Spread of the prior on the logarithm of each parameter. That of variances between laboratories is narrow: which are
# small is known from laboratories left out, and the likelihood, which hardly sees a laboratory's ways, would forget it.
_PRIOR_SPREAD = {"variances": 0.5, "held": 0.15, "noises": 0.7, "lengths": 0.7, "loadings": 0.4}
# Factors of the residual, their first size, and the scores on embedded tasks that a checkpoint needs to lean on them.
_FACTORS, _LOADING_START, _LOADING_SCORES = 3, 0.2, 20


def train(
    index: ZooIndex,
    start: MetricParameters | None = None,
    *,
    steps: int = 100,
    on_step: Callable[[int], object] = lambda n: None,
) -> tuple[ZooIndex, dict[str, Any]]:
    """Learn the parameters of the metric from an index's own scores.

    Parameters
    ----------
    index
        What to learn from; with no scores it raises MetricError.
    start
        As for :func:`fit_parameters`; by default the index's own parameters.
    steps, on_step
        Steps of the optimiser, and what is called after each with 1. A hundred take a minute or two for the shipped
        index.

    Returns
    -------
    tuple
        The index with the parameters and the solved weights of its scores, not saved, and the report.
    """
    start = RankingMetric.from_index(index).parameters if start is None else start
    space, data = evidence(index)
    parameters, report = fit_parameters(data, start, steps=steps, on_step=on_step)
    own = RankingMetric(parameters, space, data)
    calibrated = replace(calibrate(own), spreads=start.spreads)
    kept = {name: value for name, value in report.items() if name != "seconds"}  # the same scores, the same bytes
    return index.with_attachments(replace(own, parameters=calibrated, solved=own.weights).files(kept)), report


def fit_parameters(
    data: Observations,
    start: MetricParameters | None = None,
    *,
    steps: int = 80,
    scores: int = 1000,
    on_step: Callable[[int], object] = lambda n: None,
) -> tuple[MetricParameters, dict[str, Any]]:
    """Maximise the marginal likelihood of the scores of random groups, times a weak prior on the parameters.

    Parameters
    ----------
    data
        Scores to learn from.
    start
        Starting point and centre of the prior; by default the built-in values. What is not learned (`spreads`,
        `scales`, `levels`, `length_facts`) stays.
    steps
        Steps of Adam.
    scores
        Scores that each step looks at, of groups drawn at random. The result is deterministic.
    on_step
        Called after each step with 1.

    Returns
    -------
    tuple
        The parameters, and a report: mean objectives of the first and of the last fifth of the steps, seconds, number
        of scores.

    Raises
    ------
    MetricError
        There are no scores.
    """
    import torch

    if not len(data.y):
        raise MetricError("no scores to learn the metric from; the index must hold comparable scores")
    began = time.perf_counter()
    start = MetricParameters() if start is None else start
    objective = _Objective(data, start)
    centre, rng, history = objective.pack(start), np.random.default_rng(_SEED), []
    x = torch.tensor(objective.off_zero(centre, rng), requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=_STEP)
    for step in range(steps):
        # Every third step looks at embedded tasks alone: they are few, and tell how far similar tasks are alike.
        value = objective(x, objective.draw(rng, scores, embedded=step % 3 == 2))
        prior = 0.5 * ((x - torch.tensor(centre)) / torch.tensor(objective.spread)).square().sum() / len(data.y)
        optimiser.zero_grad()
        (value + prior).backward()
        optimiser.step()
        for group in optimiser.param_groups:
            group["lr"] = _STEP * (1.0 - step / steps) + 0.01
        history.append(float(value.detach()))
        on_step(1)
    fifth = max(steps // 5, 1)
    report = {
        "n_scores": len(data.y),
        "n_tasks": len(np.unique(data.task)),
        "n_checkpoints": len(np.unique(data.checkpoint)),
        "objective_before": float(np.mean(history[:fifth])),
        "objective_after": float(np.mean(history[-fifth:])),
        "seconds": round(time.perf_counter() - began, 1),
    }
    logger.info("metric trained: %s", report)
    return objective.unpack(x.detach().numpy()), report


def calibrate(metric: RankingMetric) -> MetricParameters:
    """Learn the scale of each protocol's results, and how hard tasks are under it, from a metric's own scores.

    Returns
    -------
    MetricParameters
        The metric's, with `scales` and `levels`. A level is learned from the tasks that the index has measured itself
        and that others have fine-tuned on, with all their classes; with fewer than `LEAST_TASKS` of them, the built-in
        line stays.
    """
    data, scale, weights = metric.data, metric.scale, metric.weights
    groups = len(data.first)
    of_level = LEVEL * np.bincount(data.group, weights, minlength=groups)
    standing = metric.y - metric.noise_of_scores * weights - of_level[data.group]
    count = np.maximum(np.bincount(data.group, minlength=groups), 1)
    level = np.bincount(data.group, data.y - scale[data.group] * standing, minlength=groups) / count
    sources, left = np.array(data.sources)[data.source[data.first]], data.first >= 0
    measured, tuned = (sources == REFERENCE_SOURCE) & left, data.groups.tuned & left
    whole = tuned & ~data.part[data.first]  # ten of 397 scenes are easier
    scales = {
        name: float(np.exp(np.median(np.log(scale[which]))))
        for name, which in zip(
            PROTOCOLS, (tuned, measured if measured.any() else ~data.groups.tuned & left), strict=True
        )
        if which.any()
    }
    hard = {data.task[data.first[g]]: level[g] for g in np.flatnonzero(measured)}
    pairs = [(hard[t], level[g]) for g in np.flatnonzero(whole) if (t := data.task[data.first[g]]) in hard]
    tasks = {t for g in np.flatnonzero(whole) if (t := data.task[data.first[g]]) in hard}
    if len(tasks) < LEAST_TASKS:
        return replace(metric.parameters, scales=scales)
    x, y = np.array(pairs).T
    slope, intercept = np.polyfit(x, y, 1)
    line = Level(float(intercept), float(slope), float(np.std(y - slope * x - intercept, ddof=2)))
    return replace(metric.parameters, scales=scales, levels={PROTOCOLS[0]: line})


class _Objective:
    """Negative log marginal likelihood, by score, of packed parameters.

    Packed are the logarithms of variances, lengths and noises, then the loadings of checkpoints with enough scores.
    """

    def __init__(self, data: Observations, start: MetricParameters) -> None:
        import torch

        self._torch, self._data, self._start = torch, data, start
        metric = RankingMetric(start, None, data)  # type: ignore[arg-type]  # the space is for embeddings only
        self._y, self._error = metric.y, data.error / metric.scale[data.group] ** 2
        self._match = metric.match_of_scores
        self._kernels = torch.tensor(checkpoint_kernels(start, data.checkpoints, data.checkpoints))
        embedded = data.tasks.embedded[data.task]
        count = np.bincount(data.checkpoint[embedded], minlength=len(data.checkpoints.ids))
        self._leaning = np.flatnonzero(count >= _LOADING_SCORES)
        self._sizes = [
            len(CHECKPOINT_KERNELS) * len(SHARED_WITH),
            1,
            2 + len(TASK_DESCRIPTORS),
            len(data.sources),
            len(self._leaning) * _FACTORS,
        ]
        spreads = [_PRIOR_SPREAD[name] for name in ("variances", "variances", "lengths", "noises", "loadings")]
        self.spread = np.repeat(spreads, self._sizes)
        held = np.tile(np.isin(SHARED_WITH, ("all", "tuned", "recipe")), len(CHECKPOINT_KERNELS))
        self.spread[: self._sizes[0]][held] = _PRIOR_SPREAD["held"]
        self._rows = [np.flatnonzero(data.group == g) for g in range(len(data.first))]

    def pack(self, p: MetricParameters) -> Array:
        """Return parameters as one unconstrained vector."""
        lengths = [p.length_fisher, p.length_moments, *p.length]
        logarithms = np.log(
            np.concatenate([np.maximum(p.weights, 1e-6).ravel(), [p.match], lengths, p.noise(self._data.sources)])
        )
        known = p.factors(self._data.checkpoints.ids)[self._leaning, :_FACTORS]
        loadings = np.zeros((len(self._leaning), _FACTORS))
        loadings[:, : known.shape[1]] = known
        return np.concatenate([logarithms, loadings.ravel()])

    def unpack(self, packed: Array) -> MetricParameters:
        """Return the parameters of a vector."""
        *logarithms, loadings = np.split(packed, np.cumsum(self._sizes)[:-1])
        variances, match, lengths, noises = map(np.exp, logarithms)
        table = variances.reshape(len(CHECKPOINT_KERNELS), len(SHARED_WITH)).tolist()
        return replace(
            self._start,
            variances={
                k: dict(zip(SHARED_WITH, row, strict=True)) for k, row in zip(CHECKPOINT_KERNELS, table, strict=True)
            },
            match=float(match[0]),
            length_fisher=float(lengths[0]),
            length_moments=float(lengths[1]),
            lengths=dict(zip(TASK_DESCRIPTORS, lengths[2:].tolist(), strict=True)),
            loadings={
                self._data.checkpoints.ids[i]: tuple(row)
                for i, row in zip(self._leaning, loadings.reshape(-1, _FACTORS).tolist(), strict=True)
            },
            noises=dict(zip(self._data.sources, noises.tolist(), strict=True)),
        )

    def off_zero(self, packed: Array, rng: np.random.Generator) -> Array:
        """Move the loadings off zero, where their gradient vanishes, if all of them are."""
        first, count = packed.copy(), self._sizes[-1]
        if count and not first[-count:].any():
            first[-count:] = _LOADING_START * rng.standard_normal(count)
        return first

    def draw(self, rng: np.random.Generator, count: int, *, embedded: bool) -> NDArray[np.int64]:
        """Draw `count` scores: groups of embedded tasks at random, if any and so asked, else of random laboratories."""
        known = np.flatnonzero(self._data.tasks.embedded[self._data.task[self._data.first]])
        if embedded and len(known):
            groups, most = rng.permutation(known), _SCORES_OF_A_GROUP
        else:
            of = self._data.groups.source
            drawn = [rng.permutation(np.flatnonzero(of == code))[:_GROUPS] for code in rng.permutation(np.unique(of))]
            groups, most = np.concatenate(drawn), _SCORES
        found: list[NDArray[np.int64]] = []
        for group in groups:
            found.append(np.sort(rng.permutation(self._rows[group])[:most]))
            if sum(map(len, found)) >= count:
                break
        return np.concatenate(found)

    def __call__(self, x: Any, rows: NDArray[np.int64]) -> Any:
        torch, data = self._torch, self._data
        *logarithms, leaning = x.split(self._sizes)
        variances, match, lengths, noises = map(torch.exp, logarithms)
        groups, at = np.unique(data.group[rows], return_inverse=True)
        first = data.first[groups]
        task, of = data.task[first], data.groups
        tasks = data.tasks.take(task)
        names = ("profiles", "moments", "descriptors", "embedded")
        known = SimpleNamespace(**{name: torch.tensor(getattr(tasks, name)) for name in names})
        p = SimpleNamespace(length_fisher=lengths[0], length_moments=lengths[1], length=lengths[2:])
        similar = task_kernel(p, known, known, torch.tensor(task[:, None] == task), torch)
        part = Groups(of.tuned[groups], of.source[groups], of.kinds[groups], of.described[groups])
        shared = group_kernels(np.zeros(similar.shape), part, part, np.eye(len(groups), dtype=bool))
        stacked = [torch.tensor(kernel.astype(np.float64)) for kernel in shared]
        stacked[SHARED_WITH.index("similar")] = similar
        table = variances.reshape(len(CHECKPOINT_KERNELS), len(SHARED_WITH))
        between = torch.tensordot(table, torch.stack(stacked), 1)
        checkpoint = data.checkpoint[rows]
        kernels = self._kernels[:, checkpoint][:, :, checkpoint]
        loadings = torch.zeros(len(data.checkpoints.ids), _FACTORS, dtype=x.dtype)
        loadings = loadings.index_put((torch.tensor(self._leaning),), leaning.reshape(-1, _FACTORS))[checkpoint]
        kernels[CHECKPOINT_KERNELS.index("factors")] = loadings @ loadings.T
        own = torch.tensor(self._match[rows])
        covariance = (kernels * between[:, at][:, :, at]).sum(0) + match * torch.outer(own, own)
        covariance = covariance + LEVEL * torch.tensor(at[:, None] == at)
        noise = torch.tensor(self._error[rows]) + noises[torch.tensor(data.source[rows])]
        factor = torch.linalg.cholesky(covariance + torch.diag(noise))
        whitened = torch.linalg.solve_triangular(factor, torch.tensor(self._y[rows])[:, None], upper=False)
        return (0.5 * whitened.square().sum() + factor.diagonal().log().sum()) / len(rows)
