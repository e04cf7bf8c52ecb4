"""Measuring checkpoints on a task."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from architectures import save_timm
from PIL import Image
from torch import Tensor, nn

from hf_task2vec.errors import LabelError, ProbeError
from hf_task2vec.probe import Probe
from hf_task2vec.task import Task
from hf_task2vec.transfer import Transfer, extract_features, measure, measure_features


def transform(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image.resize((8, 8)), np.float32)).permute(2, 0, 1) / 255


def pixels() -> Probe:
    return Probe.wrap(nn.Flatten(), transform=transform, feature_dim=192, input_size=(3, 8, 8), name="pixels")


@pytest.fixture(scope="module")
def digits() -> Task:
    return Task.from_dataset("sklearn:digits", max_samples=120)


def test_a_probe_that_solves_the_task(digits: Task) -> None:
    result = measure(pixels(), digits, batch_size=50)
    assert (result.n_samples, result.feature_dim) == (120, 192)
    assert result.linear.correct.shape == result.knn.correct.shape == (120,)
    assert result.linear.accuracy > 0.75
    assert result.knn.accuracy > 0.8
    assert result.seconds > 0
    assert np.isfinite([result.logme, result.h_score]).all()
    # The same pixels with shuffled labels are worse by every measure.
    features = extract_features(pixels(), digits)
    shuffled = measure_features(features, np.random.default_rng(0).permutation(digits.labels))
    for name in ("logme", "h_score"):
        assert getattr(shuffled, name) < getattr(result, name)
    assert shuffled.linear.accuracy < 0.3 > shuffled.knn.accuracy


def test_features_are_in_the_order_of_the_task(digits: Task) -> None:
    features = extract_features(pixels(), digits, batch_size=7)
    assert features.dtype == np.float32
    expected = np.stack([transform(digits.images[i]).flatten().numpy() for i in range(len(digits))])
    np.testing.assert_array_equal(features, expected)


def test_a_random_timm_network_from_a_folder(tmp_path: object) -> None:
    torch.manual_seed(0)
    save_timm(tmp_path)  # type: ignore[arg-type]
    task = Task.from_dataset("sklearn:digits", max_samples=30)
    by_name = measure(str(tmp_path), task, device="cpu")
    probe = Probe.from_pretrained(str(tmp_path))
    assert by_name.feature_dim == probe.feature_dim
    again = measure(probe, task, batch_size=4)
    for field in dataclasses.fields(Transfer):
        first, second = getattr(by_name, field.name), getattr(again, field.name)
        if field.name in ("linear", "knn"):
            np.testing.assert_array_equal(first.correct, second.correct)
        elif field.name != "seconds":
            assert first == pytest.approx(second, rel=1e-3)


def test_a_missing_checkpoint(tmp_path: object, digits: Task) -> None:
    with pytest.raises(ProbeError, match="absent"):
        measure(f"{tmp_path}/absent", digits)


def test_several_labels_an_image_are_for_another_function() -> None:
    with pytest.raises(LabelError, match="several an image; measure_label_features evaluates those"):
        measure_features(np.zeros((4, 2), np.float32), np.eye(4, 3, dtype=np.int64))


def test_non_finite_features_are_refused() -> None:
    features = np.ones((4, 2), np.float32)
    features[2, 1] = np.nan
    with pytest.raises(ProbeError, match="features are not finite; check its weights"):
        measure_features(features, np.array([0, 1, 0, 1]))
