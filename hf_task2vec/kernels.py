"""Squared norms of per-example, per-filter weight gradients, without storing a weight gradient for every example.

For a layer with input ``a`` and output gradient ``g``, the gradient of filter ``c`` on one example is
``w_c = Σ_t g_c(t) a(t)`` over output positions ``t`` (``a(t)`` the patch under position ``t``), and its squared norm is

* direct: ``‖Σ_t g_c(t) a(t)‖²``, a matrix product of cost ``T·K·C_out``, or
* Gram: ``Σ_{t,t'} g_c(t) g_c(t') ⟨a(t), a(t')⟩``, of cost about ``T²·(C_in + C_out)``,

with ``T`` positions and ``K`` weights in a filter. Each function returns shape ``(N, C_out)`` in the dtype of its
inputs and is exact: tests compare them with brute force in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType

import torch
import torch.nn.functional as F
from torch import Tensor

# A Gram product is memory-bound next to a dense one, so it must save some arithmetic to pay.
_GRAM_ADVANTAGE = 0.8
# glibc returns larger blocks to the system at once, and each new use of them faults page by page.
_CHUNK_BYTES = 16 << 20


def linear_squares(x: Tensor, g: Tensor) -> Tensor:
    """Squared per-example gradients of a linear layer's rows.

    Parameters
    ----------
    x
        Layer input, shape (N, ..., C_in); every dimension between the first and the last counts as positions.
    g
        Gradient of the output, shape (N, ..., C_out).
    """
    if x.dim() == 2:
        return g.square() * x.square().sum(1, keepdim=True)
    return token_squares(x.flatten(1, -2), g.flatten(1, -2))


def token_squares(x: Tensor, g: Tensor) -> Tensor:
    """Squared norms of ``Σ_t g_c(t) x(t)`` for tokens ``x`` (N, T, K) and gradients ``g`` (N, T, C); any strides."""
    n, t, k = x.shape
    c = g.shape[2]
    if t * (k + c) < _GRAM_ADVANTAGE * k * c:
        gram = torch.bmm(x, x.transpose(1, 2))
        return _gram_sum(torch.bmm(gram, g) * g, 1)
    chunk = max(1, _CHUNK_BYTES // (k * c * x.element_size()))
    if chunk >= n:
        return torch.bmm(g.transpose(1, 2), x).square_().sum(2)
    return torch.cat([token_squares_direct(x[i : i + chunk], g[i : i + chunk]) for i in range(0, n, chunk)])


def _gram_sum(products: Tensor, dim: int) -> Tensor:
    """Sum of a Gram form. Terms of both signs that cancel may leave a rounding error below zero, but no square is."""
    return products.sum(dim).clamp_(min=0.0)


def token_squares_direct(x: Tensor, g: Tensor) -> Tensor:
    """:func:`token_squares` through the per-example gradients themselves."""
    return torch.bmm(g.transpose(1, 2), x).square_().sum(2)


def conv_squares(
    x: Tensor,
    g: Tensor,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Squared per-example gradients of a convolution's filters (1, 2 or 3 spatial dimensions).

    Parameters
    ----------
    x
        Layer input, shape (N, C_in, *spatial), or (N, M, C_in, *spatial) where the layer sees an example as M inputs.
    g
        Gradient of the output, shape (N, C_out, *spatial_out) or (N, M, C_out, *spatial_out).
    weight_shape
        Shape of the weight, (C_out, C_in / groups, *kernel).
    stride, padding, dilation
        One integer per spatial dimension.
    groups
        Number of groups of the convolution.
    """
    kernel = tuple(weight_shape[2:])
    if x.dim() > len(weight_shape):
        return _one_by_one(x, g, weight_shape, stride, padding, dilation, groups)
    if groups == 1 and max(kernel) == 1 and not any(padding):
        if max(stride) > 1:
            steps: tuple[EllipsisType | slice, ...] = (..., *(slice(None, None, s) for s in stride))
            x = x[steps]
        return token_squares(_positions(x), _positions(g))
    if x.dim() == 4:
        t, k, c_in, c_out = g[0, 0].numel(), weight_shape[1] * kernel[0] * kernel[1], x.shape[1], g.shape[1]
        direct = _GRAM_ADVANTAGE * t * k * c_out
        if groups == 1 and max(stride) == 1 and t * t * (c_in + c_out + 2 * sum(kernel)) < direct:
            return _stride_one_gram(x, g, kernel, padding, dilation)
        if groups == 1 and t * t * (k + c_out) + 2 * t * k < direct:
            patches = F.unfold(x, kernel, dilation=tuple(dilation), padding=tuple(padding), stride=tuple(stride))
            gram = torch.bmm(patches.transpose(1, 2), patches)
            rows = g.flatten(2)
            return _gram_sum(torch.bmm(rows, gram) * rows, 2)
        if groups == x.shape[1] == g.shape[1] and max(kernel) >= 5 and t <= 200:
            return _depthwise_shifts(x, g, kernel, stride, padding, dilation)
    return _one_by_one(x, g, weight_shape, stride, padding, dilation, groups)


def _positions(x: Tensor) -> Tensor:
    """View feature maps (N, C, *spatial) as tokens (N, T, C), whichever of the two memory layouts they have."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).flatten(1, 2)
    return x.flatten(2).transpose(1, 2)


def _stride_one_gram(
    x: Tensor, g: Tensor, kernel: tuple[int, ...], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Gram form at stride 1: the Gram matrix of patches is a sum of shifted Gram matrices of single pixels."""
    n, _, h, w = x.shape
    h_out, w_out = g.shape[2:]
    pixels = _positions(x)
    gram = torch.bmm(pixels, pixels.transpose(1, 2)).view(n, h, w, h, w)
    ph, pw = padding
    gram = F.pad(gram, (pw, pw, ph, ph, pw, pw, ph, ph))
    rows: Tensor | None = None
    for i in range(kernel[0]):
        lo = i * dilation[0]
        part = gram[:, lo : lo + h_out, :, lo : lo + h_out]
        rows = part.clone() if rows is None else rows.add_(part)
    assert rows is not None
    patches: Tensor | None = None
    for j in range(kernel[1]):
        lo = j * dilation[1]
        part = rows[:, :, lo : lo + w_out, :, lo : lo + w_out]
        patches = part.clone(memory_format=torch.contiguous_format) if patches is None else patches.add_(part)
    assert patches is not None
    t = h_out * w_out
    gradients = _positions(g)
    return _gram_sum(torch.bmm(patches.reshape(n, t, t), gradients) * gradients, 1)


def _depthwise_shifts(
    x: Tensor,
    g: Tensor,
    kernel: tuple[int, ...],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Depthwise filters one weight at a time: each is a sum over positions of shifted input times gradient."""
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    h_out, w_out = g.shape[2:]
    total = torch.zeros_like(g[:, :, 0, 0])
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + (h_out - 1) * stride[0] + 1, left + (w_out - 1) * stride[1] + 1
            shifted = x[:, :, top : bottom : stride[0], left : right : stride[1]]
            total += (shifted * g).sum((2, 3)).square_()
    return total


def _one_by_one(
    x: Tensor,
    g: Tensor,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Each example's weight gradient by the library's own backward kernel, squared and summed at once."""
    weight = torch.empty(tuple(weight_shape), dtype=x.dtype, device=x.device)  # only its shape is read
    single = x.dim() == len(weight_shape)
    squares = []
    for i in range(x.shape[0]):
        gradient = torch.ops.aten.convolution_backward(
            g[i : i + 1] if single else g[i],
            x[i : i + 1] if single else x[i],
            weight,
            None,
            list(stride),
            list(padding),
            list(dilation),
            False,
            [0] * len(stride),
            groups,
            (False, True, False),
        )[1]
        squares.append(gradient.square().flatten(1).sum(1))
    return torch.stack(squares)
