"""Kernels for the squared norms of per-example, per-filter weight gradients: each exact, each the fastest somewhere.

For a layer with input ``a`` and output gradient ``g``, the gradient of filter ``c`` on one example is
``w_c = Σ_t g_c(t) a(t)`` over output positions ``t`` (``a(t)`` the patch under position ``t``), and its squared norm is

* direct: ``‖Σ_t g_c(t) a(t)‖²``, a matrix product of cost ``T·K·C_out``, or
* Gram: ``Σ_{t,t'} g_c(t) g_c(t') ⟨a(t), a(t')⟩``, of cost about ``T²·(C_in + C_out)``,

with ``T`` positions and ``K`` weights in a filter. A kernel takes the layer's input, shape (N, C_in, *spatial), the
gradient of its output, shape (N, C_out, *spatial_out), and the geometry; it returns shape (N, C_out) in their dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType

import torch
import torch.nn.functional as F
from torch import Tensor

# glibc returns larger blocks to the system at once, and each new use of them faults page by page.
_CHUNK_BYTES = {"cpu": 16 << 20}
_DEVICE_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class Convolution:
    """Geometry of a convolution: the weight's shape (C_out, C_in / groups, *kernel), and an entry per dimension."""

    weight_shape: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def kernel(self) -> tuple[int, ...]:
        """Kernel size."""
        return self.weight_shape[2:]

    @property
    def is_pointwise(self) -> bool:
        """Whether it is a linear layer over some of the positions."""
        return self.groups == 1 and max(self.kernel) == 1 and not any(self.padding)

    @property
    def is_depthwise(self) -> bool:
        """Whether it is two-dimensional with one filter for every channel."""
        return len(self.kernel) == 2 and self.weight_shape[:2] == (self.groups, 1)


def gram_of_tokens(x: Tensor, g: Tensor) -> Tensor:
    """Gram form of ``Σ_t g_c(t) x(t)`` for tokens ``x`` (N, T, K) and gradients ``g`` (N, T, C); any strides."""
    gram = torch.bmm(x, x.transpose(1, 2))
    return _gram_sum(torch.bmm(gram, g) * g, 1)


def _gram_sum(products: Tensor, dim: int) -> Tensor:
    """Sum of a Gram form. Terms of both signs that cancel may leave a rounding error below zero, but no square is."""
    return products.sum(dim).clamp_(min=0.0)


def products_of_tokens(x: Tensor, g: Tensor) -> Tensor:
    """Direct form of ``Σ_t g_c(t) x(t)``: the per-example gradients themselves, a chunk of examples at a time."""

    def squares(x: Tensor, g: Tensor) -> Tensor:
        return torch.bmm(g.transpose(1, 2), x).square_().sum(2)

    return _in_chunks(squares, x, g, x.shape[2] * g.shape[2])


def _in_chunks(squares: Callable[[Tensor, Tensor], Tensor], x: Tensor, g: Tensor, entries: int) -> Tensor:
    """Apply `squares` to as many examples at a time as memory should hold; each needs `entries` numbers."""
    limit = _CHUNK_BYTES.get(x.device.type, _DEVICE_CHUNK_BYTES)
    chunk = max(1, limit // (entries * x.element_size()))
    if chunk >= len(x):
        return squares(x, g)
    return torch.cat([squares(x[i : i + chunk], g[i : i + chunk]) for i in range(0, len(x), chunk)])


def _pointwise_gram(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    return gram_of_tokens(*_tokens(x, g, conv))


def _pointwise_products(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    return products_of_tokens(*_tokens(x, g, conv))


def _tokens(x: Tensor, g: Tensor, conv: Convolution) -> tuple[Tensor, Tensor]:
    """View a pointwise convolution as a linear layer over tokens."""
    if max(conv.stride) > 1:
        steps: tuple[EllipsisType | slice, ...] = (..., *(slice(None, None, s) for s in conv.stride))
        x = x[steps]
    return _positions(x), _positions(g)


def _positions(x: Tensor) -> Tensor:
    """View feature maps (N, C, *spatial) as tokens (N, T, C), whichever of the two memory layouts they have."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).flatten(1, 2)
    return x.flatten(2).transpose(1, 2)


def _padded(x: Tensor, conv: Convolution) -> Tensor:
    return F.pad(x, [p for size in reversed(conv.padding) for p in (size, size)])


def _patches(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    """Copy the patches under all output positions, shape (N, groups, K, T)."""
    x, out = _padded(x, conv), g.shape[2:]
    # Unlike F.unfold, one kernel for all examples, any number of dimensions, and faster on a CPU.
    steps = [s * d for s, d in zip(x.stride()[2:], conv.dilation, strict=True)]
    strides = [s * d for s, d in zip(x.stride()[2:], conv.stride, strict=True)]
    windows = x.as_strided((*x.shape[:2], *conv.kernel, *out), (*x.stride()[:2], *steps, *strides))
    return windows.reshape(len(x), conv.groups, -1, math.prod(out))


def _patch_products(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    """Direct form: per-example gradients as products of gradients and patches."""

    def squares(x: Tensor, g: Tensor) -> Tensor:
        patches = _patches(x, g, conv)
        rows = g.reshape(len(g), conv.groups, -1, patches.shape[3])
        return torch.matmul(rows, patches.transpose(2, 3)).square_().sum(3).flatten(1)

    inputs = x.shape[1] * math.prod(conv.kernel) * math.prod(g.shape[2:])
    return _in_chunks(squares, x, g, max(inputs, math.prod(conv.weight_shape)))


def _patch_gram(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    """Gram form of any convolution without groups."""
    patches = _patches(x, g, conv)[:, 0]
    gram = torch.bmm(patches.transpose(1, 2), patches)
    rows = g.flatten(2)
    return _gram_sum(torch.bmm(rows, gram) * rows, 2)


def _pixel_gram(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    """Gram form at stride 1: the Gram matrix of patches is a sum of shifted Gram matrices of single pixels."""
    n, _, h, w = x.shape
    h_out, w_out = g.shape[2:]
    pixels = _positions(x)
    gram = torch.bmm(pixels, pixels.transpose(1, 2)).view(n, h, w, h, w)
    ph, pw = conv.padding
    gram = F.pad(gram, (pw, pw, ph, ph, pw, pw, ph, ph))
    rows: Tensor | None = None
    for i in range(conv.kernel[0]):
        lo = i * conv.dilation[0]
        part = gram[:, lo : lo + h_out, :, lo : lo + h_out]
        rows = part.clone() if rows is None else rows.add_(part)
    assert rows is not None
    patches: Tensor | None = None
    for j in range(conv.kernel[1]):
        lo = j * conv.dilation[1]
        part = rows[:, :, lo : lo + w_out, :, lo : lo + w_out]
        patches = part.clone(memory_format=torch.contiguous_format) if patches is None else patches.add_(part)
    assert patches is not None
    t = h_out * w_out
    gradients = _positions(g)
    return _gram_sum(torch.bmm(patches.reshape(n, t, t), gradients) * gradients, 1)


def _shifts(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    """Depthwise filters one weight at a time: each is a sum over positions of shifted input times gradient."""
    x = _padded(x, conv)
    h_out, w_out = g.shape[2:]
    total = torch.zeros_like(g[:, :, 0, 0])
    for i in range(conv.kernel[0]):
        for j in range(conv.kernel[1]):
            top, left = i * conv.dilation[0], j * conv.dilation[1]
            bottom, right = top + (h_out - 1) * conv.stride[0] + 1, left + (w_out - 1) * conv.stride[1] + 1
            shifted = x[:, :, top : bottom : conv.stride[0], left : right : conv.stride[1]]
            total += (shifted * g).sum((2, 3)).square_()
    return total


def _grouped(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    """All examples in one call of the library's own backward kernel, as groups of one wide convolution."""
    n = len(x)
    if x.dim() == len(conv.weight_shape):
        x, g = x[:, None], g[:, None]
    x, g = (t.transpose(0, 1).flatten(1, 2) for t in (x, g))  # (M, N·C, *spatial)
    gradient = _weight_gradient(x, g, conv, n)
    return gradient.unflatten(0, (n, -1)).square_().flatten(2).sum(2)


def _loop(x: Tensor, g: Tensor, conv: Convolution) -> Tensor:
    """Each example's weight gradient by the library's own backward kernel, squared and summed at once."""
    single = x.dim() == len(conv.weight_shape)
    # A split keeps the strides from which the library tells the memory layout; an index and a new dimension do not.
    examples = zip(*(t.split(1) if single else t.unbind() for t in (x, g)), strict=True)
    gradients = (_weight_gradient(xi, gi, conv) for xi, gi in examples)
    return torch.stack([gradient.square().flatten(1).sum(1) for gradient in gradients])


def _weight_gradient(x: Tensor, g: Tensor, conv: Convolution, n: int = 1) -> Tensor:
    """Gradient of the weights of `n` convolutions side by side, summed over the inputs."""
    weight = x.new_empty(n * conv.weight_shape[0], *conv.weight_shape[1:])  # only its shape is read
    geometry = list(conv.stride), list(conv.padding), list(conv.dilation)
    no_output_padding, only_weight = [0] * len(conv.kernel), (False, True, False)
    gradient: Tensor = torch.ops.aten.convolution_backward(
        g, x, weight, None, *geometry, False, no_output_padding, n * conv.groups, only_weight
    )[1]
    return gradient


TOKEN_KERNELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"gram": gram_of_tokens, "products": products_of_tokens}
CONV_KERNELS: dict[str, Callable[[Tensor, Tensor, Convolution], Tensor]] = {
    "gram": _pointwise_gram,  # these two for pointwise convolutions only
    "products": _pointwise_products,
    "pixel_gram": _pixel_gram,
    "patch_gram": _patch_gram,
    "patch_products": _patch_products,
    "shifts": _shifts,
    "grouped": _grouped,  # these two also for an example of M inputs, shape (N, M, C, *spatial)
    "loop": _loop,
}
