"""Embedding tasks: what must not matter does not, what must does, and the descriptors are what they are called."""

from __future__ import annotations

import json
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch import nn

from hf_task2vec.embedding.descriptors import class_separation
from hf_task2vec.embedding.distance import pairwise
from hf_task2vec.embedding.embed import embed_task, library_versions
from hf_task2vec.embedding.task_embedding import DESCRIPTORS, TaskEmbedding
from hf_task2vec.errors import EmbeddingError, FisherError
from hf_task2vec.fisher.head import fit_head
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task
from tests.support.synthetic import SIZES, as_dataset, dataset, pictures, tiny_probe


@pytest.fixture(scope="module")
def probe() -> Probe:
    return tiny_probe()


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.from_dataset(dataset(), seed=0)


@pytest.fixture(scope="module")
def embedded(task: Task, probe: Probe) -> TaskEmbedding:
    return embed_task(task, probe)


def task_of(images: list[np.ndarray], labels: list[int], classes: int, **options: Any) -> Task:
    return Task.from_dataset(as_dataset(images, labels, classes), max_samples=None, **options)


# ---------------------------------------------------------------------- the vector


def test_default_probe_on_digits() -> None:
    embedding = embed_task(Task.from_dataset("sklearn:digits", max_samples=20), batch_size=10)
    assert embedding.probe["name"] == "timm/tf_efficientnet_lite0.in1k"
    assert embedding.values.shape == (1, 21_008)  # output channels of its 49 convolutions
    assert len(embedding.layer_names) == 49
    assert np.ptp(np.log(embedding.values[embedding.values > 0])) > 1.0
    assert (embedding.values > 0).mean() > 0.5
    assert embedding.name == "sklearn:digits"
    facts = embedding.descriptors
    assert (facts["n_classes"], facts["n_samples"], facts["n_rows"]) == (10, 20, 1797)
    assert (facts["median_side_px"], facts["grey_share"]) == (8, 1)


def test_what_it_holds(embedded: TaskEmbedding, task: Task, probe: Probe) -> None:
    assert embedded.layer_sizes.tolist() == list(SIZES)
    assert embedded.probe == probe.config
    assert embedded.task == task.describe()
    assert embedded.config == {"label_sampling": "sketch", "seed": 0}
    assert set(embedded.descriptors) == set(DESCRIPTORS)
    features = probe.features(torch.stack([probe.transform(image) for image in task.images])).numpy()
    np.testing.assert_allclose(embedded.feature_mean[0], features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(embedded.feature_var[0], features.var(axis=0), rtol=1e-4)


def test_values_are_the_fisher_information(task: Task, probe: Probe) -> None:
    """Against backpropagation image by image with the exact expectation over labels."""
    batch = torch.stack([probe.transform(image) for image in task.images])
    head = fit_head(probe.features(batch).double().numpy(), task.labels, task.num_classes)
    weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    network = tiny_probe().module.double().requires_grad_(True)
    convolutions = [m for m in network if isinstance(m, nn.Conv2d)]
    expected = [np.zeros(size) for size in SIZES]
    for image in batch.double():
        log_p = torch.log_softmax(network(image[None])[0] @ weight.T + bias, dim=0)
        for c in range(len(log_p)):
            gradients = torch.autograd.grad(log_p[c], [m.weight for m in convolutions], retain_graph=True)
            for total, gradient in zip(expected, gradients, strict=True):
                total += float(log_p[c].detach().exp()) * gradient.square().mean(dim=(1, 2, 3)).numpy() / len(batch)
    exact = embed_task(task, probe, label_sampling="exact")
    np.testing.assert_allclose(exact.values, np.concatenate(expected)[None], rtol=1e-4)


def test_seed_changes_the_draws_alone(embedded: TaskEmbedding, task: Task, probe: Probe) -> None:
    other, exact, again = (
        embed_task(task, probe, seed=seed, label_sampling=sampling)
        for seed, sampling in ((1, "sketch"), (0, "exact"), (1, "exact"))
    )
    assert not np.allclose(other.values, embedded.values, rtol=1e-2)
    np.testing.assert_allclose(other.feature_mean, embedded.feature_mean, rtol=1e-6)
    np.testing.assert_allclose(again.values, exact.values, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_batch_size_and_another_run_do_not_matter(embedded: TaskEmbedding, task: Task, batch_size: int) -> None:
    other = embed_task(task, tiny_probe(), batch_size=batch_size)
    for name in ("values", "feature_mean", "feature_var"):
        np.testing.assert_allclose(getattr(other, name), getattr(embedded, name), rtol=1e-5, atol=1e-9)
    assert other.descriptors == pytest.approx(embedded.descriptors, rel=1e-4)


def test_numbers_of_classes_do_not_matter(probe: Probe) -> None:
    images, labels = pictures(12), [i % 3 for i in range(12)]
    first = task_of(images, labels, 3)
    renamed = task_of(images, [(label + 1) % 3 for label in labels], 3)
    renamed = renamed.subset([int(np.flatnonzero(renamed.indices == row)[0]) for row in first.indices])
    a, b = (embed_task(task, probe, label_sampling="exact") for task in (first, renamed))
    np.testing.assert_allclose(b.values, a.values, rtol=1e-3, atol=1e-9)
    for name in set(DESCRIPTORS) - {"noise"}:  # its halves follow the classes' order
        assert b.descriptors[name] == pytest.approx(a.descriptors[name]), name


def test_two_halves_of_a_task_are_nearer_than_another_task(probe: Probe) -> None:
    whole = Task.from_dataset(dataset(96), max_samples=None)
    other = Task.from_dataset(dataset(48, 2, size=(40, 40)), max_samples=None)
    halves = [embed_task(whole.subset(range(start, 96, 2)), probe) for start in (0, 1)]
    matrix = pairwise([*halves, embed_task(other, probe)])
    assert matrix[0, 1] < min(matrix[0, 2], matrix[1, 2])


# ---------------------------------------------------------------------- descriptors


def test_class_separation_is_omega_squared() -> None:
    """Against the table of a one-way analysis of variance by hand."""
    x = np.array([[1.0], [2.0], [3.0], [5.0], [7.0], [9.0]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    between, within, total = 3 * (2 - 4.5) ** 2 + 3 * (7 - 4.5) ** 2, 2.0 + 8.0, 47.5
    assert between + within == total
    mean_square = within / (6 - 2)
    assert class_separation(x, labels) == pytest.approx((between - mean_square) / (total + mean_square))
    two = np.column_stack([labels, 1 - labels])
    assert class_separation(x, two) == pytest.approx(class_separation(x, labels))
    assert class_separation(x, labels + 5) == pytest.approx(class_separation(x, labels))  # gaps in the numbers


def test_class_separation_at_its_ends() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2000, 4))
    assert class_separation(noise, rng.integers(0, 5, 2000)) == pytest.approx(0.0, abs=0.01)
    labels = np.arange(20) % 2
    assert class_separation(np.eye(2)[labels], labels) == pytest.approx(1.0)
    assert class_separation(np.ones((4, 2)), np.array([0, 1, 0, 1])) == 0.0  # no variance
    assert class_separation(noise[:3], np.array([0, 1, 2])) == 0.0  # nothing within classes
    assert class_separation(noise[:3], np.zeros(3, dtype=np.int64)) == 0.0  # one class


def test_facts_of_the_split_and_of_its_images(probe: Probe) -> None:
    """The classes' balance is that of the split, not of the balanced sample."""
    grey = [np.repeat(image[..., :1], 3, axis=2) for image in pictures(4, size=(30, 30))]
    images = [*pictures(12, size=(20, 5)), *grey]
    task = Task.from_dataset(as_dataset(images, [0] * 12 + [1] * 4, 3), max_samples=8)
    assert np.bincount(task.labels).tolist() == [4, 4]
    facts = embed_task(task, probe).descriptors
    p = np.array([0.75, 0.25])
    assert facts["class_balance"] == pytest.approx(-(p * np.log2(p)).sum())
    assert (facts["n_classes"], facts["n_samples"], facts["n_rows"]) == (3, 8, 16)
    assert facts["median_side_px"] == pytest.approx(20.0)  # geometric means 10 and 30
    assert facts["grey_share"] == pytest.approx(0.5)


def test_accuracy_of_an_easy_and_of_a_meaningless_task(probe: Probe) -> None:
    easy = embed_task(Task.from_dataset(dataset(60), max_samples=None), probe).descriptors
    images = [np.random.default_rng(i).integers(0, 255, (12, 12, 3)).astype(np.uint8) for i in range(60)]
    chance = embed_task(task_of(images, [i % 3 for i in range(60)], 3), probe).descriptors
    assert easy["linear_probe_accuracy"] > 0.9
    assert easy["linear_probe_accuracy_gain"] == pytest.approx((easy["linear_probe_accuracy"] - 1 / 3) / (2 / 3))
    assert chance["linear_probe_accuracy"] < 0.6
    assert easy["class_separation"] > 0.3 > abs(chance["class_separation"])
    assert 0.0 <= easy["noise"] <= 1.0


def test_describe_is_json(embedded: TaskEmbedding) -> None:
    document = json.loads(json.dumps(embedded.describe(), allow_nan=False))
    assert document["task"]["label_names"] == ["class 0", "class 1", "class 2"]
    assert document["layers"] == [{"name": "0", "n_filters": 8}, {"name": "2", "n_filters": 16}]
    assert document["versions"] == library_versions()
    assert {"hf_task2vec", "torch", "timm"} <= document["versions"].keys()


# ---------------------------------------------------------------------- other kinds of task


def test_multi_label(probe: Probe) -> None:
    images = pictures(24, 4)
    labels = [[i % 4, 3] if i % 2 else [i % 4] for i in range(24)]
    column = datasets.List(datasets.ClassLabel(names=list("abcd")))
    data = as_dataset(images, [0] * 24, 1).remove_columns("label").add_column("label", labels)
    task = Task.from_dataset(data.cast_column("label", column), max_samples=None)
    assert task.label_kind == "multi_label"
    embedding = embed_task(task, probe)
    assert np.isfinite(embedding.values).all()
    assert np.ptp(embedding.values) > 0
    assert embedding.descriptors["n_classes"] == 4
    assert embedding.descriptors["linear_probe_accuracy"] > 0.7
    assert 0.5 < embedding.descriptors["linear_probe_accuracy_gain"] <= embedding.descriptors["probe_map"] <= 1.0
    assert json.dumps(embedding.describe(), allow_nan=False)


@pytest.mark.parametrize(("count", "classes"), [(2, 2), (3, 3), (5, 4)])
def test_few_images(probe: Probe, count: int, classes: int) -> None:
    embedding = embed_task(task_of(pictures(count, classes), [i % classes for i in range(count)], classes), probe)
    assert np.isfinite(embedding.values).all()
    assert 0.0 <= embedding.descriptors["linear_probe_accuracy"] <= 1.0


# ---------------------------------------------------------------------- errors and output


def test_images_that_look_alike_to_the_probe(task: Task) -> None:
    options = {"transform": lambda image: torch.zeros(3, 16, 16), "feature_dim": 16, "input_size": (3, 16, 16)}
    with pytest.raises(FisherError, match=r"same features for all 24 images.*are the images identical"):
        embed_task(task, Probe.wrap(tiny_probe().module, **options))


def test_features_that_are_not_finite(task: Task) -> None:
    class Overflow(nn.Module):
        """Sound on the blank image that a probe is tried on, not on others."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(1e4 * self.conv(x).abs()).mean(dim=(2, 3))

    probe = Probe.wrap(Overflow(), transform=tiny_probe().transform, feature_dim=4, input_size=(3, 16, 16))
    with pytest.raises(FisherError, match="features are not finite"):
        embed_task(task, probe)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"label_sampling": "paper"}, "'paper' is unknown; choose one of sketch, exact, monte_carlo"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
    ],
)
def test_arguments_are_checked_before_the_work(
    task: Task, probe: Probe, monkeypatch: pytest.MonkeyPatch, argument: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(Probe, "features", lambda *_: pytest.fail("worked"))
    with pytest.raises(EmbeddingError, match=message):
        embed_task(task, probe, **argument)


def test_progress_goes_to_stderr(task: Task, probe: Probe, capfd: pytest.CaptureFixture[str]) -> None:
    embed_task(task, probe)
    assert capfd.readouterr() == ("", "")
    embed_task(task, probe, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "features" in err
    assert "48/48" in err or "Fisher" in err


# ---------------------------------------------------------------------- other estimators


def test_variational(embedded: TaskEmbedding, task: Task, probe: Probe) -> None:
    smoothed = embed_task(task, probe, estimator="variational")
    assert smoothed.config == {**embedded.config, "estimator": "variational"}
    assert set(smoothed.descriptors) == set(DESCRIPTORS)
    assert not np.allclose(smoothed.values, embedded.values, rtol=1e-2)
    with pytest.raises(EmbeddingError, match="estimator='bayes' is unknown; choose one of fisher, variational"):
        embed_task(task, probe, estimator="bayes")
