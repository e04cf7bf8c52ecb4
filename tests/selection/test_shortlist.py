"""What to try: the set whose best is expected to be best, judged by brute force."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_task2vec.errors import SelectionError
from hf_task2vec.selection.ranking import Ranking
from hf_task2vec.selection.shortlist import Contenders
from tests.selection.test_ranking import UNKNOWN, candidate, ranking_of


def contenders(mean: Any, covariance: Any, **changes: Any) -> Contenders:
    """Return contenders of known size, each of a family of its own."""
    n = len(mean)
    facts: dict[str, Any] = {
        "position": np.arange(n),
        "mean": np.asarray(mean, dtype=np.float64),
        "covariance": np.asarray(covariance, dtype=np.float64),
        "size": np.full(n, 1e8),
        "known": np.ones(n, dtype=bool),
        "family": np.arange(n),
        "twin": np.arange(n),
        "away": np.zeros(n, dtype=bool),
    }
    facts |= {name: np.asarray(value) for name, value in changes.items()}
    return Contenders(**{"probing": (facts["covariance"], facts["covariance"]), **facts})


def expected_maximum(near: Contenders, chosen: Any) -> float:
    """By plain Monte Carlo, with other draws than the code's."""
    at = list(chosen)
    draws = np.random.default_rng(7).multivariate_normal(near.mean[at], near.covariance[np.ix_(at, at)], 200_000)
    return float(draws.max(axis=1).mean())


@st.composite
def posteriors(draw: st.DrawFn) -> Contenders:
    n = draw(st.integers(6, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    root = rng.normal(size=(n, draw(st.integers(1, n))))
    families = rng.integers(0, draw(st.integers(1, n)), n)
    mean = np.sort(rng.normal(scale=draw(st.floats(0.01, 3.0)), size=n))[::-1]
    twin = np.where(rng.random(n) < 0.3, families, n + np.arange(n))
    size = 10.0 ** rng.uniform(6, 9, n)
    return contenders(mean, root @ root.T + 1e-3 * np.eye(n), family=families, twin=twin, size=size)


@given(posteriors(), st.integers(1, 5))
def test_it_is_expected_to_hold_no_worse_a_best_than_the_first_k(near: Contenders, k: int) -> None:
    chosen = near.choose(k)
    apart = [i for i in range(len(near)) if not near.alike[i, :i].any()][:k]  # siblings count once
    scale = float(np.sqrt(np.diag(near.covariance)).max())
    least = min(expected_maximum(near, apart), expected_maximum(near, range(k)))
    assert expected_maximum(near, chosen) >= least - 0.03 * scale
    assert chosen[0] == 0
    assert len(set(near.twin[chosen].tolist())) == len(chosen) <= k
    assert not any(near.alike[i, j] for i, j in combinations(chosen, 2))


def test_the_set_is_nearly_the_best_that_there_is() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        root = rng.normal(size=(8, 3))
        near = contenders(np.sort(rng.normal(scale=0.5, size=8))[::-1], root @ root.T + 0.05 * np.eye(8))
        best = max(near.expected_maximum((0, *rest)) for rest in combinations(range(1, 8), 2))
        greedy = [0, added := near.next([0]), near.next([0, added])]  # type: ignore[list-item]
        assert near.expected_maximum(greedy) >= near.mean[0] + 0.9 * (best - near.mean[0])


def test_the_expected_maximum_of_two_is_clarks() -> None:
    """Clark 1961, equation 2: of two normal variables in closed form."""
    from scipy.stats import norm

    near = contenders([0.3, 0.0], [[1.0, 0.4], [0.4, 2.0]])
    a = np.sqrt(1.0 + 2.0 - 2 * 0.4)
    clark = 0.3 * norm.cdf(0.3 / a) + a * norm.pdf(0.3 / a)
    assert near.expected_maximum([0, 1]) == pytest.approx(clark, abs=0.05)


def test_of_two_clusters_both_are_tried() -> None:
    """Five go together and are a little better; the other three go together too."""
    clusters = np.array([0] * 5 + [1] * 3)
    covariance = 1.0 * (clusters[:, None] == clusters) + 0.01 * np.eye(8)
    near = contenders(np.linspace(0.1, 0.0, 8), covariance)
    assert set(clusters[near.choose(2)]) == {0, 1}


def test_siblings_that_are_the_same_count_once_and_others_do_not() -> None:
    siblings = np.array([0, 0, 0, 1])
    together = 0.02 * (siblings[:, None] == siblings) + 0.005 * np.eye(4)
    assert contenders([1.0, 0.99, 0.98, 0.97], together, family=siblings).choose(2) == [0, 3]
    far_apart = contenders([1.0, 0.2, -3.0], 0.01 * np.eye(3), family=[0, 0, 0])
    assert far_apart.choose(3) == [0, 1, 2]
    assert far_apart.folded() == [(0, 0), (1, 0), (2, 0)]
    assert contenders([1.0, 0.99, 0.98], 0.01 * np.eye(3), family=[0, 1, 0]).folded() == [(0, 1), (1, 0)]


def test_twins_are_never_both_tried() -> None:
    near = contenders([1.0, -3.0, 0.2], np.eye(3), family=[0, 0, 1], twin=[0, 0, 1])
    assert near.choose(3) == [0, 2]


def test_the_smaller_of_those_that_add_as_much_is_taken() -> None:
    """The second fails with the first, so there is something to spare."""
    covariance = np.eye(4)
    covariance[0, 1] = covariance[1, 0] = 0.9
    near = contenders([0.5, 0.4, 0.4, 0.4], covariance, size=[9e7, 9e7, 8e7, 5e7])
    assert near.choose(2) == [0, 3]


def test_one_is_much_smaller() -> None:
    size = [1e9, 9e8, 9e8, 9e8, 2e7]
    assert contenders([0.5, 0.49, 0.48, 0.47, 0.46], np.eye(5), size=size).choose(3)[-1] == 4
    assert 4 not in contenders([0.5, 0.49, 0.48, 0.47, -9.0], np.eye(5), size=size).choose(3)  # too much worse


def test_encoders_of_another_domain_are_not_tried() -> None:
    near = contenders([0.5, 0.4, 0.3], np.diag([0.1, 9.0, 0.1]), away=[False, True, False])
    assert near.choose(3) == [0, 2]


def test_in_a_budget_the_known_leads_where_it_is_as_good() -> None:
    near = contenders(
        [0.9, 0.5, 0.45, 0.0], 0.01 * np.eye(4), size=[1e9, 5e7, 5e7, 5e7], known=[True, False, True, True]
    )
    assert near.best(near.size <= 1e8) == 2
    assert near.best(np.array([False, True, False, True])) == 1
    assert near.best(near.size <= 1e6) is None


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_linear_probes_tell_as_much_as_they_go_together_with_fine_tuning(share: float) -> None:
    """By plain Monte Carlo: draw both, condition on the frozen results, and take what is best then."""
    rng = np.random.default_rng(3)
    root = rng.normal(size=(4, 4))
    tuned, mean = 0.1 * root @ root.T, np.array([0.5, 0.3, 0.2, -2.0])
    near = dataclasses.replace(contenders(mean, tuned), probing=(share * tuned, tuned))
    chosen = [0, 1, 2]
    some = np.ix_(chosen, chosen)
    frozen = rng.multivariate_normal(np.zeros(3), tuned[some], 100_000)
    after = mean[chosen] + frozen @ np.linalg.solve(tuned[some], share * tuned[some])
    assert near.after_probing(chosen) == pytest.approx(after.max(axis=1).mean(), abs=0.03)
    assert near.after_probing(chosen) <= near.expected_maximum(chosen) + 0.06


# ---------------------------------------------------------------------- of a ranking


def test_without_a_posterior_each_goes_by_itself() -> None:
    near = {"score": 0.8, "std": 0.05}
    ranking = ranking_of(candidate(1, **near), candidate(2, **{**near, "score": 0.79}), candidate(3, **UNKNOWN))
    assert [pick.candidate.rank for pick in ranking.shortlist(2)] == [1, 2]
    assert ranking.promised(1) == pytest.approx(0.0, abs=1e-6)
    assert 1.0 < ranking.promised(2) < 5.0
    with pytest.raises(SelectionError, match="k=0 must be at least 1"):
        ranking.shortlist(0)


@pytest.fixture
def sizes() -> Ranking:
    facts = [("big", 0.9, 300.0), ("mid", 0.88, 90.0), ("small", 0.85, 25.0), ("tiny", 0.6, 5.0)]
    rows = [
        candidate(i + 1, hub_id=f"org/{name}", score=score, std=0.01, params_m=params)
        for i, (name, score, params) in enumerate(facts)
    ]
    return ranking_of(*rows)


def test_what_each_step_down_costs(sizes: Ranking) -> None:
    assert [(b.name, b.candidate.hub_id) for b in sizes.budgets] == [
        ("any size", "org/big"),
        ("≤ 100M", "org/mid"),
        ("≤ 30M", "org/small"),
        ("≤ 10M", "org/tiny"),
    ]
    half = 1.2816 * 100 * np.hypot(0.01, 0.01)
    first, second, *_ = sizes.budgets
    assert (first.lower, first.cost) == (0.0, "")
    assert (second.lower, second.low, second.high) == pytest.approx((2.0, 2.0 - half, 2.0 + half))
    assert second.cost == "2.0 (0.2 to 3.8)"


def test_budgets_that_the_limits_leave() -> None:
    few = ranking_of(candidate(1, params_m=25.0), candidate(2, params_m=8.0))
    assert [b.max_params for b in few.budgets] == [None, 10e6]


def test_reasons() -> None:
    rows = [
        candidate(1, hub_id="org/first", score=0.90, std=0.2, params_m=300.0, domain="general"),
        candidate(2, hub_id="org/slides", score=0.89, std=0.2, params_m=300.0, domain="histology"),
        candidate(3, hub_id="org/small", score=0.885, std=0.2, params_m=25.0, domain="general"),
        candidate(4, hub_id="org/other", score=0.88, std=0.2, params_m=280.0, objective="image-text", family="vit"),
    ]
    picks = ranking_of(*rows).shortlist()
    assert {pick.candidate.hub_id: pick.reason for pick in picks} == {
        "org/first": "best overall",
        "org/slides": "encoder for histology",
        "org/small": "smallest within 2 points, 1.5 points lower",
        "org/other": "another kind: image-text vit",
    }
