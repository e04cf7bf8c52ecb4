"""The measures of a ranking: by hand, and what must hold whatever the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import weightedtau

from hf_task2vec.errors import EvaluationError
from hf_task2vec.measures import (
    accuracy_of_pick,
    regret_at_k,
    relative_accuracy,
    relative_error_increase,
    weighted_kendall_tau,
)


def test_measures_by_hand() -> None:
    predicted, obtained = [0.9, 0.8, 0.7, 0.1], [0.6, 0.9, 0.5, 0.95]
    assert accuracy_of_pick(predicted, obtained) == 0.6
    assert regret_at_k(predicted, obtained) == pytest.approx(0.35)
    assert regret_at_k(predicted, obtained, 2) == pytest.approx(0.05)
    assert regret_at_k(predicted, obtained, 3) == pytest.approx(0.05)
    assert regret_at_k(predicted, obtained, 4) == regret_at_k(predicted, obtained, 9) == 0.0
    assert relative_accuracy(predicted, obtained) == pytest.approx(0.6 / 0.95)
    assert weighted_kendall_tau(predicted, obtained) == pytest.approx(weightedtau(obtained, predicted).statistic)
    assert relative_error_increase([0.6, 0.9], [0.8, 0.9]) == pytest.approx(0.25 / 0.15 - 1)


def test_ties_are_broken_in_all_ways() -> None:
    """One sure, two of three tied ones drawn: (0.5 and 0.7), (0.5 and 0.9), (0.7 and 0.9), each with the sure 0.6."""
    predicted, obtained = [2.0, 1.0, 1.0, 1.0, 0.0], [0.6, 0.5, 0.7, 0.9, 1.0]
    assert regret_at_k(predicted, obtained, 3) == pytest.approx(1.0 - (0.7 + 0.9 + 0.9) / 3)
    assert regret_at_k(predicted, obtained, 2) == pytest.approx(1.0 - (0.6 + 0.7 + 0.9) / 3)
    assert accuracy_of_pick([1.0, 1.0, 0.0], [0.2, 0.4, 1.0]) == pytest.approx(0.3)
    assert regret_at_k([1.0, 1.0, 0.0], [0.2, 0.4, 1.0], 1) == pytest.approx(0.7)


_scores = st.integers(2, 8).flatmap(
    lambda n: st.tuples(arrays(np.float64, n, elements=st.integers(0, 4)), arrays(np.float64, n, elements=UNIT))
)
UNIT = st.integers(0, 20).map(lambda i: i / 20)


@given(both=_scores, k=st.integers(1, 9), seed=st.integers(0, 99))
def test_regret(both: tuple[np.ndarray, np.ndarray], k: int, seed: int) -> None:
    predicted, obtained = both
    found = regret_at_k(predicted, obtained, k)
    assert -1e-12 <= found <= np.ptp(obtained) + 1e-12
    assert regret_at_k(predicted, obtained, k + 1) <= found + 1e-12  # more choice is never worse, whatever the ties
    assert regret_at_k(obtained, obtained, k) == pytest.approx(0.0)
    order = np.random.default_rng(seed).permutation(len(predicted))
    assert regret_at_k(predicted[order], obtained[order], k) == pytest.approx(found)
    assert regret_at_k(3.0 * predicted - 7.0, obtained, k) == pytest.approx(found)
    assert regret_at_k(predicted, obtained) == pytest.approx(obtained.max() - accuracy_of_pick(predicted, obtained))
    drawn = [_drawn_regret(predicted, obtained, k, np.random.default_rng(i)) for i in range(200)]
    assert found == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 200**0.5 + 1e-9)


def _drawn_regret(predicted: np.ndarray, obtained: np.ndarray, k: int, rng: np.random.Generator) -> float:
    order = np.lexsort((rng.random(len(predicted)), -predicted))
    return float(obtained.max() - obtained[order[:k]].max())


@given(_scores)
def test_tau_and_rel(both: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, obtained = both
    tau = weighted_kendall_tau(predicted, obtained)
    assert -1.0 - 1e-9 <= tau <= 1.0 + 1e-9
    assert weighted_kendall_tau(2.0 * predicted + 1.0, obtained) == pytest.approx(tau)
    assert weighted_kendall_tau(np.zeros(len(obtained)), obtained) == 0.0
    if len(set(obtained)) == len(obtained):
        assert weighted_kendall_tau(obtained, obtained) == pytest.approx(1.0)
        assert weighted_kendall_tau(-obtained, obtained) == pytest.approx(-1.0)
    assume(obtained.max() > 0)
    assert 0.0 <= relative_accuracy(predicted, obtained) <= 1.0 + 1e-12
    assert relative_accuracy(obtained, obtained) == pytest.approx(1.0)


@given(st.lists(st.tuples(UNIT, UNIT), min_size=1, max_size=6))
def test_error_increase(pairs: list[tuple[float, float]]) -> None:
    picked, best = [min(pair) for pair in pairs], [max(pair) for pair in pairs]
    found = relative_error_increase(picked, best)
    assert found >= -1e-12
    assert (found == pytest.approx(0.0)) == (sum(picked) == pytest.approx(sum(best)))
    assert relative_error_increase(best, best) == 0.0
    if min(best) == 1.0:
        assert found == (0.0 if min(picked) == 1.0 else np.inf)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: regret_at_k([1.0], [1.0, 2.0]), r"shape \(1,\) and obtained scores of shape \(2,\): give one of each"),
        (lambda: accuracy_of_pick([], []), r"shape \(0,\)"),
        (lambda: weighted_kendall_tau([[1.0]], [[1.0]]), r"shape \(1, 1\)"),
        (lambda: regret_at_k([np.nan], [1.0]), "must be finite; leave out the checkpoints without a score"),
        (lambda: regret_at_k([1.0], [np.inf]), "must be finite"),
        (lambda: regret_at_k([1.0], [1.0], 0), "k=0: give at least 1"),
        (lambda: relative_accuracy([1.0], [0.0]), r"the best obtained score is 0\.0; a relative accuracy needs a pos"),
        (lambda: relative_error_increase([90.0], [95.0]), r"must lie in \[0, 1\]; divide percentages by 100"),
    ],
)
def test_scores_that_do_not_fit(call: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        call()
