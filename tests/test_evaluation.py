"""Judging rankings: the measures, what is held out, and the table that comes out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import observed
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import weightedtau
from synthetic import CHECKPOINTS, REFERENCES, zoo

from hf_task2vec.baselines import Baseline, Static
from hf_task2vec.covariance import REFERENCE_SOURCE
from hf_task2vec.errors import EvaluationError, MetricError
from hf_task2vec.evaluation import (
    Case,
    compare_metrics,
    evaluate_metric,
    leave_one_out_cases,
    near_duplicates,
    without,
)
from hf_task2vec.judgement import TARGET_BLIND, always, bootstrap_interval, judge, summarise
from hf_task2vec.measures import (
    accuracy_of_pick,
    regret_at_k,
    relative_accuracy,
    relative_error_increase,
    weighted_kendall_tau,
)
from hf_task2vec.metric_base import evidence
from hf_task2vec.metrics import METRICS
from hf_task2vec.observations import CheckpointFeatures, Observations
from hf_task2vec.task_space import TaskFeatures
from hf_task2vec.zoo import ZooIndex

# ---------------------------------------------------------------------- measures


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


# ---------------------------------------------------------------------- cases


def measured_zoo(**groups: str) -> ZooIndex:
    """`zoo`, with scores of the source that defines the unit, a leaked score, and groups of near duplicates."""
    index = zoo()
    source = {"source": "hf_task2vec_measured", "repo": "a/b", "protocol": "probe", "split": "loo", "metric": "top-1"}
    scores = index.scores.copy()
    scores["source"] = "hf_task2vec_measured"
    leaked = scores[(scores["task"] == "task0") & (scores["checkpoint"] == "org/huge")].index
    scores.loc[leaked, "leak"] = True
    rows = index.tasks.copy()
    rows["near_duplicate_group"] = [groups.get(name) for name in rows["task"]]
    index = index.add_sources([{**source, "license": "mit"}]).add_tasks(rows, replace=True)
    return index.add_scores(scores)


def test_leave_one_out_cases() -> None:
    index = measured_zoo(task1="twins", task3="twins")
    space, data = evidence(index)
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
    del space


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
    index = index.add_tasks(rows).add_scores(scores)
    _, data = evidence(index)
    assert "unseen" in data.tasks.names
    assert {case.name for case in leave_one_out_cases(index, data)} == set(REFERENCES)


@dataclass(frozen=True, eq=False)
class Spy(Baseline):
    """Notes which tasks' scores it had for each prediction."""

    name = "spy"
    seen: Any = None

    def predict_features(self, task: TaskFeatures, candidates: CheckpointFeatures, measured: Any = None) -> Any:
        self.seen.append((task.names[0], {self.data.tasks.names[t] for t in self.data.task}))
        return super().predict_features(task, candidates, measured)


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


def test_refitting() -> None:
    index = measured_zoo(task1="twins", task3="twins")
    space, data = evidence(index)
    parts: list[Observations] = []

    def refit(metric: Any) -> Any:
        parts.append(metric.data)
        return metric

    cases = leave_one_out_cases(index, data)
    evaluate_metric(Static(space, data), [*cases, replace(cases[0], held_out=())], refit=refit)
    assert len(parts) == 3  # once for the twins, and never on all scores
    assert all(len(part.y) < len(data.y) for part in parts)


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
    table = summarise(rows, ceiling=0.85).set_index("method")
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
    pd.testing.assert_frame_equal(summarise(rows), summarise(rows))
    with pytest.raises(EvaluationError, match="give at least one target-blind rule to compare with: static, share_of"):
        summarise(rows[rows["method"] == "good"])


def test_always_takes_one_for_all() -> None:
    cases = made_up_cases({"a": [0.5, 0.7, 0.9], "b": [0.8, 0.7, 0.4]})
    name, picks = always(cases)
    assert name == "org/net1"
    assert [p.tolist() for p in picks] == [[0.0, 1.0, 0.0]] * 2
    part = [cases[0], cases[1].take(np.array([0]))]  # only the first has a score on both
    assert always(part)[0] == "org/net0"
    assert always([cases[0], *made_up_cases({"c": [0.1, 0.2]}, first=7)])[0] == ""


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(-1, 1)), st.integers(0, 9))
def test_bootstrap_interval(values: np.ndarray, seed: int) -> None:
    low, high = bootstrap_interval(values, seed=seed)
    assert values.min() - 1e-12 <= low <= high <= values.max() + 1e-12
    assert bootstrap_interval(values, seed=seed) == (low, high)
    narrow = bootstrap_interval(values, seed=seed, level=0.5)
    assert low <= narrow[0] <= narrow[1] <= high


def test_bootstrap_interval_covers_as_a_normal_one() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    error = values.std() / 20
    assert (low, high) == (
        pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error),
        pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error),
    )


def test_all_metrics_are_compared() -> None:
    index = measured_zoo()
    _, data = evidence(index)
    cases = leave_one_out_cases(index, data)
    table, rows = compare_metrics(index, cases)
    hindsight = "always:org/best-unknown"
    assert set(table["method"]) == {*METRICS, hindsight}
    assert len(rows) == len(table) * len(cases)
    best = rows[rows["method"] == hindsight]
    assert best["pick"].unique().tolist() == ["org/best-unknown"]
    assert best["regret_1"].abs().max() == 0.0  # it is the best on every task
    some, _ = compare_metrics(index, cases, ["nearest_symmetric"])
    assert set(some["method"]) == {"nearest_symmetric", *TARGET_BLIND, hindsight}
    with pytest.raises(MetricError, match="metric 'gut' is unknown; choose one of trained, static"):
        compare_metrics(index, cases, ["gut"])
