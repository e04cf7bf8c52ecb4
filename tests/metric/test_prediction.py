"""What accuracies measured on a task make of a prediction; see also tests/metric/test_metric.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from hf_task2vec.metric.prediction import SHARED_ERROR, Prediction
from hf_task2vec.probes.scores import Score
from hf_task2vec.selection.ranking import HALF_WIDTH_80


class Known:
    """Stands for a posterior whose covariance is given."""

    def __init__(self, covariance: Any) -> None:
        self.matrix = np.array(covariance)

    def covariance(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return self.matrix[np.ix_(rows, columns)]

    def variance(self, rows: np.ndarray) -> np.ndarray:
        return np.diag(self.matrix)[rows]


def predicted(mean: list[float], covariance: Any, noise: float = 0.0) -> Prediction:
    ids = tuple("abcdef"[: len(mean)])
    return Prediction(ids, np.array(mean), np.zeros(len(mean)), 1.0, noise, Known(covariance))  # type: ignore[arg-type]


def alone(mean: float, sd: float) -> Prediction:
    """A prediction of one candidate."""
    return predicted([mean], [[sd**2]])


def test_one_measurement_by_hand() -> None:
    """15 of 25 right, smoothed 15.5 / 26, where logit ln 4 ± 0.5 was predicted and the level is known."""
    from scipy.optimize import brentq

    share, mean = 15.5 / 26, math.log(4.0)
    n = 25 / (1.0 - SHARED_ERROR)
    mode = brentq(lambda f: n * (share - 1 / (1 + math.exp(-f))) - (f - mean) / 0.25, -5, 5, xtol=1e-14)
    right = 1 / (1 + math.exp(-mode))
    found = alone(mean, 0.5).given({"a": Score.of_share(0.6, 25)}, 1e-12)
    assert found.mean[0] == pytest.approx(mode, rel=1e-9)
    assert found.variance()[0] == pytest.approx(1 / (1 / 0.25 + n * right * (1 - right)), rel=1e-9)


@given(mean=st.floats(-6, 6), sd=st.floats(0.01, 3), right=st.integers(0, 300), n=st.integers(1, 300))
def test_the_result_lies_between(mean: float, sd: float, right: int, n: int) -> None:
    measured = Score.of_share(min(right, n) / n, n)
    found = alone(mean, sd).given({"a": measured}, 1e-9)
    logit = math.log(measured.smoothed / (1 - measured.smoothed))
    assert min(mean, logit) - 1e-6 <= found.mean[0] <= max(mean, logit) + 1e-6
    assert found.variance()[0] <= sd**2 * (1 + 1e-6) + 1e-9


def test_one_measurement_of_an_unknown_level_moves_no_other() -> None:
    """A hard task must not look like a weakness of the one checkpoint that was measured on it."""
    covariance = np.array([[0.3, 0.2], [0.2, 0.3]])
    before = predicted([2.0, 1.9], covariance, 0.01)
    after = before.given({"a": Score.of_share(0.2, 200)})
    assert after.mean[0] == pytest.approx(math.log(0.25), abs=0.05)
    assert after.mean[0] - after.mean[1] == pytest.approx(0.1, abs=2e-3)


def test_variance_of_a_difference() -> None:
    """Against the joint Gaussian of level, two results and one measurement of the first."""
    covariance = np.array([[0.3, 0.2], [0.2, 0.4]])
    before = predicted([0.0, 0.0], covariance, 0.05)
    assert before.variance_of_difference(0, 1) == pytest.approx(0.35 + 0.45 - 0.4)
    after = before.given({"a": Score.of_share(0.5, 100)}, 2.0)
    joint = covariance + 0.05 * np.eye(2) + 2.0
    error = 4.0 / (100 / (1.0 - SHARED_ERROR))  # the mode is at 0: half right where half was predicted
    joint = joint - np.outer(joint[:, 0], joint[0]) / (joint[0, 0] + error)
    assert after.variance_of_difference(0, 1) == pytest.approx(joint[0, 0] + joint[1, 1] - 2 * joint[0, 1])
    assert after.variance_of_difference(1, 0) == after.variance_of_difference(0, 1)
    np.testing.assert_allclose(after.variance(), np.diag(joint))


def test_a_surprise_counts() -> None:
    """Nothing right of 48 where 97 % were predicted: the variance at the measured share would make little of it."""
    found = alone(3.5, 0.4).given({"a": Score.of_share(0.0, 48)}, 1e-9)
    assert expit(found.mean[0]) < 0.6
    few, many = (expit(alone(3.5, 0.4).given({"a": Score.of_share(0.5, n)}, 1e-9).mean[0]) for n in (16, 1024))
    assert 0.5 < many < few < 0.97


def test_half_width() -> None:
    from scipy.stats import norm

    assert pytest.approx(norm.ppf(0.9), abs=1e-4) == HALF_WIDTH_80
