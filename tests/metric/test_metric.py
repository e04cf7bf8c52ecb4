"""The trained metric's closed form against the joint Gaussian of its text, written out entry by entry."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from hf_task2vec.errors import MetricError, ProbeMismatchError, SchemaVersionError
from hf_task2vec.metric import covariance, prediction
from hf_task2vec.metric.covariance import (
    DEFAULT_LENGTH,
    DEFAULT_NOISE,
    DEFAULT_SLOPE,
    SCHEMA_VERSION,
    SHARES,
    TABLES,
    MetricParameters,
    checkpoint_kernel,
    task_kernel,
)
from hf_task2vec.metric.observations import REFERENCE_SOURCE, CheckpointFeatures
from hf_task2vec.metric.prediction import LEVEL_VARIANCE, SHARED_ERROR, Prediction
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.metric.task_space import TASK_DESCRIPTORS, TaskFeatures
from hf_task2vec.probes.scores import Score
from tests.support import observed
from tests.support.synthetic import embedding, zoo

# ---------------------------------------------------------------------- the model's text, with plain loops


class Oracle:
    """Joint covariance of the scores of a metric and of what a linear probe of each candidate would get on a task."""

    def __init__(self, metric: RankingMetric, task: TaskFeatures, candidates: CheckpointFeatures) -> None:
        self.p, self.data, self.task, self.candidates = metric.parameters, metric.data, task, candidates
        self.source = metric.source
        n_scores, n = len(self.data.y), len(candidates.ids)
        inner = np.array([[self.score_score(i, j) for j in range(n_scores)] for i in range(n_scores)])
        prior = np.array([[self.score_candidate(i, c)[0] for i in range(n_scores)] for c in range(n)])
        residual = np.array([[self.score_candidate(i, c)[1] for i in range(n_scores)] for c in range(n)])
        before = np.array([[self.candidate_candidate(c, d) for d in range(n)] for c in range(n)])
        self.noise = self.p.noises.get(metric.source, DEFAULT_NOISE) + self.p.unseen
        self.prior = prior @ np.linalg.solve(inner, self.data.y)
        self.residual = residual @ np.linalg.solve(inner, self.data.y)
        both = prior + residual
        self.covariance = before - both @ np.linalg.solve(inner, both.T)

    def two_sources(self, a: str, b: str) -> float:
        """What two sources add to checkpoints of equal facts."""
        first, second = (name.split("/")[1].split("_")[:2] for name in (a, b))
        same_kind = first == second != ["linear", "probe"]
        return self.p.protocol_smooth * same_kind + self.p.source_smooth * (a == b != REFERENCE_SOURCE)

    def candidate_candidate(self, c: int, d: int) -> float:
        prior, smooth, residual = self.two_checkpoints(self.candidates, c, self.candidates, d)
        return prior + self.two_sources(self.source, self.source) * smooth + residual

    def two_checkpoints(self, a: CheckpointFeatures, i: int, b: CheckpointFeatures, j: int) -> tuple[float, ...]:
        """Covariance of two checkpoints: of the prior, the smooth kernel, and of what one task adds."""
        p, x, z = self.p, a.numbers[i], b.numbers[j]
        exponent = 0.0
        for k, length in enumerate((p.length_in1k, p.length_in1k, p.length_size, p.length_px)):
            exponent += ((x[k] - z[k]) / length) ** 2
        smooth = math.exp(-0.5 * exponent)
        if a.pretraining[i] != b.pretraining[j]:
            smooth *= p.pretraining_shared
        if a.family[i] != b.family[j]:
            smooth *= p.family_shared
        same = float(a.ids[i] == b.ids[j])
        linear = p.linear * (1.0 + sum(x[k] * z[k] for k in range(4)))
        shared = sum(
            u * v for u, v in zip(p.factors.get(a.ids[i], ()), p.factors.get(b.ids[j], ()), strict=False)
        )  # a checkpoint without factors shares nothing
        prior = linear + p.prior_smooth * smooth + p.prior_own * same
        return prior, smooth, p.residual_smooth * smooth + p.residual_own * same + shared

    def two_tasks(self, a: TaskFeatures, i: int, b: TaskFeatures, j: int) -> float:
        if a.names[i] == b.names[j]:
            return 1.0
        if not (a.embedded[i] and b.embedded[j]):
            return 0.0
        exponent = (1.0 - sum(a.profiles[i] * b.profiles[j])) / self.p.length_fisher**2
        exponent += (1.0 - sum(a.moments[i] * b.moments[j])) / self.p.length_moments**2
        for k, name in enumerate(TASK_DESCRIPTORS):
            length = self.p.lengths.get(name, DEFAULT_LENGTH)
            exponent += ((a.descriptors[i, k] - b.descriptors[j, k]) / length) ** 2
        return math.exp(-exponent)

    def slope(self, i: int) -> float:
        return self.p.slopes.get(self.data.sources[self.data.source[i]], DEFAULT_SLOPE)

    def score_score(self, i: int, j: int) -> float:
        d = self.data
        prior, smooth, residual = self.two_checkpoints(d.checkpoints, d.checkpoint[i], d.checkpoints, d.checkpoint[j])
        similarity = self.two_tasks(d.tasks, d.task[i], d.tasks, d.task[j])
        shared = self.two_sources(d.sources[d.source[i]], d.sources[d.source[j]])
        total = prior + shared * smooth + residual * similarity
        total *= self.slope(i) * self.slope(j)
        if d.group[i] == d.group[j]:
            total += self.p.offset
        if i == j:
            total += d.error[i] + self.p.noises.get(d.sources[d.source[i]], DEFAULT_NOISE)
        return total

    def score_candidate(self, i: int, c: int) -> tuple[float, float]:
        d = self.data
        prior, smooth, residual = self.two_checkpoints(d.checkpoints, d.checkpoint[i], self.candidates, c)
        similarity = self.two_tasks(d.tasks, d.task[i], self.task, 0)
        prior += self.two_sources(d.sources[d.source[i]], self.source) * smooth
        return self.slope(i) * prior, self.slope(i) * residual * similarity

    def given(self, measured: dict[str, Score]) -> tuple[float, np.ndarray, np.ndarray]:
        """Level, accuracies' logits and their variances after measurements; the mode by a general optimiser."""
        n = len(self.candidates.ids)
        mean = np.concatenate([[0.0], self.prior + self.residual])  # level, then results
        joint = np.zeros((n + 1, n + 1))
        joint[0, 0] = LEVEL_VARIANCE
        joint[1:, 1:] = self.covariance + self.noise * np.eye(n)
        reads = np.zeros((len(measured), n + 1))
        for row, name in enumerate(measured):
            reads[row, 0] = reads[row, 1 + self.candidates.ids.index(name)] = 1.0
        share = np.array([(m.value * m.n + 0.5) / (m.n + 1) for m in measured.values()])
        count = np.array([m.n for m in measured.values()]) / (1.0 - SHARED_ERROR)
        m0, gram = reads @ mean, reads @ joint @ reads.T
        inverse = np.linalg.inv(gram)

        def loss(f: np.ndarray) -> tuple[float, np.ndarray]:
            value = -(count * (share * log_expit(f) + (1 - share) * log_expit(-f))).sum()
            pull = inverse @ (f - m0)
            return value + 0.5 * (f - m0) @ pull, -count * (share - expit(f)) + pull

        def curvature(f: np.ndarray) -> np.ndarray:
            return np.diag(count * expit(f) * expit(-f)) + inverse

        f = minimize(loss, m0, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-9}).x
        f = f - np.linalg.solve(curvature(f), loss(f)[1])
        error = 1.0 / (count * expit(f) * expit(-f))
        observed_y = f + error * count * (share - expit(f))
        gain = joint @ reads.T @ np.linalg.inv(gram + np.diag(error))
        after, spread = mean + gain @ (observed_y - m0), joint - gain @ reads @ joint
        ask = np.concatenate([np.ones((n, 1)), np.eye(n)], axis=1)
        return after[0], ask @ after, np.diag(ask @ spread @ ask.T)


def world(seed: int = 0) -> tuple[RankingMetric, TaskFeatures, CheckpointFeatures]:
    """Return a metric on 7 tasks (two unknown to the probe) and 6 checkpoints, a task, and 8 candidates (3 scored)."""
    scored = observed.checkpoints(6, seed)
    data = observed.observations(observed.tasks(7, seed, unknown=2), scored, seed, share=0.6)
    candidates = observed.checkpoints(8, seed, first=3)
    shared = [i for i, name in enumerate(candidates.ids) if name in scored.ids]
    for i in shared:  # facts of one checkpoint are the same on both sides
        j = scored.ids.index(candidates.ids[i])
        for name in ("numbers", "pretraining", "family"):
            getattr(candidates, name)[i] = getattr(scored, name)[j]
    names = (*scored.ids[1:], candidates.ids[-1])  # the first has no factors
    metric = RankingMetric(observed.parameters(seed, names), observed.space(), data)
    return metric, observed.tasks(1, seed + 50, prefix="query"), candidates


@pytest.mark.parametrize("source", [REFERENCE_SOURCE, observed.PUBLISHED, "nobody/linear_probe_full"])
@pytest.mark.parametrize(("seed", "chunk"), [(0, 4096), (1, 1), (2, 3)])
def test_against_the_joint_gaussian(monkeypatch: pytest.MonkeyPatch, seed: int, chunk: int, source: str) -> None:
    for module in (covariance, prediction):
        monkeypatch.setattr(module, "_CHUNK", chunk)
    metric, task, candidates = world(seed)
    metric = replace(metric, source=source)
    oracle, found = Oracle(metric, task, candidates), metric.predict_features(task, candidates)
    np.testing.assert_allclose(found.prior, oracle.prior, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found.residual, oracle.residual, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found.variance(), np.diag(oracle.covariance) + oracle.noise, rtol=1e-8)
    np.testing.assert_allclose(found.variance(np.array([5, 1])), found.variance()[[5, 1]], rtol=1e-10)
    rows, columns = np.array([0, 4, 7, 2]), np.array([2, 5])
    np.testing.assert_allclose(
        found.posterior.covariance(rows, columns), oracle.covariance[rows][:, columns], rtol=1e-8, atol=1e-12
    )
    assert (found.measured, found.level) == (False, 0.0)
    np.testing.assert_array_equal(found.mean, found.prior + found.residual)
    assert np.abs(found.residual).min() > 1e-6  # else nothing is tested of it


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("seed", range(2))
def test_measurements_against_the_joint_gaussian(seed: int, count: int) -> None:
    metric, task, candidates = world(seed)
    rng = np.random.default_rng(seed)
    names = rng.permutation(candidates.ids)[:count]
    measured = {str(name): Score.of_share(int(rng.integers(0, 65)) / 64, 64) for name in names}
    level, mean, variance = Oracle(metric, task, candidates).given(measured)
    found = metric.predict_features(task, candidates, measured)
    assert found.measured
    assert found.level == pytest.approx(level, rel=1e-8)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-8)
    np.testing.assert_allclose(found.mean, found.level + found.prior + found.residual + found.update)
    np.testing.assert_allclose(found.variance(), variance, rtol=1e-6)  # the level's variance cancels
    np.testing.assert_allclose(found.variance(np.array([6, 0])), variance[[6, 0]], rtol=1e-6)


def test_far_from_every_task_only_the_prior_is_left() -> None:
    metric, task, candidates = world()
    far = replace(task, descriptors=np.full((1, len(TASK_DESCRIPTORS)), 500.0))
    found = metric.predict_features(far, candidates)
    assert np.abs(found.residual).max() == 0.0
    assert found.task_weight == 0.0
    assert np.ptp(found.prior) > 0.0
    # Not each single one: what is learned of a prior and of a residual need not be at odds.
    assert found.variance().mean() > metric.predict_features(task, candidates).variance().mean()


def test_a_task_of_the_index_under_another_name_is_as_near_as_can_be() -> None:
    metric, _, candidates = world()
    known = metric.data.tasks.take(np.array([1]))
    query = replace(known, names=("query:task1",))
    assert metric.predict_features(query, candidates).task_weight == pytest.approx(1.0)
    np.testing.assert_allclose(
        metric.predict_features(query, candidates).mean, metric.predict_features(known, candidates).mean, rtol=1e-9
    )


def test_parts_of_the_residual_sum_to_it() -> None:
    metric, task, candidates = world()
    found = metric.predict_features(task, candidates)
    parts = metric.residual_parts(task, candidates)
    assert parts.shape == (8, 7)
    assert not parts[:, 5:].any()  # unknown to the probe
    np.testing.assert_allclose(parts.sum(axis=1), found.residual, rtol=1e-9)


def test_measured_elsewhere() -> None:
    metric, task, candidates = world()
    with pytest.raises(MetricError, match="measured checkpoints that are not among the candidates: org/none"):
        metric.predict_features(task, candidates, {"org/none": Score.of_share(0.5, 10)})


def test_embeddings_of_another_probe() -> None:
    index = zoo()
    metric = RankingMetric.from_index(index)
    other = embedding(9, weights_hash="cd" * 32)
    with pytest.raises(ProbeMismatchError, match=r"\(weights cdcdcdcdcdcd…\), the index with weights abababababab…"):
        metric.predict(other, index.checkpoints)


# ---------------------------------------------------------------------- what measurements make of a prediction


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


# ---------------------------------------------------------------------- kernels


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), unknown=st.integers(0, 3))
def test_task_kernel_is_a_covariance(seed: int, n: int, unknown: int) -> None:
    features = observed.tasks(n, seed, unknown=min(unknown, n))
    p = observed.parameters(seed).aligned((), ())
    kernel = task_kernel(p, features, features, np.eye(n, dtype=bool))
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    np.testing.assert_array_equal(np.diag(kernel), np.ones(n))
    assert kernel.min() >= 0.0
    assert kernel.max() <= 1.0 + 1e-12
    assert np.linalg.eigvalsh(kernel).min() > -1e-10


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12))
def test_checkpoint_kernel_is_a_covariance(seed: int, n: int) -> None:
    features = observed.checkpoints(n, seed)
    kernel = checkpoint_kernel(observed.parameters(seed).aligned((), ()), features, features)
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    np.testing.assert_allclose(np.diag(kernel), np.ones(n), rtol=1e-12)
    assert np.linalg.eigvalsh(kernel).min() > -1e-10


# ---------------------------------------------------------------------- metric.json

_positive = st.floats(1e-6, 1e5)
_names = st.text(min_size=1, max_size=8)


@st.composite
def parameters(draw: st.DrawFn) -> MetricParameters:
    scalars = {
        name: draw(st.floats(0.001, 0.999) if name in SHARES else _positive) for name in MetricParameters().scalars()
    }
    rank = draw(st.integers(1, 16))
    loadings = st.lists(st.floats(-100, 100), min_size=rank, max_size=rank).map(tuple)
    return MetricParameters(
        **scalars,
        lengths=draw(st.dictionaries(st.sampled_from(TASK_DESCRIPTORS), _positive)),
        factors=draw(st.dictionaries(_names, loadings, max_size=3)),
        slopes=draw(st.dictionaries(_names, _positive, max_size=3)),
        noises=draw(st.dictionaries(_names, _positive, max_size=3)),
    )


@given(parameters())
def test_round_trip(values: MetricParameters) -> None:
    written = values.to_json({"n_scores": 3})
    assert MetricParameters.from_json(written) == values
    assert written.endswith(b"}\n")


def document(**changes: Any) -> dict[str, Any]:
    return {**json.loads(MetricParameters(factors={"org/a": (0.1, 0.2)}).to_json()), **changes}


def changed(**changes: Any) -> bytes:
    """Return a file with other parameters."""
    found = document()
    found["parameters"].update(changes)
    return json.dumps(found).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "metric.json cannot be read as JSON"),
        (b"\xff\xfe\x00", "metric.json cannot be read as JSON"),
        (b"[" * 100_000, "metric.json cannot be read as JSON"),
        (changed(offset=0.0), "offset = 0.0: Input should be greater than 0"),
        (changed(offset=float("nan")), "offset = nan: "),
        (changed(offset=10**400), "offset = "),
        (changed(offset="4"), "offset = '4': Input should be a valid number"),
        (changed(offset=True), "offset = True: "),
        (changed(family_shared=1.0), "family_shared = 1.0: Input should be less than 1"),
        (changed(slopes=[1.0]), r"slopes = \[1.0\]: Input should be "),
        (changed(noises={"lab": "low"}), r"noises.lab = 'low': Input should be a valid number"),
        (changed(lengths={"colour": 1.0}), "lengths names unknown descriptors: colour"),
        (changed(factors={"a": []}), r"factors.a = \[\]: "),
        (changed(factors={"a": [0.0] * 17}), r"factors.a = .* at most 16 items"),
        (changed(factors={"a": [0.1, None]}), r"factors.a.1 = None: Input should be a valid number"),
        (changed(factors={"a": [0.1], "b": [0.1, 0.2]}), "factors must give every checkpoint the same number"),
        (changed(length_descriptors=3.0), "length_descriptors = 3.0: Unexpected keyword argument"),
        (json.dumps(document(parameters=[])).encode(), "parameters = "),
    ],
)
def test_malformed_files(data: bytes, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        MetricParameters.from_json(data)


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION + 1, None, "2", [2]])
def test_other_versions(version: Any) -> None:
    message = f"has schema version .*this version reads {SCHEMA_VERSION}"
    with pytest.raises(SchemaVersionError, match=message):
        MetricParameters.from_json(json.dumps(document(schema_version=version)).encode())
    with pytest.raises(SchemaVersionError, match=message):
        MetricParameters.from_json(b"[]")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(name=st.sampled_from([*MetricParameters().scalars(), *TABLES]), value=_json)
@example("slopes", {"": 10**30})
def test_any_value_is_read_or_refused(name: str, value: Any) -> None:
    try:
        found = MetricParameters.from_json(changed(**{name: value}))
    except MetricError:
        return
    assert MetricParameters.from_json(found.to_json()) == found


@given(st.binary(max_size=200) | _json.map(lambda value: json.dumps(value).encode()))
def test_any_file_is_refused(data: bytes) -> None:
    with pytest.raises((MetricError, SchemaVersionError)):
        MetricParameters.from_json(data)


def test_scores_without_training_move_nothing() -> None:
    index, task = zoo(), embedding(9)
    score = index.scores[index.scores["task"] == "task0"].iloc[0].dropna().to_dict()
    others = [{**score, "checkpoint": name, "protocol": "zero_shot", "score": 0.1} for name in ("org/mid", "org/small")]
    before = RankingMetric.from_index(index).predict(task, index.checkpoints)
    after = RankingMetric.from_index(index.add_scores(others)).predict(task, index.checkpoints)
    np.testing.assert_array_equal(before.mean, after.mean)
