"""Learning the metric: the objective and its gradient are right, the result is deterministic, better than the start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from hf_task2vec.errors import MetricError
from hf_task2vec.metric import training
from hf_task2vec.metric.covariance import CHECKPOINT_KERNELS, SHARED_WITH, Level, MetricParameters
from hf_task2vec.metric.observations import CHECKPOINT_FACTS, REFERENCE_SOURCE, Observations
from hf_task2vec.metric.ranking_metric import FINE_TUNE, LINEAR_PROBE, RankingMetric
from hf_task2vec.metric.static import Static
from hf_task2vec.metric.task_space import KINDS, TASK_DESCRIPTORS, TaskFeatures
from hf_task2vec.metric.training import _Objective, calibrate, fit_parameters
from hf_task2vec.zoo import ZooIndex
from tests.support import observed


@pytest.fixture
def few_scores_lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints with ten scores on embedded tasks have loadings."""
    monkeypatch.setattr(training, "_LOADING_SCORES", 10)


def small() -> Observations:
    """12 tasks and five checkpoints, two sources."""
    return observed.observations(observed.tasks(12, unknown=1), observed.checkpoints(5), share=0.95)


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
    scored = replace(
        observed.checkpoints(8, seed),
        numbers=np.zeros((8, len(CHECKPOINT_FACTS))),
        family=np.zeros(8, dtype=np.int64),
        home=np.zeros((8, len(KINDS))),
    )
    known = observed.observations(features.take(np.arange(24)), scored, y=y[:24])
    return replace(known, source=np.zeros_like(known.source)), features.take(np.arange(24, 28))


def elsewhere(objective: _Objective, start: MetricParameters) -> np.ndarray:
    centre = objective.pack(start)
    return centre + np.random.default_rng(1).normal(0.0, 0.2, len(centre))


@pytest.mark.usefixtures("few_scores_lean")
def test_gradient() -> None:
    data, start = small(), observed.parameters()
    objective, rows = _Objective(data, start), np.flatnonzero(data.group != 3)
    point, step = elsewhere(objective, start), 1e-5

    def value(x: np.ndarray) -> float:
        return float(objective(torch.tensor(x), rows))

    x = torch.tensor(point, requires_grad=True)
    objective(x, rows).backward()
    assert x.grad is not None
    assert np.abs(x.grad.numpy()).min() > 1e-9  # no entry is without effect
    numeric = [(value(point + step * e) - value(point - step * e)) / (2 * step) for e in np.eye(len(point))]
    np.testing.assert_allclose(x.grad.numpy(), numeric, rtol=1e-4, atol=1e-8)


@pytest.mark.usefixtures("few_scores_lean")
def test_objective_is_the_negative_log_likelihood() -> None:
    """By scipy's normal density, of the covariance that the metric itself has; scales of groups stay."""
    data, start = small(), observed.parameters()
    objective = _Objective(data, start)
    point, n = elsewhere(objective, start), len(data.y)
    metric = RankingMetric(objective.unpack(point), observed.space(), data)
    metric.__dict__["scale"] = RankingMetric(start, observed.space(), data).scale
    expected = -multivariate_normal.logpdf(metric.y, np.zeros(n), metric.covariance()) / n - 0.5 * np.log(2 * np.pi)
    assert float(objective(torch.tensor(point), np.arange(n))) == pytest.approx(expected, rel=1e-8)


def test_no_laboratory_outweighs_the_others() -> None:
    """However many groups and scores one has, a step looks at four groups of it, and at 25 scores of each."""
    data = observed.observations(observed.tasks(30), observed.checkpoints(40), share=1.0)
    objective = _Objective(data, MetricParameters())
    drawn = objective.draw(np.random.default_rng(0), 10_000, embedded=False)
    assert len(np.unique(drawn)) == len(drawn)
    assert np.unique(data.source[drawn], return_counts=True)[1].tolist() == [100, 100]  # of 800 and 400
    assert np.unique(data.group[drawn], return_counts=True)[1].tolist() == [25] * 8
    embedded = objective.draw(np.random.default_rng(0), 10_000, embedded=True)
    assert len(embedded) == len(data.y)
    assert len(objective.draw(np.random.default_rng(0), 60, embedded=False)) == 75  # whole groups


@pytest.mark.usefixtures("few_scores_lean")
def test_learning_is_deterministic_and_descends() -> None:
    data, start = (
        small(),
        MetricParameters(spreads={FINE_TUNE: 1.3}, scales={FINE_TUNE: 0.5}, levels={FINE_TUNE: Level()}),
    )
    first, report = fit_parameters(data, start, steps=20, scores=30)
    assert report["objective_after"] < report["objective_before"]
    assert {name: report[name] for name in ("n_scores", "n_tasks", "n_checkpoints")} == {
        "n_scores": len(data.y),
        "n_tasks": 12,
        "n_checkpoints": 5,
    }
    assert fit_parameters(data, start, steps=20, scores=30)[0] == first
    assert set(first.variances) == set(CHECKPOINT_KERNELS)
    assert {tuple(row) for row in first.variances.values()} == {SHARED_WITH}
    assert (set(first.lengths), set(first.noises)) == (set(TASK_DESCRIPTORS), set(data.sources))
    for name in ("spreads", "scales", "levels", "length_facts"):
        assert getattr(first, name) == getattr(start, name)  # these are not learned here
    assert MetricParameters.from_json(first.to_json(report)) == first


def test_it_finds_that_the_task_decides() -> None:
    """All checkpoints are equally good on average, so no task-blind rule can do better than a guess."""
    data, queries = opposed()
    parameters, _ = fit_parameters(data, steps=40)
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


def planted(n_tasks: int) -> RankingMetric:
    """Tasks that were measured and fine-tuned on: twice as wide apart, and half as hard, but for an intercept of 2.

    Each group has scores of others of the checkpoints, so that means of groups mislead.
    """
    rng = np.random.default_rng(0)
    n = 40
    standing = rng.normal(size=n)
    standing = (standing - standing.mean()) / standing.std()
    level = rng.normal(0.0, 1.0, n_tasks)
    known, scored = observed.tasks(n_tasks), observed.checkpoints(n)
    known = replace(known, kinds=np.zeros_like(known.kinds))
    group, checkpoint = np.nonzero(rng.random((2 * n_tasks, n)) < 0.7)
    task, source = group % n_tasks, group // n_tasks
    y = np.where(source == 0, level[task], 2.0 + 0.5 * level[task])
    y = y + np.array([0.3, 0.6])[source] * (standing[checkpoint] + rng.normal(0.0, 0.1, len(group)))
    data = observed.observations(known, scored)
    changes = {"task": task, "checkpoint": checkpoint, "group": group, "source": source, "y": y, "score": y}
    data = replace(data, **changes, error=np.zeros(len(y)), part=np.zeros(len(y), dtype=bool))
    noises = dict.fromkeys((REFERENCE_SOURCE, observed.PUBLISHED), 0.01)
    parameters = MetricParameters(variances={"own": {"all": 1.0}}, noises=noises, match=1e-3)
    return RankingMetric(parameters, observed.space(), data)


def test_calibration_finds_scales_and_the_line_between_levels() -> None:
    metric = planted(12)
    found = calibrate(metric)
    assert found.scales == pytest.approx({LINEAR_PROBE: 0.3, FINE_TUNE: 0.6}, rel=0.1)
    line = found.levels[FINE_TUNE]
    assert (line.intercept, line.slope) == pytest.approx((2.0, 0.5), abs=0.05)
    assert line.deviation < 0.1
    assert replace(found, scales={}, levels={}) == metric.parameters


def test_calibration_of_what_is_left() -> None:
    metric = planted(12)
    line = calibrate(replace(metric, data=metric.data.rows(metric.data.task != 5))).levels[FINE_TUNE]
    assert (line.intercept, line.slope) == pytest.approx((2.0, 0.5), abs=0.05)


def test_parts_of_a_benchmark_say_nothing_of_levels() -> None:
    metric = planted(12)
    part = np.isin(metric.data.task, (2, 7))
    tuned = metric.data.source == 1
    harder = replace(metric.data, y=metric.data.y - 4.0 * (part & tuned), part=part)
    line = calibrate(replace(metric, data=harder)).levels[FINE_TUNE]
    assert (line.intercept, line.slope) == pytest.approx((2.0, 0.5), abs=0.05)
    assert line.deviation < 0.1


def test_what_is_a_part_of_a_benchmark() -> None:
    data = RankingMetric.from_index(ZooIndex.load()).data
    named = {data.tasks.names[t]: data.part[data.task == t].any() for t in np.unique(data.task)}
    assert named["dtd_10"]  # of 47 textures
    assert named["sun_scenes8"]
    assert not named["flowers102"]
    assert not named["cifar10"]


def test_a_line_needs_tasks() -> None:
    found = calibrate(planted(4))
    assert set(found.scales) == {LINEAR_PROBE, FINE_TUNE}
    assert found.levels == {}
