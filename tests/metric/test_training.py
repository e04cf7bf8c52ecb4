"""Learning the metric: the gradient is right, the result is deterministic, and better than the start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hf_task2vec.errors import MetricError
from hf_task2vec.metric.covariance import SHARES, MetricParameters
from hf_task2vec.metric.observations import REFERENCE_SOURCE, Observations
from hf_task2vec.metric.ranking_metric import RankingMetric, Static
from hf_task2vec.metric.task_space import TASK_DESCRIPTORS, TaskFeatures
from hf_task2vec.metric.training import _Objective, _Packing, fit_parameters
from tests.support import observed


def small() -> Observations:
    """22 tasks and four checkpoints; enough scores for loadings of some, and two sources."""
    return observed.observations(observed.tasks(22, unknown=1), observed.checkpoints(4), share=0.95)


def opposed(seed: int = 0) -> tuple[Observations, TaskFeatures]:
    """Two kinds of tasks: on one the first half of eight checkpoints is good, on the other the second half.

    The last four tasks, two of each kind, are for testing.
    """
    rng = np.random.default_rng(seed)
    features = observed.tasks(28, seed)
    kind = np.arange(28) % 2
    profiles = np.eye(5)[kind] + rng.normal(0, 0.1, (28, 5))
    features = replace(
        features,
        profiles=observed.unit(profiles),
        moments=np.zeros((28, 4)),
        descriptors=rng.normal(0, 0.1, (28, len(TASK_DESCRIPTORS))),
    )
    good = np.where(np.arange(8)[None, :] % 2 == kind[:, None], 0.5, -0.5)
    y = 1.0 + rng.normal(0, 0.5, (28, 1)) + good + rng.normal(0, 0.1, (28, 8))
    scored = observed.checkpoints(8, seed)
    scored = replace(scored, numbers=np.zeros((8, 4)), pretraining=np.zeros(8, int), family=np.zeros(8, int))
    known = observed.observations(features.take(np.arange(24)), scored, y=y[:24])
    return replace(known, source=np.zeros_like(known.source)), features.take(np.arange(24, 28))


def test_gradient() -> None:
    data = small()
    packing = _Packing(data)
    objective = _Objective(data, packing, packing.pack(MetricParameters()))
    assert packing.n_loadings > 0
    point = packing.off_zero(packing.pack(MetricParameters()))
    point = point + np.random.default_rng(1).normal(0, 0.1, len(point))
    gradient, step = objective(point)[1], 1e-5
    assert np.abs(gradient).min() > 1e-6  # no entry is without effect
    numeric = [
        (objective(point + step * e)[0] - objective(point - step * e)[0]) / (2 * step) for e in np.eye(len(point))
    ]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5)


def test_objective_is_the_negative_log_posterior() -> None:
    """By scipy's normal density, up to the constants."""
    from scipy.stats import multivariate_normal

    from hf_task2vec.metric.covariance import covariance_matrix

    data = small()
    packing = _Packing(data)
    centre = packing.pack(MetricParameters())
    objective = _Objective(data, packing, centre)

    def expected(point: np.ndarray) -> float:
        p = packing.unpack(point)
        covariance = covariance_matrix(p.aligned(data.sources, data.checkpoints.ids), data)
        prior = 0.5 * (((point - centre) / packing.spread()) ** 2).sum()
        return -multivariate_normal.logpdf(data.y, np.zeros(len(data.y)), covariance) + prior

    first = packing.off_zero(centre)
    other = first + np.random.default_rng(2).normal(0, 0.2, len(first))
    assert objective(first)[0] - objective(other)[0] == pytest.approx(expected(first) - expected(other), rel=1e-8)


def test_learning_is_deterministic_and_descends() -> None:
    data = small()
    first, report = fit_parameters(data, max_iterations=15)
    assert report["objective_after"] < report["objective_before"]
    assert {name: report[name] for name in ("n_scores", "n_tasks", "n_checkpoints")} == {
        "n_scores": len(data.y),
        "n_tasks": len(np.unique(data.task)),
        "n_checkpoints": 4,
    }
    assert fit_parameters(data, max_iterations=15)[0] == first
    assert first.slopes[REFERENCE_SOURCE] == 1.0  # it defines the unit
    assert first.slopes[observed.PUBLISHED] != 1.0
    assert set(first.lengths) == set(TASK_DESCRIPTORS)
    assert all(0.0 < getattr(first, name) < 1.0 for name in SHARES)
    again, later = fit_parameters(data, first, max_iterations=5)
    assert later["objective_before"] == pytest.approx(report["objective_after"], rel=1e-9)
    assert later["objective_after"] <= later["objective_before"]
    assert again.factors


def test_it_finds_that_the_task_decides() -> None:
    """All checkpoints are equally good on average, so no task-blind rule can do better than a guess."""
    data, queries = opposed()
    parameters, _ = fit_parameters(data)
    trained, static = RankingMetric(parameters, observed.space(), data), Static(observed.space(), data)
    for i in range(4):
        query = replace(queries.take(np.array([i])), names=("query",))
        good = np.arange(8) % 2 == i % 2
        mean = trained.predict_features(query, data.checkpoints).mean
        assert mean[good].min() > mean[~good].max() + 0.5
    assert np.abs(static.predict_features(query, data.checkpoints).mean).max() < 0.1


def test_without_scores() -> None:
    data = small()
    with pytest.raises(MetricError, match="no scores to learn the metric from"):
        fit_parameters(data.rows(np.zeros(len(data.y), dtype=bool)))


def test_factors_are_found_where_there_are_scores_for_them() -> None:
    for rank in (0, 1, 4):
        found, _ = fit_parameters(small(), MetricParameters(), max_iterations=2, rank=rank)
        assert {len(row) for row in found.factors.values()} == ({rank} if rank else set())
        assert all(np.any(row) for row in found.factors.values())
    few = observed.observations(observed.tasks(6), observed.checkpoints(4))
    assert fit_parameters(few, max_iterations=2)[0].factors == {}
