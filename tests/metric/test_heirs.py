"""Checkpoints that inherit from others: the joint distribution, by brute force, and the gain of fine-tuning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hf_task2vec.metric.experts import EXPERT_GAIN, Gain
from hf_task2vec.metric.observations import PROTOCOLS
from hf_task2vec.metric.prediction import Heirs, Prediction
from hf_task2vec.probes.scores import Score
from tests.metric.test_metric import Known, world

ROWS = np.arange(6)
#: Six checkpoints of a world of eight: three with evidence of their own, and heirs of one of them and of a fourth.
HEIRS = Heirs(
    ids=("checkpoint5", "tuned-a", "checkpoint3", "tuned-b", "tuned-c", "checkpoint4"),
    base=np.array([2, 2, 0, 2, 6, 1]),
    gain=np.array([0.0, 0.3, 0.0, -0.4, 0.1, 0.0]),
    variance=np.array([0.0, 0.04, 0.0, 0.09, 0.01, 0.0]),
)


def by_hand(of_bases: Prediction) -> Prediction:
    """The results of the heirs as a linear map of those of the bases, and independent gains."""
    spread = np.eye(len(of_bases.ids))[HEIRS.base]
    covariance = spread @ of_bases.covariance(np.arange(len(of_bases.ids))) @ spread.T + np.diag(HEIRS.variance)
    mean = spread @ of_bases.mean + HEIRS.gain
    return Prediction(HEIRS.ids, mean, np.zeros(len(ROWS)), 1.0, 0.0, Known(covariance))  # type: ignore[arg-type]


def same(found: Prediction, expected: Prediction) -> None:
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-8)
    np.testing.assert_allclose(found.covariance(ROWS), expected.covariance(ROWS), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.variance(), np.diag(expected.covariance(ROWS)), rtol=1e-7)
    mixed = np.array([4, 1, 3])
    np.testing.assert_allclose(found.variance(mixed), found.variance()[mixed], rtol=1e-9)
    differences = [expected.variance_of_differences(1, mixed), found.variance_of_differences(1, mixed)]
    np.testing.assert_allclose(*differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_heirs_against_the_joint_gaussian(protocol: str) -> None:
    metric, task, candidates = world()
    of_bases = metric.predict_features(task, candidates, None, protocol)
    found = metric.predict_features(task, candidates, None, protocol, HEIRS)
    assert found.ids == HEIRS.ids
    same(found, by_hand(of_bases))
    # An heir and its base differ by the gain alone: they fail together.
    assert found.variance_of_differences(0, np.array([1]))[0] == pytest.approx(0.04, rel=1e-6)


@pytest.mark.parametrize("name", ["checkpoint5", "tuned-a", "tuned-c"])
def test_measurements_of_a_base_or_an_heir_tell_of_the_other(name: str) -> None:
    metric, task, candidates = world()
    measured = {name: Score.of_share(0.7, 200), "checkpoint4": Score.of_share(0.6, 100)}
    found = metric.predict_features(task, candidates, measured, "linear-probe", HEIRS)
    same(found, by_hand(metric.predict_features(task, candidates)).given(measured))


def test_probes_of_heirs_count_for_fine_tuning() -> None:
    metric, task, candidates = world()
    probes = {name: Score.of_share(0.6, 500) for name in ("checkpoint5", "checkpoint4")}
    surprise = {"tuned-a": Score.of_share(0.9, 500)}
    before, after = (
        metric.predict_features(task, candidates, measured, "fine-tune", HEIRS)
        for measured in (probes, probes | surprise)
    )
    assert after.mean[1] - after.mean[2] > before.mean[1] - before.mean[2]


def test_the_line_is_found_and_no_far_expert_gains() -> None:
    rng = np.random.default_rng(0)
    nearness, of_base = rng.uniform(0.3, 1.0, (2, 2000))
    gain = -0.1 + 0.5 * (nearness - of_base) + rng.normal(0, 0.2, 2000)
    line = Gain.fit(nearness, of_base, gain, near=0.75)
    assert (line.intercept, line.slope, line.deviation) == pytest.approx((-0.1, 0.5, 0.2), abs=0.03)
    assert line.usual == pytest.approx(0.65, abs=0.02)
    exact = replace(line, intercept=-0.1, slope=0.5, usual=0.6)
    assert exact.expected(0.9, 0.5) == pytest.approx(0.1)
    assert exact.expected(0.9) == pytest.approx(0.05)
    assert exact.expected(0.7, 0.1) == 0.0, "the base is farther still, but that makes no expert"
    assert exact.expected(0.4, 0.5) == pytest.approx(-0.15)


def test_what_is_shipped_costs_far_away_and_gains_nearby() -> None:
    assert EXPERT_GAIN.expected(0.95) > 0.0 > EXPERT_GAIN.expected(EXPERT_GAIN.usual) > EXPERT_GAIN.expected(0.3)
