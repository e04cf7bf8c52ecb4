"""The alternatives to the trained metric do what they are called, and all metrics can be used alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.selection.baselines import (
    ALL_METRICS,
    BestImageNet,
    Model2Vec,
    NearestAsymmetric,
    NearestSymmetric,
    RidgeOnDescriptors,
    ShareOfWins,
    _distances,
)
from hf_task2vec.embedding.distance import asymmetric, relative_fisher, symmetric
from hf_task2vec.errors import MetricError
from hf_task2vec.metric.observations import CHECKPOINT_FACTS, Observations, additive_fit
from hf_task2vec.metric.ranking_metric import Metric
from hf_task2vec.metric.static import METRICS, Static, load_metric
from hf_task2vec.metric.task_space import TASK_DESCRIPTORS, TaskFeatures
from hf_task2vec.probes.scores import Score
from hf_task2vec.zoo.index import ZooIndex
from tests.support import observed
from tests.support.synthetic import REFERENCES, embedding, zoo


def complete(n_tasks: int = 9, n_checkpoints: int = 5, seed: int = 0) -> Observations:
    return observed.observations(observed.tasks(n_tasks, seed), observed.checkpoints(n_checkpoints, seed), seed)


def query(seed: int = 99) -> TaskFeatures:
    return observed.tasks(1, seed, prefix="query")


# ---------------------------------------------------------------------- task-blind rules


def test_static_is_the_mean_centred_logit() -> None:
    data = complete()
    y = data.y.reshape(9, 5)
    expected = (y - y.mean(axis=1, keepdims=True)).mean(axis=0)
    found = Static(observed.space(), data).predict_features(query(), data.checkpoints)
    np.testing.assert_allclose(found.mean, expected * 9 / 9.1, rtol=1e-9)  # a tenth of a score of shrinkage
    np.testing.assert_array_equal(found.residual, np.zeros(5))


@given(seed=st.integers(0, 1000), share=st.floats(0.2, 1.0))
def test_additive_fit_is_least_squares(seed: int, share: float) -> None:
    data = observed.observations(observed.tasks(7, seed), observed.checkpoints(5, seed), seed, share=share)
    if not len(data.y):
        return
    levels, standings = np.eye(7)[data.group], np.eye(5)[data.checkpoint]
    shrinkage = np.concatenate([np.zeros((5, 7)), np.sqrt(0.1) * np.eye(5)], axis=1)
    design = np.concatenate([np.concatenate([levels, standings], axis=1), shrinkage])
    fitted = np.linalg.lstsq(design, np.concatenate([data.y, np.zeros(5)]), rcond=None)[0]
    standing, left = additive_fit(data)
    np.testing.assert_allclose(standing, fitted[7:], atol=1e-9)
    np.testing.assert_allclose(left, data.y - levels @ fitted[:7] - standing[data.checkpoint], atol=1e-9)


def test_checkpoints_without_scores_are_judged_by_their_facts() -> None:
    """Also those that lost their scores when a task was held out: they are not simply average."""
    scored = observed.checkpoints(120)
    scored.numbers[7, 0] = 5.0  # clearly the best
    y = np.tile(2.0 * scored.numbers[:, 0], (6, 1))
    data = observed.observations(observed.tasks(6), scored, y=y)
    lost = int(np.argmax(scored.numbers[:, 0]))
    left = data.rows(data.checkpoint != lost)
    for part in (data, left):
        fresh = observed.checkpoints(5, seed=3, first=1000)
        found = Static(observed.space(), part).predict_features(query(), fresh).mean
        np.testing.assert_allclose(found - found[0], 2.0 * (fresh.numbers - fresh.numbers[0])[:, 0], atol=0.4)
    assert np.argmax(Static(observed.space(), left).predict_features(query(), scored).mean) == lost


def test_share_of_wins_by_hand() -> None:
    y = [[3.0, 1.0, 0.0], [3.0, 3.0, 0.0], [0.0, 1.0, 0.5], [9.0, 1.0, 2.0]]
    data = observed.observations(observed.tasks(4), observed.checkpoints(3), y=y)
    candidates = observed.checkpoints(4)  # one of them has no scores
    metric = ShareOfWins(observed.space(), data)
    assert metric.predict_features(query(), candidates).mean.tolist() == [0.75, 0.5, 0.0, 0.0]
    some = data.rows((data.task != 3) | (data.checkpoint == 2))  # alone there, the third wins
    metric = ShareOfWins(observed.space(), some)
    np.testing.assert_allclose(metric.predict_features(query(), candidates).mean, [2 / 3, 2 / 3, 1 / 4, 0.0])


def test_best_imagenet_by_hand() -> None:
    candidates = observed.checkpoints(4)
    numbers, unknown = candidates.numbers.copy(), CHECKPOINT_FACTS.index("no_classifier")
    numbers[:, [0, unknown]] = [[0.4, 0.0], [-2.0, 0.0], [0.0, 1.0], [1.6, 0.0]]
    metric = BestImageNet(observed.space(), complete())
    found = metric.predict_features(query(), replace(candidates, numbers=numbers)).mean
    assert found.tolist() == [0.2, -1.0, -1.5, 0.8]  # the unknown one comes last
    numbers[:, unknown] = 1.0
    assert len(set(metric.predict_features(query(), replace(candidates, numbers=numbers)).mean)) == 1


# ---------------------------------------------------------------------- rules that look at the task


def test_ridge_on_descriptors_by_scikit_learn() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    known = observed.tasks(14, unknown=2)
    data = observed.observations(known, observed.checkpoints(4), share=0.8)
    metric, task = RidgeOnDescriptors(observed.space(), data), query()
    _, left = additive_fit(data)
    scaler = StandardScaler().fit(known.descriptors[:12])
    expected = []
    for c in range(4):
        own = (data.checkpoint == c) & (data.task < 12)
        model = Ridge(alpha=len(TASK_DESCRIPTORS), fit_intercept=False)
        model.fit(scaler.transform(known.descriptors[data.task[own]]), left[own])
        expected.append(model.predict(scaler.transform(task.descriptors))[0])
    found = metric.predict_features(task, observed.checkpoints(5))
    np.testing.assert_allclose(found.residual, [*expected, 0.0], rtol=1e-9)
    np.testing.assert_allclose(found.prior[:4], additive_fit(data)[0])


@pytest.mark.parametrize("kind", [NearestSymmetric, NearestAsymmetric])
def test_the_nearest_task_is_copied(kind: type[NearestSymmetric]) -> None:
    known = observed.tasks(6, unknown=1)
    data = observed.observations(known, observed.checkpoints(3))
    metric, task = kind(observed.space(), data), query()
    values = known.values.astype(np.float64)
    target = task.values[0].astype(np.float64)
    distance = symmetric if kind is NearestSymmetric else asymmetric
    distances = distance(values[:5], target[None], np.array(observed.LAYERS))[:, 0].tolist()
    first, second = np.argsort(distances)[:2]
    np.testing.assert_allclose(metric.distances(task)[:5], distances)
    assert metric.distances(task)[5] == np.inf

    def standing(part: Observations, t: int, c: int) -> float:
        return float(sum(additive_fit(part)[0][c] + additive_fit(part)[1][(part.task == t) & (part.checkpoint == c)]))

    found = metric.predict_features(task, observed.checkpoints(4))
    np.testing.assert_allclose(found.mean[:3], [standing(data, first, c) for c in range(3)])
    assert found.residual[3] == 0.0  # it has no scores
    # Without a score on the nearest task, a candidate's standing on the second nearest counts.
    poor = data.rows(~((data.task == first) & (data.checkpoint == 1)))
    found = kind(observed.space(), poor).predict_features(task, observed.checkpoints(3))
    nearest = [first, second, first]
    np.testing.assert_allclose(found.mean, [standing(poor, nearest[c], c) for c in range(3)])


def test_the_asymmetric_distance_prefers_the_complex_task() -> None:
    """Two tasks are equally far; one is the trivial task itself."""
    layers, trivial = np.array(observed.LAYERS), np.ones(10)
    task = np.array([1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    complex_one = task**2 / trivial  # in the other direction
    known = replace(observed.tasks(2), values=np.stack([trivial, complex_one]).astype(np.float32))
    features = replace(query(), values=task[None].astype(np.float32))
    data = observed.observations(known, observed.checkpoints(2))
    near = NearestSymmetric(observed.space(), data).distances(features)
    far = NearestAsymmetric(observed.space(), data).distances(features)
    assert near[0] == pytest.approx(near[1], rel=1e-6)
    assert far[1] < far[0] - 1e-3
    assert far[1] == pytest.approx(asymmetric(complex_one[None], task[None], layers)[0, 0], rel=1e-5)


def clustered(per_cluster: int = 5, filters: int = 40) -> tuple[Observations, TaskFeatures]:
    """Tasks in three clusters, each with a checkpoint of its own that is best; the last three tasks are for testing."""
    rng = np.random.default_rng(0)
    n = 3 * (per_cluster + 1)
    centres = rng.normal(0, 1.0, (3, filters))
    values = np.exp(centres[np.arange(n) % 3] + rng.normal(0, 0.3, (n, filters))).astype(np.float32)
    features = replace(observed.tasks(n), values=values)
    y = 2.0 * np.eye(4)[np.arange(n) % 3] + rng.normal(0, 0.1, (n, 4))  # the fourth is best nowhere
    known = features.take(np.arange(n - 3))
    return observed.observations(known, observed.checkpoints(4), y=y[:-3]), features.take(np.arange(n - 3, n))


def test_model2vec_picks_the_checkpoint_of_the_cluster() -> None:
    data, queries = clustered()
    metric = Model2Vec(observed.space((15, 25)), data)
    for i in range(3):
        found = metric.predict_features(queries.take(np.array([i])), observed.checkpoints(5))
        assert int(np.argmax(found.mean)) == i
        assert int(np.argmin(found.mean)) == 4  # never seen
        assert found.prior.tolist() == [0.0] * 5


def test_model2vec_measures_the_asymmetric_distance() -> None:
    import torch

    layers, rng = np.array((15, 25)), np.random.default_rng(0)
    points, known = (relative_fisher(rng.lognormal(size=(n, 40)), layers) for n in (3, 2))
    found = _distances(torch.from_numpy(np.log(points)), torch.from_numpy(np.log(known))).numpy()
    expected = asymmetric(points, known, layers).T
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# ---------------------------------------------------------------------- all metrics alike


@pytest.fixture(scope="module")
def index() -> ZooIndex:
    return zoo()


@pytest.fixture(scope="module", params=ALL_METRICS)
def metric(request: pytest.FixtureRequest, index: ZooIndex) -> Metric:
    return ALL_METRICS[request.param].from_index(index)


def test_one_interface(metric: Metric, index: ZooIndex) -> None:
    n, task = len(index.checkpoints), metric.space.of_embedding(embedding(50))
    found = metric.predict(embedding(50), index.checkpoints)
    assert found.ids == tuple(index.checkpoints["hub_id"])
    assert found.prior.shape == found.residual.shape == found.mean.shape == found.variance().shape == (n,)
    assert np.isfinite(found.mean).all()
    assert (found.variance() > 0.0).all()
    assert 0.0 <= found.task_weight <= 1.0
    similarity = metric.task_similarity(task)
    assert similarity.shape == (len(REFERENCES),)
    assert 0.0 <= similarity.min() <= similarity.max() <= 1.0
    assert metric.residual_parts(task, metric.data.checkpoints.take(np.array([0]))).shape == (1, len(REFERENCES))
    assert set(metric.data.scores_by_checkpoint().values()) == {len(REFERENCES)}


def test_measurements_fix_the_level(metric: Metric, index: ZooIndex) -> None:
    first = index.checkpoints["hub_id"][0]
    task, checkpoints = embedding(50), index.checkpoints
    low, high = (
        metric.predict(task, checkpoints, {first: Score.of_share(p, 4000)}, "linear-probe") for p in (0.3, 0.9)
    )
    assert low.measured
    assert np.isfinite(low.mean).all()
    assert (high.mean > low.mean).all()
    assert (low.variance() > 0.0).all()
    assert high.mean[0] == pytest.approx(np.log(9.0), abs=0.05)


def test_unknown_metric(index: ZooIndex) -> None:
    assert list(METRICS) == ["trained", "static"]
    with pytest.raises(MetricError, match="metric 'best' is unknown; choose one of trained, static"):
        load_metric("best", index)


@pytest.mark.parametrize("name", METRICS)
def test_an_index_without_evidence(index: ZooIndex, name: str) -> None:
    with pytest.raises(MetricError, match="the index holds no task embeddings"):
        load_metric(name, ZooIndex(rows=index.rows))
    with pytest.raises(MetricError, match="the index holds no two comparable scores"):
        load_metric(name, ZooIndex(rows={**index.rows, "scores": index.rows["scores"][:1]}, embedded=index.embedded))
