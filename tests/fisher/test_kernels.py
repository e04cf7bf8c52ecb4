"""Squared per-example gradients against autograd, one example at a time, in float64."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_task2vec.fisher import autotune, kernels
from hf_task2vec.fisher.autotune import able_conv_kernels, conv_squares, linear_squares, rule_of_cpu
from hf_task2vec.fisher.kernels import CONV_KERNELS, TOKEN_KERNELS, Convolution

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
few = settings(max_examples=60, deadline=None)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def brute_force(function: Any, x: Tensor, g: Tensor, weight_shape: tuple[int, ...]) -> Tensor:
    """Square the gradient of every weight for each example by itself, shape (N, C_out)."""
    rows = []
    for xi, gi in zip(x, g, strict=True):
        weight = torch.zeros(weight_shape, dtype=x.dtype, requires_grad=True)
        (gradient,) = torch.autograd.grad(function(xi, weight), weight, gi)
        rows.append(gradient.square().flatten(1).sum(1))
    return torch.stack(rows)


def close(actual: Tensor, expected: Tensor) -> None:
    # Relative to the layer: a filter's square may itself be a difference of large numbers by a Gram product.
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12 * float(expected.max()))


@few
@given(
    n=st.integers(1, 4),
    middle=st.lists(st.integers(1, 5), max_size=3),
    c_in=st.integers(1, 40),
    c_out=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_linear(n: int, middle: list[int], c_in: int, c_out: int, seed: int) -> None:
    x, g = noise(n, *middle, c_in, seed=seed), noise(n, *middle, c_out, seed=seed + 10)
    expected = brute_force(F.linear, x, g, (c_out, c_in))
    close(linear_squares(x, g), expected)
    if middle:
        for kernel in TOKEN_KERNELS.values():
            close(kernel(x.flatten(1, -2), g.flatten(1, -2)), expected)


def test_large_products_are_made_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels._CHUNK_BYTES, "cpu", 2 * 8 * 6 * 8)
    x, g = noise(5, 60, 8), noise(5, 60, 6, seed=1)
    close(TOKEN_KERNELS["products"](x, g), brute_force(F.linear, x, g, (6, 8)))
    check_convolution(case([5, 6], (4, 3, 3, 3), padding=1))


def test_tokens_may_have_any_strides() -> None:
    x, g = noise(3, 8, 50).transpose(1, 2), noise(3, 1, 6).expand(3, 50, 6)
    close(linear_squares(x, g), brute_force(F.linear, x, g, (6, 8)))


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    d = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 4))
    depthwise = draw(st.booleans())
    per_group = 1 if depthwise else draw(st.integers(1, 5))
    multiplier = draw(st.integers(1, 5))
    kernel, stride, dilation = (draw(st.lists(st.integers(1, m), min_size=d, max_size=d)) for m in (5, 3, 2))
    padding = [draw(st.integers(0, (k - 1) * e)) for k, e in zip(kernel, dilation, strict=True)]
    reach = [e * (k - 1) + 1 - 2 * p for k, e, p in zip(kernel, dilation, padding, strict=True)]
    return {
        "n": draw(st.integers(1, 3)),
        "size": [max(1, r) + draw(st.integers(0, 6 if d < 3 else 3)) for r in reach],
        "weight_shape": (groups * multiplier, per_group, *kernel),
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "channels_last": draw(st.booleans()),
        "seed": draw(st.integers(0, 9)),
    }


def check_convolution(case: dict[str, Any]) -> None:
    """Compare the kernel that a CPU takes, and each that is able, with brute force."""
    shape, groups = case["weight_shape"], case["groups"]
    geometry = {key: case[key] for key in ("stride", "padding", "dilation", "groups")}
    spatial = len(case["size"])

    def convolve(xi: Tensor, weight: Tensor) -> Tensor:
        return CONVOLUTIONS[spatial](xi[None], weight, **geometry)[0]

    x = noise(case["n"], shape[1] * groups, *case["size"], seed=case.get("seed", 0))
    out = CONVOLUTIONS[spatial](x, torch.zeros(shape, dtype=torch.float64), **geometry)
    g = noise(*out.shape, seed=case.get("seed", 0) + 10)
    expected = brute_force(convolve, x, g, shape)
    if case.get("channels_last") and spatial > 1:
        memory = torch.channels_last if spatial == 2 else torch.channels_last_3d
        x, g = x.contiguous(memory_format=memory), g.contiguous(memory_format=memory)
    before = x.clone(), g.clone()
    conv = convolution(case)
    with mock.patch.object(autotune, "_HOPELESS", 1e9):
        names = able_conv_kernels(x, g, conv)
    assert rule_of_cpu(x, g, conv) in names
    close(conv_squares(x, g, shape, case["stride"], case["padding"], case["dilation"], groups), expected)
    for name in names:
        actual = CONV_KERNELS[name](x, g, conv)
        assert actual.shape == (case["n"], shape[0]), name
        close(actual, expected)
    assert torch.equal(x, before[0])
    assert torch.equal(g, before[1])


def convolution(case: dict[str, Any]) -> Convolution:
    geometry = (tuple(case[key]) for key in ("weight_shape", "stride", "padding", "dilation"))
    return Convolution(*geometry, case["groups"])


def inputs(case: dict[str, Any], n: int | None = None) -> tuple[Tensor, Tensor, Convolution]:
    """Return a layer's input, the gradient of its output, and its geometry."""
    conv = convolution(case)
    n = case["n"] if n is None else n
    x = noise(n, conv.weight_shape[1] * conv.groups, *case["size"])
    weight = torch.zeros(conv.weight_shape, dtype=x.dtype)
    geometry = (conv.stride, conv.padding, conv.dilation, conv.groups)
    return x, noise(*CONVOLUTIONS[len(case["size"])](x, weight, None, *geometry).shape, seed=1), conv


@settings(max_examples=200, deadline=None)
@given(case=convolutions())
def test_convolutions(case: dict[str, Any]) -> None:
    check_convolution(case)


def case(size: list[int], weight: tuple[int, ...], stride: int = 1, padding: int = 0, **more: Any) -> dict[str, Any]:
    d = len(size)
    geometry = {"stride": [stride] * d, "padding": [padding] * d, "dilation": [more.pop("dilation", 1)] * d}
    return {"n": 3, "size": size, "weight_shape": weight, "groups": 1, "channels_last": False} | geometry | more


CASES = {
    "one by one weight": case([4, 5], (70, 40, 1, 1)),
    "strided one by one weight": case([7, 6], (7, 4, 1, 1), stride=2),
    "padded one by one weight": case([16, 16], (4, 3, 1, 1), padding=1),
    "one by one weight, 3d": case([4, 3, 5], (7, 4, 1, 1, 1), stride=2),
    "stride one": case([4, 3], (40, 40, 3, 3), padding=1),
    "stride one, dilated, rectangular": case([4, 5], (40, 40, 3, 2), padding=2, dilation=2),
    "strided": case([5, 6], (40, 40, 3, 3), stride=2, padding=1),
    "depthwise, strided": case([9, 8], (6, 1, 7, 5), stride=2, padding=3, groups=6),
    "depthwise, dilated": case([12, 13], (6, 1, 5, 5), padding=2, dilation=2, groups=6),
    "grouped": case([9, 8], (12, 2, 3, 3), padding=1, groups=3),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_layers_of_networks(name: str, channels_last: bool) -> None:
    check_convolution(CASES[name] | {"channels_last": channels_last})


def test_the_cases_reach_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "_HOPELESS", 1e9)
    assert {kernel for c in CASES.values() for kernel in able_conv_kernels(*inputs(c))} == set(CONV_KERNELS)
    taken = {rule_of_cpu(*inputs(c)) for c in CASES.values()}
    assert taken == {"gram", "products", "pixel_gram", "patch_gram", "shifts", "loop"}


# ---------------------------------------------------------------------- choice by time


class Stopwatch:
    """A timer that makes one kernel the fastest, and notes what it timed."""

    def __init__(self, seconds: Any) -> None:
        self.seconds, self.timed = seconds, 0

    def __call__(self, run: autotune.Run, device: torch.device) -> float:
        assert device.type == "cpu"
        self.timed += 1
        run()
        return self.seconds[self.timed - 1]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Choose on the CPU by the times given."""

    def use(seconds: Any) -> Stopwatch:
        watch = Stopwatch(seconds)
        monkeypatch.setitem(autotune.TIMERS, "cpu", watch)
        monkeypatch.setattr(autotune, "_CHOSEN", {})
        return watch

    return use


def squares_of(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    return conv_squares(x, g, conv.weight_shape, conv.stride, conv.padding, conv.dilation, conv.groups)


@pytest.mark.parametrize("name", ["stride one", "depthwise, strided", "one by one weight"])
def test_the_fastest_kernel_is_taken(name: str, timed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, g, conv = inputs(CASES[name])
    names = able_conv_kernels(x, g, conv)
    for best in names:
        watch = timed([float(name != best) for name in names])
        squares_of(x, g, conv)
        with monkeypatch.context() as patch:
            patch.setitem(CONV_KERNELS, best, lambda *_: "the fastest")
            assert squares_of(x, g, conv) == "the fastest"
        assert watch.timed == len(names)


def test_the_fastest_kernel_for_tokens(timed: Any) -> None:
    x, g = noise(3, 5, 7), noise(3, 5, 4, seed=1)
    watch = timed([1.0, 0.0])
    for _ in range(2):
        close(linear_squares(x, g), brute_force(F.linear, x, g, (4, 7)))
    assert [choice for _, choice in autotune._CHOSEN.values()] == ["gram"]
    linear_squares(x[:, 0], g[:, 0])  # there is one way
    assert watch.timed == 2


def test_what_is_timed_again(timed: Any) -> None:
    grouped = CASES["grouped"]
    watch = timed([1.0] * 100)
    x, g, conv = inputs(grouped, 4)
    per_shape = len(able_conv_kernels(x, g, conv))

    def count(x: Tensor, g: Tensor, conv: Convolution = conv) -> int:
        before = watch.timed
        squares_of(x, g, conv)
        return (watch.timed - before) // per_shape

    assert count(x, g) == 1
    assert count(x, g) == count(x[:3], g[:3]) == count(x[:1], g[:1]) == 0  # a last batch is no reason to stop
    more = inputs(grouped, 5)
    assert count(*more) == 1  # a first batch of one image says little of a large one
    assert count(x, g) == count(*more) == 0
    assert count(x.float(), g.float()) == 1
    assert count(*inputs(case([10, 8], (12, 2, 3, 3), padding=1, groups=3), 4)) == 1
    assert count(*inputs(case([9, 8], (12, 2, 3, 3), padding=1, groups=3, stride=2), 4)) == 1


def test_a_kernel_that_fails_is_passed_over(timed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    x, g, conv = inputs(CASES["stride one"])
    names = able_conv_kernels(x, g, conv)
    expected = squares_of(x, g, conv)
    timed([0.0] * len(names))
    for name in names[:-1]:
        monkeypatch.setitem(CONV_KERNELS, name, fail)
    close(squares_of(x, g, conv), expected)
    timed([0.0] * len(names))
    monkeypatch.setitem(CONV_KERNELS, names[-1], fail)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        squares_of(x, g, conv)


def test_kernels_that_cannot_win_or_fit_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def able_at(size: int, channels: int, kernel: int, n: int = 64) -> set[str]:
        conv = Convolution((channels, channels, kernel, kernel), (1, 1), (kernel // 2,) * 2, (1, 1), 1)
        x = torch.empty(n, channels, size, size, device="meta")
        return set(able_conv_kernels(x, x, conv))

    always = {"loop", "patch_products"}
    assert able_at(7, 512, 3) == always | {"pixel_gram", "patch_gram"}  # 604 MB of gradients, twice
    assert able_at(14, 128, 3) == always | {"grouped", "pixel_gram", "patch_gram"}
    assert able_at(112, 32, 3) == always | {"grouped"}
    assert able_at(56, 256, 3, 32) == always | {"grouped"}, "Gram matrices of 1.2 GB"
    assert able_at(7, 256, 1) == {"loop", "grouped", "products", "gram"}
    assert able_at(112, 32, 1) == {"loop", "grouped", "products"}
    depthwise = Convolution((96, 1, 3, 3), (1, 1), (1, 1), (1, 1), 96)
    x = torch.empty(64, 96, 56, 56, device="meta")
    assert set(able_conv_kernels(x, x, depthwise)) == {*always, "grouped", "shifts"}
    monkeypatch.setattr(autotune, "_WORKSPACE_BYTES", 1 << 20)
    assert autotune.able_token_kernels(torch.empty(4, 99, 8), 0.1) == ["products", "gram"]
    assert autotune.able_token_kernels(torch.empty(64, 99, 8), 0.1) == ["products"]
    assert autotune.able_token_kernels(torch.empty(4, 99, 8), 9.0) == ["products"]


@pytest.mark.parametrize("groups", [1, 2])
def test_an_example_of_several_inputs(groups: int) -> None:
    x, shape = noise(2, 3, 4, 6, 5), (6, 4 // groups, 3, 3)

    def convolve(xi: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(xi, weight, stride=2, padding=1, groups=groups)

    g = noise(2, *convolve(x[0], torch.zeros(shape, dtype=x.dtype)).shape, seed=1)
    expected = brute_force(convolve, x, g, shape)
    close(conv_squares(x, g, shape, (2, 2), (1, 1), (1, 1), groups), expected)
    conv = Convolution(shape, (2, 2), (1, 1), (1, 1), groups)
    assert able_conv_kernels(x, g, conv) == ["loop", "grouped"]
    for kernel in ("loop", "grouped"):
        close(CONV_KERNELS[kernel](x, g, conv), expected)


def test_float32_is_kept() -> None:
    x, g = noise(2, 8, 12, dtype=torch.float32), noise(2, 8, 9, seed=1, dtype=torch.float32)
    squares = linear_squares(x, g)
    assert squares.dtype == torch.float32
    torch.testing.assert_close(squares.double(), linear_squares(x.double(), g.double()), rtol=1e-5, atol=1e-5)


GRAM = {
    "tokens": (lambda x, g: linear_squares(x.flatten(2).transpose(1, 2), g.flatten(2).transpose(1, 2)), 4),
    "stride one": (lambda x, g: conv_squares(x, g, (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1), 4),
    "strided": (lambda x, g: conv_squares(x, g, (64, 64, 3, 3), (2, 2), (1, 1), (1, 1), 1), 8),
}


@pytest.mark.parametrize("name", GRAM)
def test_gram_kernels_that_cancel_do_not_fall_below_zero(name: str) -> None:
    squares, side = GRAM[name]
    x = 1e3 * noise(8, 64, 1, 1, dtype=torch.float32).expand(8, 64, side, side).contiguous()
    g = noise(8, 64, 4, 4, seed=1, dtype=torch.float32)
    g -= g.mean((2, 3), keepdim=True)
    assert (squares(x, g) >= 0).all()
    assert squares(x * float("nan"), g).isnan().all(), "what is not finite must stay visible"
