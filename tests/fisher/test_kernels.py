"""Squared per-example gradients against autograd, one example at a time, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_task2vec.fisher import autotune, kernels
from hf_task2vec.fisher.autotune import able_conv_kernels, conv_squares, linear_squares
from hf_task2vec.fisher.kernels import CONV_KERNELS, TOKEN_KERNELS, Convolution
from tests.support.fisher_oracle import noise

few = settings(max_examples=60, deadline=None)


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
    check_convolution(plane((5, 6), (4, 3, 3, 3), padding=1))


def test_tokens_may_have_any_strides() -> None:
    x, g = noise(3, 8, 50).transpose(1, 2), noise(3, 1, 6).expand(3, 50, 6)
    close(linear_squares(x, g), brute_force(F.linear, x, g, (6, 8)))


@dataclass(frozen=True)
class Case:
    """A convolution and the size of its inputs."""

    size: tuple[int, ...]
    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    n: int = 3
    channels_last: bool = False
    seed: int = 0

    @property
    def conv(self) -> Convolution:
        return Convolution(self.weight, self.stride, self.padding, self.dilation, self.groups)

    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(self.size)]
        return function(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Return the layer's input and the gradient of its output."""
        x = noise(self.n, self.weight[1] * self.groups, *self.size, seed=self.seed)
        g = noise(*self.run(x, torch.zeros(self.weight, dtype=x.dtype)).shape, seed=self.seed + 10)
        if self.channels_last and len(self.size) > 1:
            memory = torch.channels_last if len(self.size) == 2 else torch.channels_last_3d
            x, g = x.contiguous(memory_format=memory), g.contiguous(memory_format=memory)
        return x, g


def squares_of(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    return conv_squares(x, g, *vars(conv).values())


def check_convolution(case: Case) -> None:
    """Compare the kernel that a CPU takes, and each that is able, with brute force."""
    x, g = case.inputs()
    before = x.clone(), g.clone()
    expected = brute_force(lambda xi, weight: case.run(xi[None], weight)[0], x, g, case.weight)
    close(squares_of(x, g, case.conv), expected)
    with mock.patch.object(autotune, "_HOPELESS", 1e9):
        names = able_conv_kernels(x, g, case.conv)
    for name in names:
        close(CONV_KERNELS[name](x, g, case.conv), expected)
    assert torch.equal(x, before[0])
    assert torch.equal(g, before[1])


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    d, groups = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    per_group = 1 if draw(st.booleans()) else draw(st.integers(1, 5))
    kernel, stride, dilation = (
        tuple(draw(st.lists(st.integers(1, most), min_size=d, max_size=d))) for most in (5, 3, 2)
    )
    padding = tuple(draw(st.integers(0, (k - 1) * e)) for k, e in zip(kernel, dilation, strict=True))
    reach = [e * (k - 1) + 1 - 2 * p for k, e, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(max(1, r) + draw(st.integers(0, 6 if d < 3 else 3)) for r in reach)
    weight = (groups * draw(st.integers(1, 5)), per_group, *kernel)
    rest = {"n": st.integers(1, 3), "channels_last": st.booleans(), "seed": st.integers(0, 9)}
    return Case(size, weight, stride, padding, dilation, groups, **{name: draw(value) for name, value in rest.items()})


@settings(max_examples=200, deadline=None)
@given(case=convolutions())
def test_convolutions(case: Case) -> None:
    check_convolution(case)


def plane(size: tuple[int, ...], weight: tuple[int, ...], stride: int = 1, padding: int = 0, dilation: int = 1,
          groups: int = 1) -> Case:  # fmt: skip
    """Return a case whose geometry is the same in every dimension."""
    return Case(size, weight, *((value,) * len(size) for value in (stride, padding, dilation)), groups)


CASES = {
    "one by one weight": plane((4, 5), (70, 40, 1, 1)),
    "strided one by one weight": plane((7, 6), (7, 4, 1, 1), stride=2),
    "padded one by one weight": plane((16, 16), (4, 3, 1, 1), padding=1),
    "one by one weight, 3d": plane((4, 3, 5), (7, 4, 1, 1, 1), stride=2),
    "stride one": plane((4, 3), (40, 40, 3, 3), padding=1),
    "stride one, dilated, rectangular": plane((4, 5), (40, 40, 3, 2), padding=2, dilation=2),
    "strided": plane((5, 6), (40, 40, 3, 3), stride=2, padding=1),
    "depthwise, strided": plane((9, 8), (6, 1, 7, 5), stride=2, padding=3, groups=6),
    "depthwise, dilated": plane((12, 13), (6, 1, 5, 5), padding=2, dilation=2, groups=6),
    "grouped": plane((9, 8), (12, 2, 3, 3), padding=1, groups=3),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_layers_of_networks(name: str, channels_last: bool) -> None:
    check_convolution(replace(CASES[name], channels_last=channels_last))


def test_the_cases_reach_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "_HOPELESS", 1e9)
    assert {kernel for c in CASES.values() for kernel in able_conv_kernels(*c.inputs(), c.conv)} == set(CONV_KERNELS)


# ---------------------------------------------------------------------- choice by time, as on a GPU


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Choose kernels on the CPU by the seconds that this list is given; the first is taken away for each timing."""
    seconds: list[float] = []

    def timer(run: autotune.Run, device: torch.device) -> float:
        run()
        return seconds.pop(0)

    monkeypatch.setitem(autotune.TIMERS, "cpu", timer)
    monkeypatch.setattr(autotune, "_CHOSEN", {})
    return seconds


@pytest.mark.parametrize("seconds", [(1.0, 0.0), (0.0, 1.0)])
def test_a_shape_is_timed_once_and_anew_for_more_examples(timed: list[float], seconds: tuple[float, ...]) -> None:
    x, g = noise(3, 5, 7), noise(3, 5, 4, seed=1)
    expected = brute_force(F.linear, x, g, (4, 7))
    timed += seconds
    for n in (3, 3, 1):
        close(linear_squares(x[:n], g[:n]), expected[:n])
    assert timed == []
    timed += seconds
    close(linear_squares(x.repeat(2, 1, 1), g.repeat(2, 1, 1)), expected.repeat(2, 1))
    assert timed == []


def test_a_kernel_that_fails_is_passed_over(timed: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    conv, (x, g) = CASES["stride one"].conv, CASES["stride one"].inputs()
    names = able_conv_kernels(x, g, conv)
    timed += [0.0] * len(names)
    expected = squares_of(x, g, conv)
    autotune._CHOSEN.clear()
    for name in names[:-1]:
        monkeypatch.setitem(CONV_KERNELS, name, fail)
    timed += [0.0]
    close(squares_of(x, g, conv), expected)
    autotune._CHOSEN.clear()
    monkeypatch.setitem(CONV_KERNELS, names[-1], fail)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        squares_of(x, g, conv)


def test_kernels_that_need_too_much_memory_are_not_tried() -> None:
    conv = Convolution((256, 256, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    x = torch.empty(32, 256, 56, 56, device="meta")  # Gram matrices of 1.2 GB
    assert not {"pixel_gram", "patch_gram"} & set(able_conv_kernels(x, x, conv))
    wide = Convolution((4096, 4096, 3, 3), (1, 1), (1, 1), (1, 1), 1)
    x = torch.empty(32, 4096, 7, 7, device="meta")  # gradients of 19 GB
    assert "grouped" not in able_conv_kernels(x, x, wide)
    assert autotune.able_token_kernels(torch.empty(32, 4096, 8, device="meta"), 0.1) == ["products"]


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
    x, g = noise(2, 8, 12).float(), noise(2, 8, 9, seed=1).float()
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
    x = 1e3 * noise(8, 64, 1, 1).float().expand(8, 64, side, side).contiguous()
    g = noise(8, 64, 4, 4, seed=1).float()
    g -= g.mean((2, 3), keepdim=True)
    assert (squares(x, g) >= 0).all()
    assert squares(x * float("nan"), g).isnan().all(), "what is not finite must stay visible"
