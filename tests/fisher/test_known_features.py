"""Known features: the same result as without, and no waiting for the device between the batches.

Tensors on the ``meta`` device have no values. Whatever would make the host wait for a device (``.cpu()``, ``.item()``,
``nonzero``, a condition) raises there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hf_task2vec.embedding.distance import log_correlation
from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.errors import FisherError
from hf_task2vec.fisher import autotune
from hf_task2vec.fisher.capture import SquareCapture
from hf_task2vec.fisher.diagonal import FisherSums, diagonal_fisher
from hf_task2vec.fisher.kernels import CONV_KERNELS, Convolution
from hf_task2vec.probes.layers import trace_layers
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task
from tests.support.fisher_oracle import Bare, bare, batches, noise, random_head, randomise

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def small() -> nn.Module:
    layers = (nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2, groups=8))
    return randomise(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))).eval()


IMAGES = noise(7, 3, 20, 20)
HEAD = random_head(6)


def fisher(probe: Bare, parts: Any, **options: Any) -> FisherSums:
    return diagonal_fisher(probe, parts, **{"head": HEAD, **options})  # type: ignore[arg-type]


# ---------------------------------------------------------------------- the same result


@pytest.mark.parametrize("sampling", ["sketch", "exact", "monte_carlo"])
def test_known_features_change_nothing(sampling: str) -> None:
    probe, order = bare(small(), IMAGES), np.array([4, 1, 0, 3, 2, 6, 5])
    known, unknown = (
        fisher(probe, batches(IMAGES, 3, order), features=features, label_sampling=sampling)
        for features in (probe.module(IMAGES).numpy(), None)
    )
    np.testing.assert_allclose(known.sums, unknown.sums, rtol=1e-11)
    assert np.array_equal(known.counts, unknown.counts)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.full((4, 6), np.nan), "the probe's features are not finite; check its weights and the images'"),
        (np.full((4, 6), np.inf), "the probe's features are not finite"),
        (np.zeros((4, 5)), r"features have shape \(4, 5\); .*the head needs \(M, 6\)"),
    ],
)
def test_features_that_cannot_be(features: np.ndarray, message: str) -> None:
    with pytest.raises(FisherError, match=message):
        fisher(bare(small(), IMAGES), [], features=features)


def test_features_that_stop_being_finite_are_noticed_at_the_end() -> None:
    """The output overflows where its gradient does not."""

    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x).mean((2, 3)) + torch.tensor(float("inf"))

    with pytest.raises(FisherError, match="the probe's features are not finite"):
        fisher(bare(randomise(Overflow()), IMAGES), batches(IMAGES), features=np.zeros((7, 6)))


# ---------------------------------------------------------------------- the loop does not wait


class Copies(TorchDispatchMode):
    """Collects copies from the host to the device for which the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [a for a in args if isinstance(a, Tensor)]
        if isinstance(out, Tensor) and out.is_meta and any(a.device.type == "cpu" and a.dim() for a in tensors):
            self.seen += 1
            if not (kwargs or {}).get("non_blocking"):
                self.waiting.append(str(func))
        return out


def on_meta(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Bare, int, Iterator[tuple[Tensor, np.ndarray]]]:
    """Return a probe, its number of features, and three batches; nothing is read from the device at the end."""
    side = 64
    net = small() if name == "small" else timm.create_model(name, num_classes=0).eval()
    net.requires_grad_(False)
    dim = net(torch.zeros(1, 3, side, side)).shape[1]
    layers = trace_layers(net, torch.zeros(1, 3, side, side)).layers
    sums = np.zeros((2, sum(layer.n_filters for layer in layers)))
    monkeypatch.setattr(SquareCapture, "result", lambda self: (sums, True))

    def made() -> Iterator[tuple[Tensor, np.ndarray]]:
        for first, last in ((0, 4), (4, 8), (8, 11)):
            images = torch.empty(last - first, 3, side, side, device="meta")
            yield images.contiguous(memory_format=torch.channels_last), np.arange(first, last)

    return Bare(net.to("meta"), layers), dim, made()


@pytest.mark.parametrize(
    ("name", "sampling", "timed"),
    [
        ("small", "exact", False),
        ("small", "monte_carlo", False),
        ("small", "sketch", True),
        ("tf_efficientnet_lite0", "sketch", False),
        ("convnext_atto", "sketch", False),
    ],
)
def test_no_wait_in_the_loop(name: str, sampling: str, timed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if timed:
        monkeypatch.setitem(autotune.TIMERS, "meta", lambda run, device: float(run().numel()))
        monkeypatch.setattr(autotune, "_CHOSEN", {})
    probe, dim, parts = on_meta(name, monkeypatch)
    with Copies() as copies:
        sums = fisher(probe, parts, head=random_head(dim), features=np.zeros((11, dim)), label_sampling=sampling)
    assert sums.counts.tolist() == [6, 5]
    assert (copies.seen > 0, copies.waiting) == (True, [])


def test_without_known_features_every_batch_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which also shows that the test above can fail."""
    probe, _, parts = on_meta("small", monkeypatch)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        fisher(probe, parts)


# ---------------------------------------------------------------------- with a GPU


@needs_gpu
def test_gpu_and_cpu_agree() -> None:
    task = Task.from_dataset("sklearn:digits", max_samples=96)
    on_cpu, on_gpu = (embed_task(task, Probe.default(), device=device) for device in ("cpu", "cuda"))
    assert log_correlation(on_cpu.values, on_gpu.values, on_cpu.layer_sizes) <= 1e-4


@needs_gpu
def test_gpu_kernels_are_exact() -> None:
    conv = Convolution((12, 12, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    x, g = noise(5, 12, 9, 9).cuda(), noise(5, 12, 9, 9, seed=1).cuda()
    expected = CONV_KERNELS["loop"](x.cpu(), g.cpu(), conv)
    for kernel in autotune.able_conv_kernels(x, g, conv):
        torch.testing.assert_close(CONV_KERNELS[kernel](x, g, conv).cpu(), expected, rtol=1e-10, atol=1e-10)
        assert autotune.cuda_seconds(lambda kernel=kernel: CONV_KERNELS[kernel](x, g, conv), x.device) > 0
