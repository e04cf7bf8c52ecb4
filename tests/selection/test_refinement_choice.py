"""Which candidate is measured next, and when measuring stops: with made-up predictions and measurements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_task2vec.errors import ProbeError
from hf_task2vec.metric.prediction import Prediction
from hf_task2vec.probes.scores import Score
from hf_task2vec.selection import refinement
from hf_task2vec.selection.limits import Budget
from hf_task2vec.selection.refinement import Measurements, expected_improvement, measure_promising, next_candidate


def predicted(means: Mapping[str, float], variances: Collection[float] | None = None) -> Prediction:
    """Return a prediction of uncorrelated candidates."""
    spread = np.array(list(variances) if variances is not None else [0.25] * len(means))

    def variance(rows: np.ndarray) -> np.ndarray:
        assert len(rows) <= 64, "too many candidates were looked at"
        return spread[rows]

    values = np.array(list(means.values()))
    posterior: Any = SimpleNamespace(variance=variance)
    return Prediction(tuple(means), values, np.zeros(len(values)), 1.0, noise=0.0, posterior=posterior)


# ---------------------------------------------------------------------- expected improvement


def test_expected_improvement_by_monte_carlo() -> None:
    prediction = predicted({"a": 0.0, "b": 0.5, "c": -2.0}, [1.0, 0.01, 4.0])
    found = expected_improvement(prediction, 0.4, np.arange(3))
    draws = prediction.mean + np.sqrt([1.0, 0.01, 4.0]) * np.random.default_rng(0).standard_normal((400_000, 3))
    np.testing.assert_allclose(found, np.maximum(draws - 0.4, 0.0).mean(axis=0), atol=0.005)


@given(mean=st.floats(-5, 5), sd=st.floats(0.01, 3), best=st.floats(-5, 5), more=st.floats(0.01, 2))
def test_expected_improvement_grows_with_mean_and_doubt(mean: float, sd: float, best: float, more: float) -> None:
    prediction = predicted({"a": mean, "b": mean + more, "c": mean}, [sd**2, sd**2, (sd + more) ** 2])
    plain, higher, wider = expected_improvement(prediction, best, np.arange(3))
    assert max(mean - best, 0.0) - 1e-9 <= plain
    assert plain <= higher + 1e-9
    assert plain <= wider + 1e-9


# ---------------------------------------------------------------------- the next candidate


def test_the_first_is_the_one_predicted_best() -> None:
    prediction = predicted({"a": 0.0, "b": 1.0, "c": 0.9}, [1.0, 0.01, 9.0])
    assert next_candidate(prediction, {}, {"a", "b", "c"}) == "b"
    assert next_candidate(prediction, {}, {"a", "c"}) == "c"
    assert next_candidate(prediction, {}, {"a", "c"}, known={"b"}) == "c"
    assert next_candidate(prediction, {}, set()) is None
    assert next_candidate(prediction, {}, {"not among them"}) is None


def test_a_doubtful_candidate_is_worth_more_than_a_known_one() -> None:
    prediction = predicted({"done": 1.0, "sure": 0.99, "doubtful": 0.8}, [1e-6, 1e-6, 1.0])
    assert next_candidate(prediction, {"done"}, {"sure", "doubtful"}) == "doubtful"
    far = predicted({"done": 1.0, "sure": 0.99, "doubtful": -9.0}, [1e-6, 0.01, 0.1])
    assert next_candidate(far, {"done"}, {"sure", "doubtful"}) == "sure"


def test_what_is_known_anyway_must_be_beaten_too() -> None:
    """Over the measured one both promise; over the probe, only the doubtful one can be better."""
    prediction = predicted({"done": 0.0, "probe": 3.0, "sure": 1.0, "doubtful": 0.0}, [1e-6, 1e-6, 1e-4, 2.0])
    assert next_candidate(prediction, {"done"}, {"sure", "doubtful"}) == "sure"
    assert next_candidate(prediction, {"done"}, {"sure", "doubtful"}, known={"probe"}) == "doubtful"


def test_only_a_short_list_is_looked_at() -> None:
    many = {f"net{i}": -float(i) for i in range(1000)}
    assert next_candidate(predicted(many), {"net0"}, set(many) - {"net0"}) == "net1"


# ---------------------------------------------------------------------- when it stops


class Clock:
    """A clock that each measurement moves by `seconds`."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.now, self.seconds = 100.0, seconds

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(refinement, "time", clock)
    return clock


@pytest.fixture
def refine(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[..., tuple[Measurements, list[str]]]:
    """Measure some of six candidates, a worse one after the other; those named in `broken` cannot be measured."""
    names = [f"org/net{i}" for i in range(1, 7)]

    def run(k: int, broken: Collection[str] = (), **options: Any) -> tuple[Measurements, list[str]]:
        tried: list[str] = []

        def linear_probe(name: str, task: Any, **_: Any) -> Score:
            tried.append(name)
            clock.now += clock.seconds
            if name in broken:
                raise ProbeError(f"{name} is broken")
            return Score.of_share(0.5, 100)

        def predict(measured: Mapping[str, Score]) -> Prediction:
            assert all(m.value == 0.5 for m in measured.values())
            return predicted({name: -float(i) for i, name in enumerate(names)})

        monkeypatch.setattr(refinement, "linear_probe", linear_probe)
        params = [4.0, 300.0, None, 2.0, 1.0, 3.0]
        frame = pd.DataFrame({"hub_id": names, "params_m": pd.array(params, dtype="Float64")})
        task: Any = None
        return measure_promising(predict, frame, task, k, **options), tried

    return run


Refine = Callable[..., tuple[Measurements, list[str]]]


def test_all_that_were_asked_for(refine: Refine) -> None:
    found, tried = refine(3)
    assert tried == list(found.scores) == ["org/net1", "org/net2", "org/net3"]
    assert (found.failures, found.notes) == ({}, [])
    assert len(refine(20)[1]) == 6


def test_failures_are_replaced_up_to_twice_as_many(refine: Refine) -> None:
    found, tried = refine(2, broken={"org/net1", "org/net3"})
    assert tried == ["org/net1", "org/net2", "org/net3", "org/net4"]
    assert found.failures == {f"org/net{i}": f"org/net{i} was not measured: org/net{i} is broken" for i in (1, 3)}
    found, tried = refine(2, broken={f"org/net{i}" for i in range(1, 7)})
    assert (len(tried), found.scores) == (4, {})


def test_known_ones_are_left_out(refine: Refine) -> None:
    assert refine(2, known=["org/net1", "elsewhere"])[1] == ["org/net2", "org/net3"]
    assert refine(2, known=[f"org/net{i}" for i in range(1, 7)])[1] == []


def test_bytes(refine: Refine) -> None:
    """At four bytes a parameter; candidates of unknown size fit into no limit."""
    found, tried = refine(4, budget=Budget(max_bytes=4 * 8e6))
    assert tried == ["org/net1", "org/net4", "org/net5"]  # 4 + 2 + 1 million of 8
    note = "no candidate of known size fits into what is left of 3.2e+07 bytes"
    assert found.notes == [f"stopped after 3 of 4 measurements: {note}"]
    assert refine(3, budget=Budget(max_bytes=4 * 7e6))[0].notes == []  # just enough
    found, tried = refine(1, budget=Budget(max_bytes=1))
    assert tried == []
    assert found.notes == [
        "stopped after 0 of 1 measurements: no candidate of known size fits into what is left of 1 bytes"
    ]


def test_failed_downloads_count(refine: Refine) -> None:
    assert refine(4, broken={"org/net1"}, budget=Budget(max_bytes=4 * 6e6))[1] == ["org/net1", "org/net4"]


def test_seconds(refine: Refine) -> None:
    """Each takes ten: after two, a third would end later than 25."""
    found, tried = refine(6, budget=Budget(max_seconds=25))
    assert len(tried) == 2
    assert found.notes == ["stopped after 2 of 6 measurements: 20 s of 25 s spent"]
    assert len(refine(6, budget=Budget(max_seconds=30))[1]) == 3
    assert len(refine(6, budget=Budget(max_seconds=0.1))[1]) == 1  # how long one takes is known after the first
    assert refine(2, budget=Budget(max_seconds=25))[0].notes == []
