"""The trained metric against the joint Gaussian of its text, written out entry by entry."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import fsolve
from scipy.special import expit

from hf_task2vec.errors import MetricError, ProbeMismatchError
from hf_task2vec.metric import prediction, ranking_metric
from hf_task2vec.metric.covariance import (
    AWAY,
    CHECKPOINT_KERNELS,
    DEFAULT_LENGTH,
    DEFAULT_NOISE,
    LINEAR,
    SCHEMA_VERSION,
    SHARED_WITH,
    Level,
    MetricParameters,
    at_home,
    checkpoint_diagonal,
    checkpoint_kernels,
    task_kernel,
)
from hf_task2vec.metric.observations import CHECKPOINT_FACTS, REFERENCE_SOURCE, CheckpointFeatures
from hf_task2vec.metric.prediction import LEVEL_VARIANCE, SHARED_ERROR, Prediction
from hf_task2vec.metric.ranking_metric import FINE_TUNE, LEVEL, LINEAR_PROBE, WEIGHTS_FILE, RankingMetric
from hf_task2vec.metric.task_space import KINDS, TASK_DESCRIPTORS, TaskFeatures
from hf_task2vec.probes.scores import Score
from tests.support import observed
from tests.support.synthetic import embedding, zoo

PROTOCOLS = (FINE_TUNE, LINEAR_PROBE)

# ---------------------------------------------------------------------- the model's text, with plain loops


class Oracle:
    """What a metric must say, from the covariance of single scores and candidates."""

    def __init__(
        self, metric: RankingMetric, task: TaskFeatures, candidates: CheckpointFeatures, protocol: str
    ) -> None:
        self.p, self.data, self.task, self.candidates = metric.parameters, metric.data, task, candidates
        self.tuned = protocol == FINE_TUNE
        self.unit = self.p.scales[protocol]
        self.scale = self.scales()
        d, self.n = self.data, len(candidates.ids)
        every = range(len(d.y))
        of_group = [[d.y[i] for i in every if d.group[i] == g] for g in d.group]
        self.y = [np.clip((d.y[i] - np.mean(of_group[i])) / self.scale[d.group[i]], -3.5, 3.5) for i in every]
        self.scores = np.array([[self.score_score(i, j) for j in every] for i in every])
        weights = np.linalg.solve(self.scores, self.y)
        cross = np.array([[self.score_candidate(i, c) for i in every] for c in range(self.n)])
        self.prior, self.residual = self.unit * cross[:, :, 0] @ weights, self.unit * cross[:, :, 1] @ weights

    def sum(self, alike: dict[str, float], shared: dict[str, float]) -> float:
        """Of all products of how alike two checkpoints are and what their groups share, times their variances."""
        return sum(self.p.variances.get(k, {}).get(s, 0.0) * alike[k] * shared[s] for k in alike for s in shared)

    def alike(self, a: CheckpointFeatures, i: int, b: CheckpointFeatures, j: int) -> dict[str, float]:
        found, x, z = {}, a.numbers[i], b.numbers[j]
        for name, facts in LINEAR.items():
            columns = [CHECKPOINT_FACTS.index(fact) for fact in facts]
            found[name] = sum(x[k] * z[k] for k in columns) / len(columns)
        # The first six are numbers, the rest flags.
        distance = sum(((1.0 if k < 6 else 1.5) * (x[k] - z[k])) ** 2 for k in range(len(x)))
        found["facts"] = math.exp(-0.5 * distance / self.p.length_facts**2)
        leaning = [self.p.loadings.get(name, (0.0, 0.0)) for name in (a.ids[i], b.ids[j])]
        found["factors"] = sum(x * z for x, z in zip(*leaning, strict=True))
        found["family"] = float(a.family[i] == b.family[j])
        found["own"] = float(a.ids[i] == b.ids[j])
        return found

    def near(self, a: TaskFeatures, i: int, b: TaskFeatures, j: int) -> float:
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

    def made_for(self, checkpoint: np.ndarray, kinds: np.ndarray) -> float:
        share = sum(checkpoint * kinds)
        return share - AWAY * (sum(kinds) - share) if checkpoint.any() else 0.0

    def kinds(self) -> np.ndarray:
        """Of the task asked about: its own, or what embedded tasks tell by weighted least squares."""
        if self.task.kinds.any():
            return self.task.kinds[0]
        known = self.data.tasks
        rows = [t for t in range(len(known.names)) if known.embedded[t] and known.kinds[t].any()]
        kinds = [known.kinds[t].argmax() for t in rows]

        def alike(a: Any, i: int, b: Any, j: int) -> float:
            return float(a.profiles[i] @ b.profiles[j] + a.moments[i] @ b.moments[j]) / 2

        gram = np.array([[alike(known, a, known, b) for b in rows] for a in rows])
        weight = np.array([kinds.count(kind) ** -0.5 for kind in kinds])
        weight = weight / (sum(weight) / len(weight))
        told = np.zeros(len(KINDS))
        for kind in set(kinds):
            own = np.array([float(k == kind) for k in kinds])
            common = sum(weight * own) / sum(weight)
            # The minimum of the weighted squared error and 0.2 times the squared norm of the function.
            dual = np.linalg.inv(np.diag(weight) @ gram + 0.2 * np.eye(len(rows))) @ (weight * (own - common))
            said = sum(d * alike(self.task, 0, known, t) for d, t in zip(dual, rows, strict=True))
            told[kind] = common * math.exp(10 * said)
        return told / told.sum()

    def is_tuned(self, i: int) -> bool:
        return self.data.sources[self.data.source[i]] == observed.PUBLISHED

    def everywhere(self, a: bool, b: bool) -> dict[str, float]:
        """What two results share whatever their tasks."""
        return {"all": 1.0, "tuned": float(a and b), "frozen": float(not a and not b)}

    def peculiar(self, i: int) -> dict[str, float]:
        """What a result shares with itself, but for what holds everywhere."""
        tuned = self.is_tuned(i)
        return {"similar": 1.0, "described": 1.0, "recipe": float(tuned), "setup": float(not tuned), "group": 1.0}

    def noise(self, i: int) -> float:
        return self.p.noises.get(self.data.sources[self.data.source[i]], DEFAULT_NOISE)

    def scales(self) -> dict[int, float]:
        """By group: spread of its logits over the one expected, drawn towards its source's."""
        d = self.data
        rows_of = {g: [i for i in range(len(d.y)) if d.group[i] == g] for g in sorted(set(d.group))}
        found, expected = {}, {}
        for g, rows in rows_of.items():
            mean = np.mean([d.y[i] for i in rows])
            found[g] = sum((d.y[i] - mean) ** 2 - d.error[i] * (1.0 - 1.0 / len(rows)) for i in rows)
            found[g] = max(found[g], 0.0)
            joint = np.zeros((len(rows), len(rows)))
            for a, i in enumerate(rows):
                for b, j in enumerate(rows):
                    alike = self.alike(d.checkpoints, d.checkpoint[i], d.checkpoints, d.checkpoint[j])
                    joint[a, b] = self.sum(
                        alike, self.everywhere(self.is_tuned(i), self.is_tuned(i)) | self.peculiar(i)
                    )
                    joint[a, b] += self.noise(i) * (i == j)
            expected[g] = np.trace(joint) - joint.sum() / len(rows)
        scale, overall = {}, sum(found.values()) / sum(expected.values())
        for g, rows in rows_of.items():
            alike = [h for h, other in rows_of.items() if d.source[other[0]] == d.source[rows[0]]]
            typical = (sum(found[h] for h in alike) + 10.0 * overall) / (sum(expected[h] for h in alike) + 10.0)
            scale[g] = math.sqrt((found[g] + 3.0 * typical) / (expected[g] + 3.0))
        return scale

    def score_score(self, i: int, j: int) -> float:
        d, t, u = self.data, self.data.task[i], self.data.task[j]
        shared = {
            **self.everywhere(self.is_tuned(i), self.is_tuned(j)),
            "similar": self.near(d.tasks, t, d.tasks, u),
            "described": float(np.mean(d.tasks.descriptors[t] * d.tasks.descriptors[u])),
            "recipe": float(d.source[i] == d.source[j] and self.is_tuned(i)),
            "setup": float(d.source[i] == d.source[j] and not self.is_tuned(i)),
            "group": float(d.group[i] == d.group[j]),
        }
        alike = self.alike(d.checkpoints, d.checkpoint[i], d.checkpoints, d.checkpoint[j])
        total = self.sum(alike, shared)
        home = d.checkpoints.home
        total += (
            self.p.match
            * self.made_for(home[d.checkpoint[i]], d.tasks.kinds[t])
            * self.made_for(home[d.checkpoint[j]], d.tasks.kinds[u])
        )
        total += LEVEL * shared["group"]
        if i == j:
            total += self.noise(i) + d.error[i] / self.scale[d.group[i]] ** 2
        return total

    def score_candidate(self, i: int, c: int) -> tuple[float, float]:
        """What a score shares with a candidate: whatever the task, and for this task."""
        d, t = self.data, self.data.task[i]
        alike = self.alike(d.checkpoints, d.checkpoint[i], self.candidates, c)
        of_reference = d.sources[d.source[i]] == REFERENCE_SOURCE
        blind = {
            **self.everywhere(self.is_tuned(i), self.tuned),
            "setup": float(of_reference and not self.tuned),
        }
        rest = {
            "similar": self.near(d.tasks, t, self.task, 0),
            "described": float(np.mean(d.tasks.descriptors[t] * self.task.descriptors[0] * self.task.embedded[0])),
        }
        prior, residual = self.sum(alike, blind), self.sum(alike, rest)
        residual += (
            self.p.match
            * self.made_for(d.checkpoints.home[d.checkpoint[i]], d.tasks.kinds[t])
            * self.made_for(self.candidates.home[c], self.kinds())
        )
        return prior, residual

    def covariance(self, level: float = 1e7) -> np.ndarray:
        """Of the candidates' standings, where what a score shares with tasks or a source is noise of its own."""
        d, every, p = self.data, range(len(self.data.y)), self.p
        scored, own = np.zeros((len(every), len(every))), d.checkpoints
        for i in every:
            for j in every:
                alike = self.alike(own, d.checkpoint[i], own, d.checkpoint[j])
                scored[i, j] = self.sum(alike, self.everywhere(self.is_tuned(i), self.is_tuned(j)))
                scored[i, j] += level * (d.group[i] == d.group[j])
                if i == j:
                    # Several scores of a checkpoint on a task count as one.
                    of_pair = sum(d.task[i] == d.task[k] and d.checkpoint[i] == d.checkpoint[k] for k in every)
                    mine = self.sum(alike, self.peculiar(i))
                    scored[i, i] += of_pair * (mine + self.noise(i) + d.error[i] / self.scale[d.group[i]] ** 2)
        cross, before = np.zeros((self.n, len(every))), np.zeros((self.n, self.n))
        near = max(self.near(self.task, 0, d.tasks, t) for t in range(len(d.tasks.names)))
        itself = {"similar": 1.0, "described": np.mean(self.task.descriptors[0] ** 2), "group": 1.0}
        itself["recipe" if self.tuned else "setup"] = 1.0
        made_for = [self.made_for(home, self.kinds()) for home in self.candidates.home]
        for c in range(self.n):
            for i in every:
                alike = self.alike(own, d.checkpoint[i], self.candidates, c)
                cross[c, i] = self.sum(alike, self.everywhere(self.is_tuned(i), self.tuned))
            for e in range(self.n):
                alike = self.alike(self.candidates, c, self.candidates, e)
                before[c, e] = self.sum(alike, self.everywhere(self.tuned, self.tuned))
                before[c, e] += self.sum(alike, itself) * (1.0 - near**2 / 2.0) + p.match * made_for[c] * made_for[e]
        return (
            p.spreads[FINE_TUNE if self.tuned else LINEAR_PROBE]
            * self.unit**2
            * (before - cross @ np.linalg.solve(scored, cross.T))
        )


def world(seed: int = 0) -> tuple[RankingMetric, TaskFeatures, CheckpointFeatures]:
    """Return a metric on 7 tasks (two unknown to the probe) and 6 checkpoints, a task, and 8 candidates (3 scored).

    Two groups of scores are of the same task.
    """
    scored = observed.checkpoints(6, seed)
    data = observed.observations(observed.tasks(7, seed, unknown=2), scored, seed, share=0.6)
    data = replace(data, task=np.where(data.task == 2, 0, data.task))
    candidates = observed.checkpoints(8, seed, first=3)
    for i, name in enumerate(candidates.ids):  # facts of one checkpoint are the same on both sides
        if name in scored.ids:
            for facts in ("numbers", "family", "home"):
                getattr(candidates, facts)[i] = getattr(scored, facts)[scored.ids.index(name)]
    metric = RankingMetric(observed.parameters(seed), observed.space(), data)
    return metric, observed.tasks(1, seed + 50, prefix="query"), candidates


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("seed", "chunk"), [(0, 4096), (1, 1), (2, 3)])
def test_against_the_joint_gaussian(monkeypatch: pytest.MonkeyPatch, seed: int, chunk: int, protocol: str) -> None:
    for module in (ranking_metric, prediction):
        monkeypatch.setattr(module, "_CHUNK", chunk)
    metric, task, candidates = world(seed)
    if seed == 1:  # a user's dataset says nothing of its domain
        task = replace(task, kinds=np.zeros((1, len(KINDS))))
    oracle, found = (
        Oracle(metric, task, candidates, protocol),
        metric.predict_features(task, candidates, None, protocol),
    )
    np.testing.assert_allclose(metric.y, oracle.y, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(metric.covariance(), oracle.scores, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.prior, oracle.prior, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(found.residual, oracle.residual, rtol=1e-8, atol=1e-12)
    assert (found.measured, found.level) == (False, 0.0)
    np.testing.assert_array_equal(found.mean, found.prior + found.residual)
    assert np.abs(found.residual).min() > 1e-6  # else nothing is tested of it


def test_protocols_of_a_laboratory_are_one_source() -> None:
    """But not its fine-tuned with its frozen results; noises stay those of each protocol."""
    data = observed.observations(observed.tasks(6), observed.checkpoints(4), share=1.0)
    names = ("a/knn", "a/linear_probe", "a/full_finetune", "b/linear_probe", "a/lora")
    data = replace(data, sources=names, source=data.task % 5)
    assert data.laboratories.tolist() == [0, 0, 0, 1, 0]
    of = dict(zip((names[s] for s in data.source[data.first]), data.groups.source.tolist(), strict=True))
    assert of["a/knn"] == of["a/linear_probe"]
    assert of["a/full_finetune"] == of["a/lora"]
    assert len({of["a/knn"], of["a/lora"], of["b/linear_probe"]}) == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_variances_against_scores_that_share_only_standings(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    monkeypatch.setattr(prediction, "_CHUNK", 3)
    metric, task, candidates = world()
    found = metric.predict_features(task, candidates, None, protocol)
    expected = Oracle(metric, task, candidates, protocol).covariance()
    noise = (
        {LINEAR_PROBE: 0.02, FINE_TUNE: DEFAULT_NOISE}[protocol] * found.unit**2 * metric.parameters.spreads[protocol]
    )
    assert found.noise == pytest.approx(noise)
    rows, columns = np.array([0, 4, 7, 2]), np.array([2, 5])
    assert found.posterior is not None
    covariance = found.unit**2 * found.posterior.covariance(rows, columns)
    np.testing.assert_allclose(covariance, expected[np.ix_(rows, columns)], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.variance(), np.diag(expected) + noise, rtol=1e-4)
    np.testing.assert_allclose(found.variance(np.array([5, 1])), found.variance()[[5, 1]], rtol=1e-10)
    of_differences = [expected[1, 1] + expected[j, j] - 2 * expected[1, j] + 2 * noise for j in columns]
    np.testing.assert_allclose(found.variance_of_differences(1, columns), of_differences, rtol=1e-4)


def test_far_from_every_task_little_but_the_prior_is_left() -> None:
    metric, task, candidates = world()
    parameters = replace(
        metric.parameters,
        variances={
            k: {s: v for s, v in row.items() if s != "described"} for k, row in metric.parameters.variances.items()
        },
    )
    metric = replace(metric, parameters=parameters)
    candidates = replace(candidates, home=np.zeros_like(candidates.home))
    far = replace(task, descriptors=np.full((1, len(TASK_DESCRIPTORS)), 500.0))
    found = metric.predict_features(far, candidates)
    assert np.abs(found.residual).max() == 0.0
    assert found.task_weight == 0.0
    assert np.ptp(found.prior) > 0.0
    assert (found.variance() > metric.predict_features(task, candidates).variance()).all()


def test_a_task_of_the_index_under_another_name_is_as_near_as_can_be() -> None:
    metric, _, candidates = world()
    known = metric.data.tasks.take(np.array([1]))
    query = replace(known, names=("query:task1",))
    assert metric.predict_features(query, candidates).task_weight == pytest.approx(1.0)
    np.testing.assert_allclose(
        metric.predict_features(query, candidates).mean, metric.predict_features(known, candidates).mean, rtol=1e-9
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_parts_of_the_residual_sum_to_it(protocol: str) -> None:
    metric, task, candidates = world()
    found = metric.predict_features(task, candidates, None, protocol)
    parts = metric.residual_parts(task, candidates, protocol)
    assert parts.shape == (8, 7)
    np.testing.assert_allclose(parts.sum(axis=1), found.residual, rtol=1e-9, atol=1e-12)


def test_wrong_questions() -> None:
    metric, task, candidates = world()
    for protocol in PROTOCOLS:
        with pytest.raises(MetricError, match="measured checkpoints that are not among the candidates: org/none"):
            metric.predict_features(task, candidates, {"org/none": Score.of_share(0.5, 10)}, protocol)
    index = zoo()
    found = RankingMetric.from_index(index)
    with pytest.raises(MetricError, match="protocol 'zero-shot' is unknown; choose 'fine-tune' or 'linear-probe'"):
        found.predict(embedding(9), index.checkpoints, protocol="zero-shot")
    other = embedding(9, weights_hash="cd" * 32)
    with pytest.raises(ProbeMismatchError, match=r"\(weights cdcdcdcdcdcd…\), the index with weights abababababab…"):
        found.predict(other, index.checkpoints)


def test_scores_without_training_move_nothing() -> None:
    index, task = zoo(), embedding(9)
    score = index.scores[index.scores["task"] == "task0"].iloc[0].dropna().to_dict()
    others = [{**score, "checkpoint": name, "protocol": "zero_shot", "score": 0.1} for name in ("org/mid", "org/small")]
    before = RankingMetric.from_index(index).predict(task, index.checkpoints)
    after = RankingMetric.from_index(index.add_scores(others)).predict(task, index.checkpoints)
    np.testing.assert_array_equal(before.mean, after.mean)


# ---------------------------------------------------------------------- what measurements make of a prediction


def conditioned(before: Prediction, measured: dict[str, Score]) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Level, logits, their covariance, and that before, from the joint Gaussian; the mode by a general solver."""
    n, every = len(before.ids), np.arange(len(before.ids))
    assert before.posterior is not None
    mean = np.concatenate([[0.0], before.mean])  # level, then results
    joint = np.zeros((n + 1, n + 1))
    joint[0, 0] = LEVEL_VARIANCE
    joint[1:, 1:] = before.unit**2 * before.posterior.covariance(every, every) + before.noise * np.eye(n)
    reads = np.zeros((len(measured), n + 1))
    for row, name in enumerate(measured):
        reads[row, 0] = reads[row, 1 + before.ids.index(name)] = 1.0
    share = np.array([(m.value * m.n + 0.5) / (m.n + 1) for m in measured.values()])
    count = np.array([m.n for m in measured.values()]) / (1.0 - SHARED_ERROR)
    m0, gram = reads @ mean, reads @ joint @ reads.T
    inverse = np.linalg.inv(gram)
    f = fsolve(lambda f: inverse @ (f - m0) - count * (share - expit(f)), m0, xtol=1e-12)
    error = 1.0 / (count * expit(f) * expit(-f))
    observed_y = f + error * count * (share - expit(f))
    gain = joint @ reads.T @ np.linalg.inv(gram + np.diag(error))
    after, spread = mean + gain @ (observed_y - m0), joint - gain @ reads @ joint
    ask = np.concatenate([np.ones((n, 1)), np.eye(n)], axis=1)
    return after[0], ask @ after, ask @ spread @ ask.T, ask @ joint @ ask.T


def some_measured(candidates: CheckpointFeatures, count: int, seed: int = 0) -> dict[str, Score]:
    rng = np.random.default_rng(seed)
    names = rng.permutation(candidates.ids)[:count]
    return {str(name): Score.of_share(int(rng.integers(0, 65)) / 64, 64) for name in names}


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("seed", range(2))
def test_measurements_against_the_joint_gaussian(seed: int, count: int) -> None:
    metric, task, candidates = world(seed)
    measured = some_measured(candidates, count, seed)
    level, mean, covariance, _ = conditioned(metric.predict_features(task, candidates), measured)
    found = metric.predict_features(task, candidates, measured)
    assert found.measured
    assert found.level == pytest.approx(level, rel=1e-7)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-7)
    np.testing.assert_allclose(found.mean, found.level + found.prior + found.residual + found.update)
    variance = np.diag(covariance)
    np.testing.assert_allclose(found.variance(), variance, rtol=1e-6)  # the level's variance cancels
    np.testing.assert_allclose(found.variance(np.array([6, 0])), variance[[6, 0]], rtol=1e-6)
    rows = np.array([5, 0])
    of_differences = variance[3] + variance[rows] - 2 * covariance[3, rows]
    np.testing.assert_allclose(found.variance_of_differences(3, rows), of_differences, rtol=1e-6)


def together(metric: RankingMetric, task: TaskFeatures, candidates: CheckpointFeatures) -> np.ndarray:
    """Covariance of fine-tuned with frozen results on a task: what all share, and what this task and its kind add."""
    p, known, scored = metric.parameters, metric._known, metric.data.checkpoints
    weights = dict(zip(SHARED_WITH, p.weights.T, strict=True))
    kernels = checkpoint_kernels(p, candidates, candidates)
    near = metric.task_similarity(task)[metric.data.tasks.embedded].max()
    groups = metric._query(task, FINE_TUNE), metric._query(task, LINEAR_PROBE)
    described = float(groups[0].described[0] @ groups[1].described[0]) / groups[0].described.shape[1]
    rest = (weights["similar"] + described * weights["described"]) * (1.0 - near**2 / 2.0)
    home = at_home(candidates.home, groups[0].kinds)
    before = np.tensordot(weights["all"] + rest, kernels, 1) + p.match * np.outer(home, home)
    of_scored = checkpoint_kernels(p, candidates, scored)
    everywhere, tuned, frozen = (np.tensordot(weights[name], of_scored, 1) for name in ("all", "tuned", "frozen"))
    tuned, frozen = np.hstack([everywhere, everywhere + tuned]), np.hstack([everywhere + frozen, everywhere])
    return np.asarray(np.sqrt(p.spreads[FINE_TUNE] * p.spreads[LINEAR_PROBE]) * (before - tuned @ known @ frozen.T))


def test_linear_probes_tell_of_fine_tuning() -> None:
    """Of standings as far as both protocols go together, of how hard the task is what the line says."""
    metric, task, candidates = world()
    measured = some_measured(candidates, 3)
    probed = metric.predict_features(task, candidates)
    level, mean, *_ = conditioned(probed, measured)
    blind = metric.predict_features(task, candidates, None, FINE_TUNE)
    found = metric.predict_features(task, candidates, measured, FINE_TUNE)
    line, scales = metric.parameters.levels[FINE_TUNE], metric.parameters.scales
    # Frozen results of the measured, their common mean taken out, pull at what goes together with them.
    at = [candidates.ids.index(name) for name in measured]
    before = probed.covariance(np.arange(len(candidates.ids)))
    pulls = np.linalg.solve(before[at][:, at], (mean - level - probed.mean)[at])
    cross = scales[FINE_TUNE] * scales[LINEAR_PROBE] * together(metric, task, candidates)[:, at]
    assert found.measured
    assert found.level == pytest.approx(line.intercept + line.slope * level, rel=1e-6)
    assert found.level == pytest.approx(metric.level(level, FINE_TUNE), rel=1e-6)
    np.testing.assert_allclose(found.mean, found.level + blind.mean + cross @ pulls, rtol=1e-6)
    np.testing.assert_allclose(found.variance(), blind.variance() + line.deviation**2, rtol=1e-9)
    rows = np.array([7, 2])  # how much surer a probe makes of the differences is not known
    differences = blind.variance_of_differences(1, rows)
    np.testing.assert_allclose(found.variance_of_differences(1, rows), differences, rtol=1e-9)


def test_what_further_linear_probes_would_tell_of_fine_tuning() -> None:
    metric, task, candidates = world()
    measured, rows = some_measured(candidates, 2), np.array([1, 4, 6])
    at = [candidates.ids.index(name) for name in measured]
    frozen = metric.predict_features(task, candidates)
    everything = np.arange(len(candidates.ids))
    after = metric.predict_features(task, candidates, measured)
    cross, left = metric.predict_features(task, candidates, measured, FINE_TUNE).probing(rows)
    np.testing.assert_allclose(left, after.covariance(rows), rtol=1e-6)
    # Normal conditioning of (fine-tuned, frozen) on the measured; their error follows from what is left of them.
    before = frozen.covariance(everything) + LEVEL_VARIANCE
    taken = before - after.covariance(everything)
    inner = before[at][:, at] @ np.linalg.solve(taken[at][:, at], before[at][:, at])
    scales = metric.parameters.scales
    both = scales[FINE_TUNE] * scales[LINEAR_PROBE] * together(metric, task, candidates)
    expected = both - both[:, at] @ np.linalg.solve(inner, before[at])
    np.testing.assert_allclose(cross, expected[np.ix_(rows, rows)], rtol=1e-4, atol=1e-7)


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


def test_one_measurement_of_an_unknown_level_moves_no_other() -> None:
    """A hard task must not look like a weakness of the one checkpoint that was measured on it."""
    covariance = np.array([[0.3, 0.2], [0.2, 0.3]])
    before = predicted([2.0, 1.9], covariance, 0.01)
    after = before.given({"a": Score.of_share(0.2, 200)})
    assert after.mean[0] == pytest.approx(math.log(0.25), abs=0.05)
    assert after.mean[0] - after.mean[1] == pytest.approx(0.1, abs=2e-3)


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
    kernel = task_kernel(observed.parameters(seed), features, features, np.eye(n, dtype=bool))
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    np.testing.assert_array_equal(np.diag(kernel), np.ones(n))
    assert kernel.min() >= 0.0
    assert kernel.max() <= 1.0 + 1e-12
    assert np.linalg.eigvalsh(kernel).min() > -1e-10


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12))
def test_checkpoint_kernels_are_covariances(seed: int, n: int) -> None:
    features = observed.checkpoints(n, seed)
    p = observed.parameters(seed)
    kernels = checkpoint_kernels(p, features, features)
    assert kernels.shape == (len(CHECKPOINT_KERNELS), n, n)
    np.testing.assert_allclose(kernels, kernels.transpose(0, 2, 1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(kernels, axis1=1, axis2=2), checkpoint_diagonal(p, features), rtol=1e-12)
    assert np.linalg.eigvalsh(kernels).min() > -1e-9


# ---------------------------------------------------------------------- files of an index


def test_an_index_keeps_the_solved_weights() -> None:
    index, task = zoo(), embedding(9)
    metric = RankingMetric.from_index(index, observed.parameters())
    kept = index.with_attachments(metric.files({"n_scores": 28}))
    mean = metric.predict(task, index.checkpoints).mean
    again = RankingMetric.from_index(kept)
    assert again.parameters == metric.parameters
    assert again.solved is not None
    np.testing.assert_array_equal(again.weights, metric.weights)
    np.testing.assert_array_equal(again.predict(task, index.checkpoints).mean, mean)
    # They do not depend on what turns standings into accuracies; of other scores or variances they are solved anew.
    spread = replace(metric.parameters, spreads={FINE_TUNE: 3.0}, scales={}, levels={})
    assert RankingMetric.from_index(kept.with_attachments({"metric.json": spread.to_json()})).solved is not None
    score = index.scores.iloc[0].dropna().to_dict()
    others = RankingMetric.from_index(kept.add_scores([{**score, "checkpoint": "org/unscored", "score": 0.99}]))
    other = RankingMetric.from_index(kept, observed.parameters(match=0.1))
    changed = kept.with_attachments({"metric.json": other.parameters.to_json()})
    for found in (others, other, RankingMetric.from_index(changed)):
        assert found.solved is None
        np.testing.assert_allclose(found.covariance() @ found.weights, found.y, rtol=1e-8, atol=1e-10)
    assert not np.allclose(others.predict(task, index.checkpoints).mean, mean)


def test_damaged_weights() -> None:
    index = zoo()
    files = RankingMetric.from_index(index, observed.parameters()).files()
    for damaged in (b"", b"no safetensors", files[WEIGHTS_FILE][:-9]):
        with pytest.raises(MetricError, match=r"metric\.safetensors cannot be read: "):
            RankingMetric.from_index(index.with_attachments({**files, WEIGHTS_FILE: damaged}))


def test_many_scores_are_solved_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_metric, "_WORTH_KEEPING", 1)
    metric, task, candidates = world()
    first, rows = metric.predict_features(task, candidates), np.arange(3)
    for what in ("_solve", "_find_known"):
        monkeypatch.setattr(RankingMetric, what, lambda _: pytest.fail("solved again"))
    again = replace(metric).predict_features(task, candidates)
    np.testing.assert_array_equal(again.mean, first.mean)
    np.testing.assert_array_equal(again.covariance(rows), first.covariance(rows))


def test_the_cache_holds_the_last_few(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_metric, "_WORTH_KEEPING", 1)
    monkeypatch.setattr(ranking_metric, "_MOST_KEPT", 3)
    folder = own_cache / "metric"
    folder.mkdir(parents=True)
    for age in range(4):
        (folder / f"old{age}").touch()
        os.utime(folder / f"old{age}", (1e9 - age, 1e9 - age))
    metric, task, candidates = world()
    metric.predict_features(task, candidates).covariance(np.arange(2))
    assert sorted(path.name.split(".", 1)[-1] for path in folder.iterdir()) == [
        "known.safetensors", "old0", "weights.safetensors"
    ]  # fmt: skip


def test_a_damaged_copy_in_the_cache_is_solved_again(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_metric, "_WORTH_KEEPING", 1)
    metric, task, candidates = world()
    first, rows = metric.predict_features(task, candidates), np.arange(3)
    assert first.covariance(rows).any()
    kept = list(own_cache.rglob("*.safetensors"))
    assert len(kept) == 2
    for file in kept:
        file.write_bytes(b"damaged")
    again = replace(metric).predict_features(task, candidates)
    np.testing.assert_allclose(again.mean, first.mean)
    np.testing.assert_allclose(again.covariance(rows), first.covariance(rows))


# ---------------------------------------------------------------------- metric.json

_positive = st.floats(1e-6, 1e5)
_finite = st.floats(-1e5, 1e5)
_names = st.text(min_size=1, max_size=8)


@st.composite
def parameters(draw: st.DrawFn) -> MetricParameters:
    row = st.dictionaries(st.sampled_from(SHARED_WITH), _positive)
    return MetricParameters(
        **{name: draw(_positive) for name in MetricParameters().scalars()},
        variances=draw(st.dictionaries(st.sampled_from(CHECKPOINT_KERNELS), row, max_size=3)),
        lengths=draw(st.dictionaries(st.sampled_from(TASK_DESCRIPTORS), _positive)),
        noises=draw(st.dictionaries(_names, _positive, max_size=3)),
        scales=draw(st.dictionaries(_names, _positive, max_size=2)),
        levels=draw(st.dictionaries(_names, st.builds(Level, _finite, _finite, _positive), max_size=2)),
    )


@given(parameters())
def test_round_trip(values: MetricParameters) -> None:
    written = values.to_json({"n_scores": 3})
    assert MetricParameters.from_json(written) == values
    assert written.endswith(b"}\n")


def document(**changes: Any) -> dict[str, Any]:
    return {**json.loads(MetricParameters().to_json()), **changes}


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
        (changed(match=0.0), "match = 0.0: Input should be greater than 0"),
        (changed(match=float("nan")), "match = nan: "),
        (changed(match=10**400), "match = "),
        (changed(match="4"), "match = '4': Input should be a valid number"),
        (changed(match=True), "match = True: "),
        (changed(noises=[1.0]), r"noises = \[1.0\]: Input should be "),
        (changed(noises={"lab": "low"}), r"noises.lab = 'low': Input should be a valid number"),
        (changed(lengths={"colour": 1.0}), "lengths names what is unknown: colour"),
        (changed(variances={"colour": {}}), "variances names what is unknown: colour"),
        (changed(variances={"own": {"all": 1.0, "some": 1.0}}), "variances.own names what is unknown: some"),
        (changed(variances={"own": {"all": -1.0}}), "variances.own.all = -1.0: Input should be greater than 0"),
        (changed(levels={"fine-tune": {"slope": None}}), "levels.fine-tune.slope = None: Input should be a valid num"),
        (changed(levels={"fine-tune": {"offset": 1.0}}), "levels.fine-tune.offset = 1.0: Unexpected keyword argument"),
        (changed(loadings={"org/a": [1.0], "org/b": [1.0, 2.0]}), "loadings must give every checkpoint the same"),
        (changed(offset=3.0), "offset = 3.0: Unexpected keyword argument"),
        (json.dumps(document(parameters=[])).encode(), "parameters = "),
    ],
)
def test_malformed_files(data: bytes, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        MetricParameters.from_json(data)


@pytest.mark.parametrize("version", [2, SCHEMA_VERSION + 1, None, "3", [3]])
def test_other_versions(version: Any) -> None:
    message = f"has schema version .*this version reads {SCHEMA_VERSION}"
    with pytest.raises(MetricError, match=message):
        MetricParameters.from_json(json.dumps(document(schema_version=version)).encode())
    with pytest.raises(MetricError, match=message):
        MetricParameters.from_json(b"[]")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(name=st.sampled_from(sorted(document()["parameters"])), value=_json)
@example("noises", {"": 10**30})
@example("variances", {"own": []})
def test_any_value_is_read_or_refused(name: str, value: Any) -> None:
    try:
        found = MetricParameters.from_json(changed(**{name: value}))
    except MetricError:
        return
    assert MetricParameters.from_json(found.to_json()) == found


@given(st.binary(max_size=200) | _json.map(lambda value: json.dumps(value).encode()))
def test_any_file_is_refused(data: bytes) -> None:
    with pytest.raises(MetricError):
        MetricParameters.from_json(data)
