"""Judging rankings: what is held out, and the table that comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kendalltau, weightedtau

from hf_task2vec.errors import EvaluationError
from hf_task2vec.metric.evaluation import (
    Case,
    accuracy_of_pick,
    always,
    bootstrap_interval,
    cold_start,
    evaluate_metric,
    inverse_covariance,
    judge,
    leave_one_out_cases,
    near_duplicates,
    predict_without,
    regret_at_k,
    relative_error_increase,
    summarise,
    weighted_kendall_tau,
    without,
)
from hf_task2vec.metric.observations import REFERENCE_SOURCE, CheckpointFeatures
from hf_task2vec.metric.ranking_metric import LEVEL, RankingMetric, evidence
from hf_task2vec.metric.static import Static
from hf_task2vec.metric.task_space import TaskFeatures
from tests.support import observed
from tests.support.synthetic import CHECKPOINTS, REFERENCES, measured_zoo, records

# ---------------------------------------------------------------------- cases


def test_leave_one_out_cases() -> None:
    index = measured_zoo(task1="twins", task3="twins")
    _, data = evidence(index)
    cases = leave_one_out_cases(index, data)
    assert [case.name for case in cases] == list(REFERENCES)
    held_out = {case.name: set(case.held_out) for case in cases}
    twins = {"task1", "task3"}
    assert held_out == {"task0": {"task0"}, "task1": twins, "task2": {"task2"}, "task3": twins}
    assert near_duplicates(index) == {"task0": "task0", "task1": "twins", "task2": "task2", "task3": "twins"}
    recorded = index.scores[index.scores["source"] == "hf_task2vec_measured"].set_index(["task", "checkpoint"])["score"]
    for case in cases:
        assert case.task.names == (f"query:{case.name}",)
        assert set(case.candidates.ids) == set(CHECKPOINTS) - ({"org/huge"} if case.name == "task0" else set())
        assert [recorded[case.name, name] for name in case.candidates.ids] == case.obtained.tolist()
        part = case.take(np.array([2, 0]))
        assert part.candidates.ids == (case.candidates.ids[2], case.candidates.ids[0])
        assert part.obtained.tolist() == case.obtained[[2, 0]].tolist()


def test_cases_of_other_sources_and_of_few_scores() -> None:
    index = measured_zoo()
    _, data = evidence(index)
    assert len(leave_one_out_cases(index, data, "lab/linear_probe_loo")) == 4
    with pytest.raises(EvaluationError, match=f"no scores of 'lab/none'; it has {REFERENCE_SOURCE}, lab/linear_probe_"):
        leave_one_out_cases(index, data, "lab/none")
    full = len(CHECKPOINTS)
    assert [case.name for case in leave_one_out_cases(index, data, least=full)] == ["task1", "task2", "task3"]
    with pytest.raises(EvaluationError, match=f"no embedded task has scores of {full + 1} checkpoints or more from"):
        leave_one_out_cases(index, data, least=full + 1)


def test_tasks_that_the_probe_has_not_seen_are_no_cases() -> None:
    index = measured_zoo()
    rows = index.tasks[index.tasks["task"] == "task0"].assign(task="unseen", title="unseen")
    scores = index.scores[(index.scores["task"] == "task1")].assign(task="unseen")
    index = index.add_tasks(records(rows)).add_scores(records(scores))
    _, data = evidence(index)
    assert "unseen" in data.tasks.names
    assert {case.name for case in leave_one_out_cases(index, data)} == set(REFERENCES)


@dataclass(frozen=True, eq=False)
class Spy(Static):
    """Notes which tasks' scores it had for each prediction."""

    name = "spy"
    seen: Any = None

    def predict_features(
        self, task: TaskFeatures, candidates: CheckpointFeatures, measured: Any = None, protocol: str = ""
    ) -> Any:
        self.seen.append((task.names[0], {self.data.tasks.names[t] for t in self.data.task}))
        return super().predict_features(task, candidates, measured, protocol)


def test_what_is_held_out_is_not_seen() -> None:
    index = measured_zoo(task1="twins", task3="twins")
    space, data = evidence(index)
    spy = Spy(space, data, [])
    predictions = evaluate_metric(spy, leave_one_out_cases(index, data))
    assert spy.seen == [
        ("query:task0", {"task1", "task2", "task3"}),
        ("query:task1", {"task0", "task2"}),
        ("query:task2", {"task0", "task1", "task3"}),
        ("query:task3", {"task0", "task2"}),
    ]
    assert [len(p) for p in predictions] == [len(CHECKPOINTS) - 1, *[len(CHECKPOINTS)] * 3]
    assert len(data.y) == len(spy.data.y)  # the metric itself is as it was
    assert without(spy, ["none"]).data.y.tolist() == data.y.tolist()


def test_a_cached_result_does_not_leak() -> None:
    """The held-out task alone says that the last checkpoint is the best."""
    y = np.zeros((4, 3))
    y[0, 2] = 50.0
    data = observed.observations(observed.tasks(4), observed.checkpoints(3), y=y)
    metric = Static(observed.space(), data)
    query = replace(data.tasks.take(np.array([0])), names=("query:task0",))
    case = Case("task0", query, data.checkpoints, np.ones(3), ("task0",))
    assert metric.predict_features(query, data.checkpoints).mean[2] > 5.0  # and fills the caches
    assert np.abs(evaluate_metric(metric, [case])[0]).max() < 1e-9


# ---------------------------------------------------------------------- scores that a trained metric forgets


def trained() -> RankingMetric:
    """A metric whose scores are of two groups on one of the tasks."""
    data = observed.observations(observed.tasks(7, unknown=1), observed.checkpoints(6), share=0.8)
    return RankingMetric(
        observed.parameters(), observed.space(), replace(data, task=np.where(data.task == 2, 0, data.task))
    )


@pytest.mark.parametrize("by", ["task", "checkpoint", "group"])
def test_predicted_without_a_block_as_if_it_had_never_been(by: str) -> None:
    metric = trained()
    data, covariance, blocks = metric.data, metric.covariance(), getattr(metric.data, by)
    found = predict_without(metric, inverse_covariance(metric), blocks)
    standings = covariance - LEVEL * (data.group[:, None] == data.group)
    for block in np.unique(blocks):
        rows, left = np.flatnonzero(blocks == block), np.flatnonzero(blocks != block)
        weights = np.linalg.solve(covariance[np.ix_(left, left)], metric.y[left])
        np.testing.assert_allclose(found[rows], standings[np.ix_(rows, left)] @ weights, rtol=1e-8, atol=1e-10)


def test_forgetting_tasks_is_solving_without_them() -> None:
    metric, query = trained(), observed.tasks(1, 50, prefix="query")
    found = without(metric, ["task0", "task3"], inverse_covariance(metric))
    again = without(metric, ["task0", "task3"])
    assert isinstance(found, RankingMetric)
    assert isinstance(again, RankingMetric)
    assert set(found.data.task) == {1, 4, 5, 6}
    for one in (found, again):
        one.__dict__["scale"] = metric.scale  # which the inverse knows of, and which stay
    np.testing.assert_allclose(found.weights, again.weights, rtol=1e-8, atol=1e-10)
    candidates = observed.checkpoints(8)
    a, b = (one.predict_features(query, candidates) for one in (found, again))
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-8, atol=1e-10)
    assert not np.allclose(a.mean, metric.predict_features(query, candidates).mean)
    for one in (found, again):  # nor do they tell what kind of images a task holds
        kept = np.isin(one.data.tasks.names, ["task0", "task3"], invert=True)
        np.testing.assert_array_equal(one.data.tasks.kinds, metric.data.tasks.kinds * kept[:, None])


def test_cold_start() -> None:
    """Checkpoints of the made-up index are the better the higher in its list."""
    index = measured_zoo()
    metric = RankingMetric.from_index(index)
    found = cold_start(metric, index, least=5)
    # Loadings are learned from a checkpoint's own scores: a new one has none.
    loadings = {name: (3.0, -2.0 * i) for i, name in enumerate(metric.data.checkpoints.ids)}
    known = replace(metric, parameters=replace(metric.parameters, loadings=loadings))
    assert cold_start(known, index, least=5).equals(found)
    assert set(found["question"]) == {"new checkpoint", "new family", "new laboratory"}
    assert set(found["method"]) == {"trained", "ImageNet accuracy", "parameters", "multiply-adds"}
    assert set(found["protocol"]) == {"linear-probe"}
    one = found[(found["task"] == "task1") & (found["source"] == REFERENCE_SOURCE)]
    # Those larger than a limit are left out, and the one of unknown size.
    assert dict(zip(one["limit"], one["n"], strict=True)) == {np.inf: 7, 100.0: 5, 30.0: 5}
    assert len(one) == 3 * 4 * 3
    expected = {
        np.inf: kendalltau([0.8, 0.88, 0.87, 0.8, 0.8, 0.75, 0.6], np.arange(7, 0, -1)).statistic,
        100.0: kendalltau([0.87, 0.8, 0.8, 0.75, 0.6], np.arange(5, 0, -1)).statistic,
    }
    for limit, tau in expected.items():
        rule = one[(one["method"] == "ImageNet accuracy") & (one["limit"] == limit)]
        assert rule["tau"].tolist() == pytest.approx([tau] * 3)


# ---------------------------------------------------------------------- the table


def made_up_cases(obtained: dict[str, list[float]], first: int = 0) -> list[Case]:
    return [
        Case(name, observed.tasks(1), observed.checkpoints(len(y), first=first), np.array(y))
        for name, y in obtained.items()
    ]


def test_judge_and_summarise_by_hand() -> None:
    cases = made_up_cases({"a": [0.5, 0.7, 0.9], "b": [0.8, 0.6, 0.4]})
    predicted = {
        "good": [np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0])],
        "static": [np.array([1.0, 0.0, -1.0])] * 2,
        "best_imagenet": [np.array([0.0, 1.0, -1.0])] * 2,
    }
    rows = judge(cases, predicted)
    assert list(rows.columns) == [
        *("method", "task", "n_candidates", "pick", "accuracy", "best", "worst", "regret_1", "regret_3", "tau"),
        "rel_1",
    ]
    first = rows.iloc[2]
    assert (first["method"], first["task"], first["pick"], first["n_candidates"]) == ("static", "a", "org/net0", 3)
    assert (first["accuracy"], first["best"], first["worst"]) == (0.5, 0.9, 0.5)
    assert first[["regret_1", "regret_3", "tau"]].tolist() == pytest.approx([0.4, 0.0, -1.0])
    assert first["rel_1"] == pytest.approx(5 / 9)
    table = summarise(rows, ("static", "best_imagenet"), ceiling=0.85).set_index("method")
    assert table.index.tolist() == ["good", "static", "best_imagenet"] or table["accuracy"].is_monotonic_decreasing
    assert table["base"].unique().tolist() in (["static"], ["best_imagenet"])  # both have 0.65 on average
    assert table["accuracy"].to_dict() == pytest.approx({"good": 0.85, "static": 0.65, "best_imagenet": 0.65})
    assert table.loc["good", "gain"] == pytest.approx(0.2)
    assert table.loc["good", "share_of_gap"] == pytest.approx(1.0)
    assert table.loc["good", "error_increase"] == pytest.approx(0.0)
    assert table.loc["static", "error_increase"] == pytest.approx(0.35 / 0.15 - 1)
    assert table.loc["static", "worst_task"] == "a (40.0 points)"
    assert table["tasks"].unique().tolist() == [2]
    assert np.isnan(summarise(rows)["share_of_gap"]).all()


def test_always_takes_one_for_all() -> None:
    cases = made_up_cases({"a": [0.5, 0.7, 0.9], "b": [0.8, 0.7, 0.4]})
    name, picks = always(cases)
    assert name == "org/net1"
    assert [p.tolist() for p in picks] == [[0.0, 1.0, 0.0]] * 2
    part = [cases[0], cases[1].take(np.array([0]))]  # only the first has a score on both
    assert always(part)[0] == "org/net0"
    assert always([cases[0], *made_up_cases({"c": [0.1, 0.2]}, first=7)])[0] == ""


def test_bootstrap_interval_covers_as_a_normal_one() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    error = values.std() / 20
    expected = (values.mean() - 1.96 * error, values.mean() + 1.96 * error)
    assert (low, high) == pytest.approx(expected, abs=0.15 * error)
    assert bootstrap_interval(np.array([0.3])) == pytest.approx((0.3, 0.3))


# ---------------------------------------------------------------------- measures


def test_measures_by_hand() -> None:
    predicted, obtained = np.array([0.9, 0.8, 0.7, 0.1]), np.array([0.6, 0.9, 0.5, 0.95])
    assert accuracy_of_pick(predicted, obtained) == 0.6
    assert accuracy_of_pick(np.array([1.0, 1.0, 0.0]), np.array([0.2, 0.4, 1.0])) == pytest.approx(0.3)
    assert regret_at_k(predicted, obtained) == pytest.approx(0.35)
    assert regret_at_k(predicted, obtained, 2) == regret_at_k(predicted, obtained, 3) == pytest.approx(0.05)
    assert regret_at_k(predicted, obtained, 4) == regret_at_k(predicted, obtained, 9) == 0.0
    assert weighted_kendall_tau(predicted, obtained) == pytest.approx(weightedtau(obtained, predicted).statistic)
    assert weighted_kendall_tau(np.zeros(4), obtained) == 0.0
    assert relative_error_increase([0.6, 0.9], [0.8, 0.9]) == pytest.approx(0.25 / 0.15 - 1)
    assert relative_error_increase([1.0], [1.0]) == 0.0
    assert relative_error_increase([0.5, 1.0], [1.0, 1.0]) == np.inf


@given(
    both=st.integers(2, 8).flatmap(
        lambda n: st.tuples(*(arrays(np.float64, n, elements=st.integers(0, top)) for top in (4, 20)))
    ),
    k=st.integers(1, 9),
)
def test_regret_is_the_mean_over_ways_to_break_ties(both: tuple[np.ndarray, np.ndarray], k: int) -> None:
    predicted, obtained = both
    found = regret_at_k(predicted, obtained, k)
    assert regret_at_k(predicted, obtained, k + 1) <= found + 1e-12  # more choice is never worse, whatever the ties
    assert regret_at_k(obtained, obtained, k) == pytest.approx(0.0)
    assert regret_at_k(predicted, obtained) == pytest.approx(obtained.max() - accuracy_of_pick(predicted, obtained))
    last = np.sort(predicted)[-min(k, len(predicted))]
    sure, tied = obtained[predicted > last], obtained[predicted == last]
    ways = combinations(tied, min(k, len(predicted)) - len(sure))
    assert found == pytest.approx(np.mean([obtained.max() - max([*sure, *way]) for way in ways]))
