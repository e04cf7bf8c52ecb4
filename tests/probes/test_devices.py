"""What a GPU needs: no waiting in the loop, pinned loading, the same result; most of it shown without one.

Tensors on the ``meta`` device have no values. Whatever would make the host wait for a device (``.cpu()``, ``.item()``,
``nonzero``, a condition) raises there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import hf_task2vec.probes.batches as batches_module
from hf_task2vec.embedding.distance import log_correlation
from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.errors import FisherError
from hf_task2vec.fisher import autotune
from hf_task2vec.fisher.capture import SquareCapture
from hf_task2vec.fisher.diagonal import diagonal_fisher
from hf_task2vec.fisher.head import Head
from hf_task2vec.fisher.kernels import CONV_KERNELS, Convolution
from hf_task2vec.probes.batches import ImageBatches, default_batch_size
from hf_task2vec.probes.layers import trace_layers
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task
from tests.support.fisher_oracle import Bare, bare, batches, noise, random_head, randomise

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
NETWORKS = ("small", "tf_efficientnet_lite0", "vit_tiny_patch16_224", "resnet18", "convnext_atto")


def network(name: str) -> tuple[nn.Module, int, int]:
    """Return a network with random weights, its number of features, and the side of its images."""
    if name == "small":
        layers = (nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2, groups=8))
        return randomise(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6))).eval(), 6, 20
    options = {"img_size": 64} if name.startswith("vit") else {}
    net = timm.create_model(name, num_classes=0, **options).eval()
    return net, net.num_features, 64


def without_timing(run: autotune.Run, device: torch.device) -> float:
    """A timer for tensors without values."""
    run()
    return 0.0


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


@functools.cache
def without_values(name: str) -> tuple[Bare, int, int]:
    """A probe on the ``meta`` device, its number of features, and the side of its images."""
    module, dim, side = network(name)
    layers = trace_layers(module.requires_grad_(False), torch.zeros(1, 3, side, side)).layers
    return Bare(module.to("meta"), layers), dim, side


def on_meta(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Bare, int, Any]:
    """A probe, its number of features, and a maker of batches; nothing is read from the device at the end."""
    probe, dim, side = without_values(name)
    sums = np.zeros((2, sum(layer.n_filters for layer in probe.layers)))
    monkeypatch.setattr(SquareCapture, "result", lambda self: (sums, True))

    def made() -> Iterator[tuple[Tensor, np.ndarray]]:
        for first, last in ((0, 4), (4, 8), (8, 11)):
            images = torch.empty(last - first, 3, side, side, device="meta")
            yield images.contiguous(memory_format=torch.channels_last), np.arange(first, last)

    return probe, dim, made


@pytest.mark.parametrize(
    ("name", "sampling"),
    [*((name, "sketch") for name in NETWORKS), ("small", "exact"), ("small", "monte_carlo")],
)
def test_no_wait_in_the_loop(name: str, sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probe, dim, made = on_meta(name, monkeypatch)
    features = np.random.default_rng(0).normal(size=(11, dim))
    with Copies() as copies:
        sums = diagonal_fisher(probe, made(), head=random_head(dim), features=features, label_sampling=sampling)  # type: ignore[arg-type]
    assert sums.counts.tolist() == [6, 5]
    assert copies.seen == 6, "halves and gradients"
    assert copies.waiting == []


def test_without_known_features_every_batch_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which also shows that the test above can fail."""
    probe, _, made = on_meta("small", monkeypatch)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        diagonal_fisher(probe, made(), head=random_head(6))  # type: ignore[arg-type]


def test_no_wait_in_the_loop_where_kernels_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, dim, made = on_meta("small", monkeypatch)
    timed = []
    monkeypatch.setitem(
        autotune.TIMERS, "meta", lambda run, device: timed.append(device) or without_timing(run, device)
    )
    monkeypatch.setattr(autotune, "_CHOSEN", {})
    for _ in range(2):
        found = len(timed)
        diagonal_fisher(probe, made(), head=random_head(dim), features=np.zeros((11, dim)))  # type: ignore[arg-type]
    assert found == len(timed) > 0, "a second pass times nothing"


def test_cuda_chooses_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([3.0, 1.0, 2.0])
    monkeypatch.setitem(autotune.TIMERS, "cuda", lambda run, device: next(seconds) + without_timing(run, device))
    monkeypatch.setattr(autotune, "_CHOSEN", {})
    with FakeTensorMode():
        x = torch.empty(64, 6, 9, 9, device="cuda")
        conv = Convolution((6, 2, 3, 3), (1, 1), (1, 1), (1, 1), 3)
        assert autotune.able_conv_kernels(x, x, conv) == ["loop", "grouped", "patch_products"]
        for n in (64, 64, 3):
            squares = autotune.conv_squares(x[:n], x[:n], *vars(conv).values())
            assert (squares.shape, squares.device) == ((n, 6), CUDA)
    assert [choice for _, choice in autotune._CHOSEN.values()] == ["grouped"]


# ---------------------------------------------------------------------- known features change nothing


@pytest.mark.parametrize("sampling", ["sketch", "exact", "monte_carlo"])
def test_known_features_change_nothing(sampling: str) -> None:
    module, dim, side = network("small")
    images = noise(7, 3, side, side)
    probe, order = bare(module, images), np.array([4, 1, 0, 3, 2, 6, 5])
    known, unknown = (
        diagonal_fisher(probe, batches(images, 3, order), head=random_head(dim), features=z, label_sampling=sampling)  # type: ignore[arg-type]
        for z in (probe.module(images).numpy(), None)
    )
    np.testing.assert_allclose(known.sums, unknown.sums, rtol=1e-11)
    assert np.array_equal(known.counts, unknown.counts)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_known_features_must_be_finite(bad: float) -> None:
    module, dim, side = network("small")
    images = noise(4, 3, side, side)
    probe = bare(module, images)
    z = probe.module(images).numpy()
    z[2, 1] = bad
    with pytest.raises(FisherError, match="the probe's features are not finite; check its weights and the images'"):
        diagonal_fisher(probe, [], head=random_head(dim), features=z)  # type: ignore[arg-type]


def test_features_of_the_wrong_shape_are_refused() -> None:
    probe = bare(network("small")[0], noise(1, 3, 20, 20))
    with pytest.raises(FisherError, match=r"features have shape \(4, 5\); .*the head needs \(M, 6\)"):
        diagonal_fisher(probe, [], head=random_head(6), features=np.zeros((4, 5)))  # type: ignore[arg-type]


def test_features_that_stop_being_finite_are_noticed_at_the_end() -> None:
    """The output overflows where its gradient does not."""

    class Overflow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x).mean((2, 3)) + torch.tensor(float("inf"))

    images = noise(4, 3, 8, 8)
    probe = bare(randomise(Overflow()), images)
    with pytest.raises(FisherError, match="the probe's features are not finite"):
        diagonal_fisher(probe, batches(images), head=random_head(6), features=np.zeros((4, 6)))  # type: ignore[arg-type]


# ---------------------------------------------------------------------- loading


def pictures(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (i, 2 * i, 3 * i)) for i in range(count)]


class Transform:
    """Pixels as they are; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Image.Image) -> Tensor:
        self.calls += 1
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def firsts(batches: ImageBatches) -> list[list[int]]:
    """The red values, which are the images' numbers, of each batch."""
    found = []
    for images, positions in batches:
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.dtype == torch.float32
        assert images[:, 0, 0, 0].tolist() == positions.tolist()
        assert torch.equal(images[:, 2], 3 * images[:, 0])
        found.append(positions.tolist())
        images.zero_()  # as a network that works in place would
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
@pytest.mark.parametrize("keep", [False, True])
def test_batches_of_images(batch_size: int, keep: bool) -> None:
    transform = Transform()
    made = ImageBatches(pictures(10), transform, batch_size=batch_size, device=CPU, keep=keep)
    expected = [list(range(10))[i : i + batch_size] for i in range(0, 10, batch_size)]
    for _ in range(3):
        assert firsts(made) == expected
    assert transform.calls == (10 if keep else 30)


def test_images_are_kept_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "_KEEP_BYTES", 7 * 3 * 4 * 4 * 4)  # seven images
    transform = Transform()
    made = ImageBatches(pictures(10), transform, batch_size=2, device=CPU, keep=True)
    for _ in range(2):
        assert [i for part in firsts(made) for i in part] == list(range(10))
    assert transform.calls == 10 + 4


def test_a_failing_transform_is_heard_of() -> None:
    def transform(image: Image.Image) -> Tensor:
        raise ValueError(f"cannot read {image.getpixel((0, 0))}")

    made = ImageBatches(pictures(9), transform, batch_size=4, device=CPU)
    with pytest.raises(ValueError, match=r"cannot read \(0, 0, 0\)"):
        firsts(made)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let host tensors be pinned without a GPU, and its memory be asked for; collect the sizes pinned."""
    pinned: list[int] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: pinned.append(self.nbytes) or self)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 800)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 400)
    return pinned


def test_batches_for_cuda_are_pinned(pretended: list[int]) -> None:
    assert default_batch_size(CUDA) == 64
    transform = Transform()
    with FakeTensorMode(allow_non_fake_inputs=True):
        made = ImageBatches(pictures(10), transform, batch_size=4, device=CUDA, keep=True)
        for _ in range(2):
            found = [images for images, _ in made]
            assert [len(images) for images in found] == [4, 4, 2]
            assert {images.device for images in found} == {CUDA}
            assert all(images.is_contiguous(memory_format=torch.channels_last) for images in found)
    assert sorted(pretended) == [384, 384, 768, 768, 768]
    assert transform.calls == 10 + 6, "1,100 bytes are spare on the device, which is one batch"


def test_weights_are_laid_out_as_images_are_on_cuda() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, 3), nn.Linear(4, 4))
    net.table = nn.Parameter(torch.zeros(1, 4, 3, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    weight = net[0].weight
    batches_module.lay_out(net, CPU)
    assert not weight.is_contiguous(memory_format=torch.channels_last)
    batches_module.lay_out(net, CUDA)
    assert weight is net[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert net.table.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# ---------------------------------------------------------------------- with a GPU


@needs_gpu
def test_gpu_and_cpu_agree() -> None:
    task = Task.from_dataset("sklearn:digits", max_samples=96)
    on_cpu, on_gpu = (embed_task(task, Probe.default(), device=device) for device in ("cpu", "cuda"))
    assert log_correlation(on_cpu.values, on_gpu.values, on_cpu.layer_sizes) <= 1e-4


def cuda_case(name: str) -> tuple[Bare, list[tuple[Tensor, np.ndarray]], Head, np.ndarray]:
    module, dim, side = network(name)
    images = noise(24, 3, side, side).float()
    probe = bare(module, images)
    z = probe.module(images).numpy()
    batches_module.lay_out(module.cuda(), CUDA)
    parts = [(part.cuda().contiguous(memory_format=torch.channels_last), ids) for part, ids in batches(images, 8)]
    return probe, parts, random_head(dim), z


@needs_gpu
@pytest.mark.parametrize("name", NETWORKS)
def test_gpu_is_not_waited_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    probe, parts, head, z = cuda_case(name)
    diagonal_fisher(probe, parts, head=head, features=z)  # type: ignore[arg-type]
    result = SquareCapture.result

    def read(capture: SquareCapture) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        return result(capture)

    def watched() -> Iterator[tuple[Tensor, np.ndarray]]:
        torch.cuda.set_sync_debug_mode("error")
        yield from parts

    monkeypatch.setattr(SquareCapture, "result", read)
    try:
        assert diagonal_fisher(probe, watched(), head=head, features=z).counts.sum() == 24  # type: ignore[arg-type]
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_gpu_kernels_are_exact() -> None:
    conv = Convolution((12, 12, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    x, g = noise(5, 12, 9, 9).cuda(), noise(5, 12, 9, 9, seed=1).cuda()
    expected = CONV_KERNELS["loop"](x.cpu(), g.cpu(), conv)
    for kernel in autotune.able_conv_kernels(x, g, conv):
        torch.testing.assert_close(CONV_KERNELS[kernel](x, g, conv).cpu(), expected, rtol=1e-10, atol=1e-10)
        assert autotune.cuda_seconds(lambda kernel=kernel: CONV_KERNELS[kernel](x, g, conv), CUDA) > 0
