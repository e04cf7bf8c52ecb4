"""Measuring checkpoints on a task: the score, against refits by brute force, and the whole way from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.scores import (
    Score,
    average_precisions,
    mean_average_precision,
    ridge_leave_one_out,
    ridge_predictions,
)
from hf_task2vec.probes.transfer import extract_features, linear_probe, score_features
from hf_task2vec.tasks.task import Task
from tests.support.architectures import save_timm
from tests.support.synthetic import blobs


def transform(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image.resize((8, 8)), np.float32)).permute(2, 0, 1) / 255


def pixels() -> Probe:
    return Probe.wrap(nn.Flatten(), transform=transform, feature_dim=192, input_size=(3, 8, 8), name="pixels")


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.from_dataset("sklearn:digits", max_samples=120)


# ---------------------------------------------------------------------- from a checkpoint to its score


def test_a_probe_that_solves_the_task(digits: Task) -> None:
    found = linear_probe(pixels(), digits, batch_size=50)
    assert found.n == 120
    assert found.value > 0.75
    assert found.std_error == pytest.approx(np.sqrt(found.value * (1 - found.value) / 120), rel=0.1)
    # The same pixels with shuffled labels are no better than chance.
    features = extract_features(pixels(), digits)
    assert score_features(features, np.random.default_rng(0).permutation(digits.labels)).value < 0.3


def test_features_are_in_the_order_of_the_task(digits: Task) -> None:
    features = extract_features(pixels(), digits, batch_size=7)
    assert features.dtype == np.float32
    expected = np.stack([transform(digits.images[i]).flatten().numpy() for i in range(len(digits))])
    np.testing.assert_array_equal(features, expected)


def test_a_random_timm_network_from_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_timm(tmp_path)
    task = Task.from_dataset("sklearn:digits", max_samples=30)
    by_name = linear_probe(str(tmp_path), task, device="cpu")
    assert by_name == linear_probe(Probe.from_pretrained(str(tmp_path)), task, batch_size=4)


def test_a_missing_checkpoint(tmp_path: Path, digits: Task) -> None:
    with pytest.raises(ProbeError, match="absent"):
        linear_probe(f"{tmp_path}/absent", digits)


def test_non_finite_features_are_refused() -> None:
    features = np.ones((4, 2), np.float32)
    features[2, 1] = np.nan
    for labels in (np.array([0, 1, 0, 1]), np.eye(4, 3, dtype=np.int64)):
        with pytest.raises(ProbeError, match="features are not finite; check its weights"):
            score_features(features, labels)


# ---------------------------------------------------------------------- the closed form


def refits(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Predictions for each example by a ridge regression with intercept, fitted on all others.

    Second, the same with the class frequencies of all examples in the intercept.
    """
    rows, decisions = [], []
    for i in range(len(x)):
        keep = np.arange(len(x)) != i
        design = np.column_stack([x[keep], np.ones(keep.sum())])
        penalties = penalty * np.eye(design.shape[1])
        penalties[-1, -1] = 0.0
        rows.append(np.append(x[i], 1.0) @ np.linalg.solve(design.T @ design + penalties, design.T @ y[keep]))
        decisions.append(rows[-1] - y[keep].mean(0) + y.mean(0))
    return np.array(rows), np.array(decisions)


@pytest.mark.parametrize(("n", "d"), [(30, 4), (12, 40), (9, 9)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("several", [False, True])
def test_the_closed_form_equals_explicit_refits(n: int, d: int, penalty: float, several: bool) -> None:
    features, labels = blobs(n, d)
    targets = (np.random.default_rng(1).random((n, 4)) < 0.4).astype(float) if several else np.eye(3)[labels]
    centred = features - features.mean(0)
    scale = np.trace(centred @ centred.T) / min(n - 1, d)
    _, expected = refits(features, targets, penalty * scale)
    np.testing.assert_allclose(ridge_predictions(features, targets, (penalty,)), expected, rtol=1e-9, atol=1e-9)
    if not several:
        right = ridge_leave_one_out(features, labels, grid=(penalty,))
        np.testing.assert_array_equal(right, expected.argmax(1) == labels)


def test_the_penalty_of_least_error_is_taken() -> None:
    features, labels = blobs(40, 30, spread=0.7)
    y = np.eye(3)[labels]
    centred = features - features.mean(0)
    scale = np.trace(centred @ centred.T) / 30
    grid = (1e-3, 1e-1, 1.0, 100.0)
    candidates = [refits(features, y, penalty * scale) for penalty in grid]
    best = int(np.argmin([np.mean((y - predicted) ** 2) for predicted, _ in candidates]))
    assert 0 < best < 3
    expected = candidates[best][1].argmax(1) == labels
    np.testing.assert_array_equal(ridge_leave_one_out(features, labels, grid), expected)
    others = [decisions.argmax(1) == labels for _, decisions in candidates]
    assert any((other != expected).any() for other in others), "the choice would not show"


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_noise_is_at_chance(classes: int) -> None:
    # With balanced classes, the frequencies among the others alone would make every decision wrong.
    accuracy = []
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=(120, 50))
        accuracy.append(ridge_leave_one_out(noise, np.arange(120) % classes).mean())
    chance = 1 / classes
    assert abs(np.mean(accuracy) - chance) < 4 * np.sqrt(chance * (1 - chance) / 600)


def test_labels_of_any_numbers_constant_features_and_single_members() -> None:
    features, labels = blobs(90, 20, spread=8.0)
    assert ridge_leave_one_out(features, labels).all()
    assert ridge_leave_one_out(features, labels + 5).all(), "labels need not start at 0"
    assert ridge_leave_one_out(np.ones((6, 3)), np.array([0, 0, 0, 1, 1, 2])).shape == (6,)
    features, labels = blobs(9, 4, spread=5.0)
    labels[0] = 7
    assert not ridge_leave_one_out(features, labels)[0], "an example whose class nobody else has cannot be right"


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_units_do_not_matter(factor: float, shift: float) -> None:
    features, labels = blobs(30, 5)
    moved = ridge_leave_one_out(factor * (features + shift), labels)
    np.testing.assert_array_equal(moved, ridge_leave_one_out(features, labels))


# ---------------------------------------------------------------------- scores and their errors


def test_the_error_of_a_share() -> None:
    assert Score.of_share(0.5, 10).std_error == pytest.approx(np.sqrt(0.25 / 14))
    assert Score.of_share(0.0, 10).std_error == pytest.approx(Score.of_share(1.0, 10).std_error)
    assert Score.of_share(1.0, 10).std_error > 0.05
    assert Score.of_share(0.7, 1000).std_error == pytest.approx(np.sqrt(0.7 * 0.3 / 1000), rel=0.01)


@given(share=st.floats(0, 1), n=st.integers(1, 100_000))
def test_a_score_is_worth_as_many_images_as_have_its_error(share: float, n: int) -> None:
    assert Score.of_share(share, n).trials == pytest.approx(n, rel=1e-6)
    assert Score(share, 10.0, n).trials == 1.0
    assert 0.0 < Score.of_share(share, n).smoothed < 1.0


def test_the_mean_leaves_out_labels_that_do_not_vary() -> None:
    rng = np.random.default_rng(0)
    present = np.stack([rng.random(30) < 0.3, np.zeros(30, bool), np.ones(30, bool), rng.random(30) < 0.5], axis=1)
    scores = rng.normal(size=(30, 4))
    assert np.isnan(average_precisions(present, scores)).tolist() == [False, True, True, False]
    expected = average_precision_score(present[:, [0, 3]], scores[:, [0, 3]], average="macro")
    assert mean_average_precision(present, scores).value == pytest.approx(expected, abs=1e-12)


def test_the_error_of_a_map_is_about_the_spread_over_samples() -> None:
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        present = rng.random((120, 4)) < 0.3
        found = mean_average_precision(present, rng.normal(size=(120, 4)) + 1.5 * present)
        values.append(found.value)
        errors.append(found.std_error)
    assert 0.75 < np.mean(errors) / np.std(values) < 1.5
    perfect = mean_average_precision(present, present.astype(float))
    assert perfect.value == 1.0
    assert 0 < perfect.std_error < 0.02
    single = mean_average_precision(np.arange(9)[:, None] == 4, rng.normal(size=(9, 1)))
    assert np.isfinite(single.std_error)


def test_features_that_tell_nothing_give_the_map_of_chance() -> None:
    found, chance = [], []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(100, 200)), (rng.random((100, 4)) < 0.25).astype(np.int64)
        found.append(score_features(x, y).value)
        chance.append(mean_average_precision(y > 0, rng.normal(size=(100, 4))).value)
    assert np.mean(found) == pytest.approx(np.mean(chance), abs=0.03)
