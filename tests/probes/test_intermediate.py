"""Activations on the way: what is pooled where, and that reading changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hf_task2vec.embedding.descriptors import describe_task
from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.errors import ProbeError
from hf_task2vec.probes.intermediate import IntermediateReader, pooled
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


def inputs_of(probe: Probe, images: Tensor, names: list[str]) -> list[Tensor]:
    """Return what enters layers, by torch's own hooks."""
    seen: list[Tensor] = []
    for name in names:
        probe.module.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    probe.features(images)
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
    assert [layer.name for layer in probe.layers] == ["0", "3", "5", "7", "10"]
    features, *depths = IntermediateReader(probe).read(batch)
    torch.testing.assert_close(features, probe.features(batch), rtol=1e-5, atol=1e-6)
    for found, entered in zip(depths, inputs_of(probe, batch, ["5", "7"]), strict=True):  # 5/3 and 10/3, rounded
        torch.testing.assert_close(found, statistics(entered), rtol=1e-5, atol=1e-6)


def test_a_net_of_one_layer() -> None:
    """Both depths are the image itself."""
    probe, batch = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4), images()
    for found in IntermediateReader(probe).read(batch)[1:]:
        torch.testing.assert_close(found, statistics(batch), rtol=1e-5, atol=1e-6)


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
    with pytest.raises(ProbeError, match="layer 'attn' got 13 inputs for a batch of 4 images"):
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
    task, probe = Task.from_dataset(dataset(48, seed=3)), tiny_probe()
    tables = IntermediateReader(probe).read(torch.stack([to_tensor(task.images[i]) for i in range(len(task))]))
    facts = embed_task(task, probe).descriptors
    for table, name in zip(
        tables, ("linear_probe_accuracy_gain", "early_accuracy_gain", "mid_accuracy_gain"), strict=True
    ):
        assert facts[name] == pytest.approx(gain(table.numpy(), task.labels), abs=1e-6)


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
