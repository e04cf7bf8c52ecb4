"""Activations on the way: what is pooled where, and that reading changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hf_task2vec.embedding.descriptors import describe_task
from hf_task2vec.errors import UnsupportedLayerError
from hf_task2vec.probes.intermediate import IntermediateReader, depth_layers, pooled
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.scores import ridge_leave_one_out
from hf_task2vec.tasks.task import Task
from tests.support.synthetic import dataset, tiny_probe, to_tensor


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def wrap(module: nn.Module, feature_dim: int, size: int = 16) -> Probe:
    return Probe.wrap(
        module.eval(), transform=to_tensor, feature_dim=feature_dim, input_size=(3, size, size), name="org/net"
    )


def statistics(x: Tensor) -> Tensor:
    """Mean and standard deviation over all positions of channels that come second."""
    flat = x.flatten(2).double().numpy()
    return torch.from_numpy(np.concatenate([flat.mean(axis=2), flat.std(axis=2)], axis=1)).float()


def inputs_of(probe: Probe, images: Tensor) -> dict[str, Tensor]:
    """What enters each covered layer, by torch's own hooks."""
    seen: dict[str, Tensor] = {}
    handles = [
        probe.module.get_submodule(layer.name).register_forward_pre_hook(
            lambda _, args, name=layer.name: seen.update({name: args[0].detach()})
        )
        for layer in probe.layers
    ]
    probe.features(images)
    for handle in handles:
        handle.remove()
    return seen


def convolutional() -> Probe:
    return wrap(
        nn.Sequential(
            *(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU()),
            *(nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(8, 5),
        ),
        5,
    )


def images(n: int = 3, size: int = 16) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_convolutions_by_hooks() -> None:
    probe, batch = convolutional(), images()
    names = [layer.name for layer in probe.layers]
    assert names == ["0", "3", "5", "7", "10"]
    wanted = [layer.name for layer in depth_layers(probe.layers)]
    assert wanted == ["5", "7"]  # of five layers: 5/3 and 10/3, rounded
    features, early, middle = IntermediateReader(probe).read(batch)
    seen = inputs_of(probe, batch)
    torch.testing.assert_close(early, statistics(seen["5"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(middle, statistics(seen["7"]), rtol=1e-5, atol=1e-6)
    assert (early.shape, middle.shape) == ((3, 12), (3, 16))
    torch.testing.assert_close(features, probe.features(batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_nets_of_few_layers(count: int) -> None:
    """With one layer, both depths are the image itself."""
    more = [nn.ReLU(), nn.Conv2d(4, 4, 3)] if count == 2 else []
    probe = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), *more, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4)
    batch = images()
    features, early, middle = IntermediateReader(probe).read(batch)
    seen = inputs_of(probe, batch)
    expected = [statistics(seen[probe.layers[i].name]) for i in ((0, 0) if count == 1 else (1, 1))]
    torch.testing.assert_close(early, expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(middle, expected[1], rtol=1e-5, atol=1e-6)
    assert features.shape == (3, 4)


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("conv2d", (4, 3, 5, 6), (4, 6)),
        ("conv1d", (4, 3, 5), (4, 6)),
        ("conv3d", (4, 3, 2, 2, 2), (4, 6)),
        ("linear", (4, 7, 3), (4, 6)),
        ("linear", (4, 2, 2, 3), (4, 6)),
        ("linear", (4, 3), (4, 3)),  # no positions: the input itself
        ("linear", (12, 3), (4, 6)),  # flattened tokens
        ("linear", (12, 5, 3), (4, 6)),
        ("conv2d", (12, 3, 5, 6), (4, 6)),
    ],
)
def test_shapes(kind: str, shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    x = torch.randn(shape)
    found = pooled(kind, x, 4, "layer")
    assert found.shape == expected
    channels = (x if kind == "linear" else x.movedim(1, -1)).reshape(4, -1, 3)
    if expected[1] == 6:
        torch.testing.assert_close(found[:, :3], channels.mean(1))
        torch.testing.assert_close(found[:, 3:], channels.std(1, correction=0))
    else:
        torch.testing.assert_close(found, x)


def test_inputs_that_fit_no_image() -> None:
    with pytest.raises(UnsupportedLayerError, match="layer 'attn' got 13 inputs for a batch of 4 images"):
        pooled("linear", torch.randn(13, 3), 4, "attn")


def test_one_reader_serves_batches_of_any_size() -> None:
    probe, batch = convolutional(), images(7)
    reader = IntermediateReader(probe)
    whole = reader.read(batch)
    parts = [reader.read(part) for part in (batch[:4], batch[4:6], batch[6:])]
    for i, table in enumerate(whole):
        torch.testing.assert_close(torch.cat([part[i] for part in parts]), table, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- descriptors


def gain(depth: np.ndarray, labels: np.ndarray) -> float:
    chance = np.bincount(labels).max() / len(labels)
    return float((ridge_leave_one_out(depth.astype(np.float64), labels).mean() - chance) / (1.0 - chance))


def test_gains_by_hand() -> None:
    from hf_task2vec.embedding.embed import embed_task

    task, probe = Task.from_dataset(dataset(48, seed=3)), tiny_probe()
    tables = IntermediateReader(probe).read(torch.stack([to_tensor(task.images[i]) for i in range(len(task))]))
    z, early, middle = (table.numpy().astype(np.float64) for table in tables)
    facts = embed_task(task, probe).descriptors
    assert facts["early_accuracy_gain"] == pytest.approx(gain(early, task.labels), abs=1e-6)
    assert facts["mid_accuracy_gain"] == pytest.approx(gain(middle, task.labels), abs=1e-6)
    assert facts["linear_probe_accuracy_gain"] == pytest.approx(gain(z, task.labels), abs=1e-6)


def test_where_the_information_is() -> None:
    """Depths that hold the label, or nothing of it, by construction."""
    task = Task.from_dataset(dataset(48))
    rng = np.random.default_rng(0)
    label = np.eye(3)[task.labels] + rng.normal(0, 0.01, (48, 3))
    noise = rng.normal(size=(48, 3))
    make: Callable[..., dict[str, Any]] = lambda *depths: describe_task(task, noise, depths)  # noqa: E731
    facts = make(label, noise)
    assert facts["early_accuracy_gain"] == 1.0
    assert facts["mid_accuracy_gain"] == facts["linear_probe_accuracy_gain"] < 0.5
    assert make(noise, label)["mid_accuracy_gain"] == 1.0
