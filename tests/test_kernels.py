"""Squared per-example gradients against autograd, one example at a time, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_task2vec import kernels
from hf_task2vec.kernels import conv_squares, linear_squares, token_squares

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
    # Relative to the layer: a filter's square may itself be a difference of large numbers in the Gram form.
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
    close(linear_squares(x, g), brute_force(F.linear, x, g, (c_out, c_in)))


@pytest.mark.parametrize("tokens", [1, 3, 200])
def test_tokens_choose_the_cheaper_form_and_agree(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = noise(3, tokens, 24), noise(3, tokens, 17, seed=1)
    expected = brute_force(F.linear, x, g, (17, 24))
    close(token_squares(x, g), expected)
    for advantage in (0.0, 1e9):  # always direct, always Gram
        monkeypatch.setattr(kernels, "_GRAM_ADVANTAGE", advantage)
        close(token_squares(x, g), expected)


def test_token_forms_are_both_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: shapes.append(tuple(bmm(a, b).shape)) or bmm(a, b))
    token_squares(noise(2, 3, 24), noise(2, 3, 17))
    assert shapes == [(2, 3, 3), (2, 3, 17)]
    shapes.clear()
    token_squares(noise(2, 99, 24), noise(2, 99, 17))
    assert shapes == [(2, 17, 24)]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_large_products_are_made_in_chunks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, g = noise(5, 60, 8), noise(5, 60, 6, seed=1)
    expected = brute_force(F.linear, x, g, (6, 8))
    seen = []
    direct = kernels.token_squares_direct
    monkeypatch.setattr(kernels, "_CHUNK_BYTES", rows * 8 * 6 * 8)
    monkeypatch.setattr(kernels, "token_squares_direct", lambda a, b: seen.append(len(a)) or direct(a, b))
    close(token_squares(x, g), expected)
    assert sum(seen) == 5
    assert max(seen) == rows


def test_tokens_may_have_any_strides() -> None:
    x, g = noise(3, 8, 50).transpose(1, 2), noise(3, 1, 6).expand(3, 50, 6)
    close(token_squares(x, g), brute_force(F.linear, x, g, (6, 8)))


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


def check_convolution(case: dict[str, Any], dtype: torch.dtype = torch.float64) -> None:
    shape, groups = case["weight_shape"], case["groups"]
    geometry = {key: case[key] for key in ("stride", "padding", "dilation", "groups")}
    spatial = len(case["size"])

    def convolve(xi: Tensor, weight: Tensor) -> Tensor:
        return CONVOLUTIONS[spatial](xi[None], weight, **geometry)[0]

    x = noise(case["n"], shape[1] * groups, *case["size"], seed=case.get("seed", 0), dtype=dtype)
    out = CONVOLUTIONS[spatial](x, torch.zeros(shape, dtype=dtype), **geometry)
    g = noise(*out.shape, seed=case.get("seed", 0) + 10, dtype=dtype)
    expected = brute_force(convolve, x, g, shape)
    if case.get("channels_last") and spatial > 1:
        memory = torch.channels_last if spatial == 2 else torch.channels_last_3d
        x, g = x.contiguous(memory_format=memory), g.contiguous(memory_format=memory)
    before = x.clone(), g.clone()
    actual = conv_squares(x, g, shape, case["stride"], case["padding"], case["dilation"], groups)
    assert (actual.shape, actual.dtype) == ((case["n"], shape[0]), dtype)
    close(actual, expected)
    assert torch.equal(x, before[0])
    assert torch.equal(g, before[1])


@settings(max_examples=300, deadline=None)
@given(case=convolutions())
def test_convolutions(case: dict[str, Any]) -> None:
    check_convolution(case)


def case(size: list[int], weight: tuple[int, ...], stride: int = 1, padding: int = 0, **more: Any) -> dict[str, Any]:
    d = len(size)
    geometry = {"stride": [stride] * d, "padding": [padding] * d, "dilation": [more.pop("dilation", 1)] * d}
    return {"n": 3, "size": size, "weight_shape": weight, "groups": 1, "channels_last": False} | geometry | more


PATHS = {
    "one by one weight is a token product": ("token_squares", case([6, 5], (7, 4, 1, 1))),
    "strided one by one weight": ("token_squares", case([7, 6], (7, 4, 1, 1), stride=2)),
    "one by one weight, 1d": ("token_squares", case([7], (7, 4, 1), stride=3)),
    "one by one weight, 3d": ("token_squares", case([4, 3, 5], (7, 4, 1, 1, 1), stride=2)),
    "stride one": ("_stride_one_gram", case([4, 3], (40, 40, 3, 3), padding=1)),
    "stride one, dilated, rectangular": ("_stride_one_gram", case([4, 5], (40, 40, 3, 2), padding=2, dilation=2)),
    "stride one, unpadded": ("_stride_one_gram", case([4, 4], (40, 40, 3, 3))),
    "strided": ("unfold", case([5, 6], (40, 40, 3, 3), stride=2, padding=1)),
    "depthwise": ("_depthwise_shifts", case([9, 8], (6, 1, 5, 5), padding=2, groups=6)),
    "depthwise, strided": ("_depthwise_shifts", case([9, 8], (6, 1, 7, 5), stride=2, padding=3, groups=6)),
    "depthwise, dilated": ("_depthwise_shifts", case([12, 13], (6, 1, 5, 5), padding=2, dilation=2, groups=6)),
    "depthwise with multiplier": ("_one_by_one", case([9, 8], (12, 1, 5, 5), padding=2, groups=6)),
    "small depthwise": ("_one_by_one", case([9, 8], (6, 1, 3, 3), padding=1, groups=6)),
    "grouped": ("_one_by_one", case([9, 8], (12, 2, 3, 3), padding=1, groups=3)),
    "many positions": ("_one_by_one", case([16, 16], (4, 3, 3, 3), padding=1)),
    "padded one by one weight": ("_one_by_one", case([16, 16], (4, 3, 1, 1), padding=1)),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", PATHS)
def test_each_path(name: str, channels_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path, settings_ = PATHS[name]
    owner = F if path == "unfold" else kernels
    calls = []
    original = getattr(owner, path)
    monkeypatch.setattr(owner, path, lambda *a, **k: calls.append(path) or original(*a, **k))
    check_convolution(settings_ | {"channels_last": channels_last})
    assert calls == [path]


@pytest.mark.parametrize("advantage", [0.0, 1e9])
@pytest.mark.parametrize("name", PATHS)
def test_every_form_is_exact_everywhere(name: str, advantage: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_GRAM_ADVANTAGE", advantage)
    check_convolution(PATHS[name][1])


@pytest.mark.parametrize("groups", [1, 2])
def test_an_example_of_several_inputs(groups: int) -> None:
    x, shape = noise(2, 3, 4, 6, 5), (6, 4 // groups, 3, 3)

    def convolve(xi: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(xi, weight, stride=2, padding=1, groups=groups)

    g = noise(2, *convolve(x[0], torch.zeros(shape, dtype=x.dtype)).shape, seed=1)
    close(conv_squares(x, g, shape, (2, 2), (1, 1), (1, 1), groups), brute_force(convolve, x, g, shape))


def test_float32_is_kept() -> None:
    x, g = noise(2, 8, 12, dtype=torch.float32), noise(2, 8, 9, seed=1, dtype=torch.float32)
    squares = linear_squares(x, g)
    assert squares.dtype == torch.float32
    torch.testing.assert_close(squares.double(), linear_squares(x.double(), g.double()), rtol=1e-5, atol=1e-5)


GRAM_FORMS = {
    "tokens": (lambda x, g: token_squares(x.flatten(2).transpose(1, 2), g.flatten(2).transpose(1, 2)), 4),
    "stride one": (lambda x, g: conv_squares(x, g, (64, 64, 3, 3), (1, 1), (1, 1), (1, 1), 1), 4),
    "strided": (lambda x, g: conv_squares(x, g, (64, 64, 3, 3), (2, 2), (1, 1), (1, 1), 1), 8),
}


@pytest.mark.parametrize("name", GRAM_FORMS)
def test_gram_forms_that_cancel_do_not_fall_below_zero(name: str) -> None:
    squares, side = GRAM_FORMS[name]
    x = 1e3 * noise(8, 64, 1, 1, dtype=torch.float32).expand(8, 64, side, side).contiguous()
    g = noise(8, 64, 4, 4, seed=1, dtype=torch.float32)
    g -= g.mean((2, 3), keepdim=True)
    assert (squares(x, g) >= 0).all()
    assert squares(x * float("nan"), g).isnan().all(), "what is not finite must stay visible"
