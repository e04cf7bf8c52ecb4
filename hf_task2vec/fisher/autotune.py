"""Squared per-example gradients of a layer's filters, by whichever kernel is the fastest for its shape.

On a CPU the kernel follows a rule that was measured there. Which is the fastest on a GPU depends on the chip and on the
libraries' own choices too, and one of many small calls is bound by their launches: there, each kernel that may win is
timed once for a layer's shape, in the first batch, and the choice is kept.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from hf_task2vec.fisher.kernels import CONV_KERNELS, TOKEN_KERNELS, Convolution

logger = logging.getLogger(__name__)

Run = Callable[[], Tensor]
# A Gram product is memory-bound next to a dense one, so it must save some arithmetic to pay.
_GRAM_ADVANTAGE = 0.8
# Where kernels are timed, one of more than this many times the direct product's arithmetic is not tried,
_HOPELESS = 8.0
# nor one that needs more memory than this.
_WORKSPACE_BYTES = 1 << 30
_REPEATS = 3


def linear_squares(x: Tensor, g: Tensor) -> Tensor:
    """Squared per-example gradients of a linear layer's rows, shape (N, C_out), in the dtype of the inputs.

    Parameters
    ----------
    x
        Layer input, shape (N, ..., C_in); every dimension between the first and the last counts as positions.
    g
        Gradient of the output, shape (N, ..., C_out).
    """
    if x.dim() == 2:
        return g.square() * x.square().sum(1, keepdim=True)
    x, g = x.flatten(1, -2), g.flatten(1, -2)
    share = _token_arithmetic(x.shape[1], x.shape[2], g.shape[2])
    if x.device.type not in TIMERS:
        return TOKEN_KERNELS["gram" if share < _GRAM_ADVANTAGE else "products"](x, g)
    kernels = able_token_kernels(x, share)
    name = fastest(("linear", g.shape[2]), x, {name: functools.partial(TOKEN_KERNELS[name], x, g) for name in kernels})
    return TOKEN_KERNELS[name](x, g)


def conv_squares(
    x: Tensor,
    g: Tensor,
    weight_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Squared per-example gradients of a convolution's filters (1, 2 or 3 spatial dimensions), shape (N, C_out).

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
    conv = Convolution(tuple(weight_shape), tuple(stride), tuple(padding), tuple(dilation), groups)
    if x.device.type not in TIMERS:
        return CONV_KERNELS[rule_of_cpu(x, g, conv)](x, g, conv)
    kernels = able_conv_kernels(x, g, conv)
    name = fastest(conv, x, {name: functools.partial(CONV_KERNELS[name], x, g, conv) for name in kernels})
    return CONV_KERNELS[name](x, g, conv)


def rule_of_cpu(x: Tensor, g: Tensor, conv: Convolution) -> str:
    """Return the name in `CONV_KERNELS` of the kernel that was measured to be the fastest on a CPU."""
    if x.dim() > len(conv.weight_shape):
        return "loop"
    if conv.is_pointwise:
        return "gram" if _conv_arithmetic(g, conv)["gram"] < _GRAM_ADVANTAGE else "products"
    for name, share in _conv_arithmetic(g, conv).items():
        if share < _GRAM_ADVANTAGE:
            return name
    if conv.is_depthwise and max(conv.kernel) >= 5 and math.prod(g.shape[2:]) <= 200:
        return "shifts"
    return "loop"


def able_token_kernels(x: Tensor, share: float) -> list[str]:
    """Names in `TOKEN_KERNELS` that fit into memory and may be fastest; the Gram product has `share` of the work."""
    gram = share <= _HOPELESS and len(x) * x.shape[1] ** 2 * x.element_size() <= _WORKSPACE_BYTES
    return ["products", "gram"] if gram else ["products"]


def able_conv_kernels(x: Tensor, g: Tensor, conv: Convolution) -> list[str]:
    """Names in `CONV_KERNELS` that can compute a convolution's squares within memory, and may be the fastest."""
    n, size = len(x), x.element_size()
    kernels = ["loop"]
    if 2 * n * math.prod(conv.weight_shape) * size <= _WORKSPACE_BYTES:
        kernels.append("grouped")
    if x.dim() > len(conv.weight_shape):
        return kernels
    kernels.append("products" if conv.is_pointwise else "patch_products")
    if conv.is_depthwise:
        kernels.append("shifts")
    t, k = math.prod(g.shape[2:]), math.prod(conv.weight_shape[1:])
    pixels = math.prod(s + 2 * p for s, p in zip(x.shape[2:], conv.padding, strict=True))
    numbers = {"gram": n * t * t, "pixel_gram": 3 * n * pixels**2, "patch_gram": n * t * (t + k)}
    shares = _conv_arithmetic(g, conv)
    fit = [name for name in shares if shares[name] <= _HOPELESS and numbers[name] * size <= _WORKSPACE_BYTES]
    return kernels + fit


def _token_arithmetic(t: int, k: int, c: int) -> float:
    """Arithmetic of the Gram product for tokens, as a share of the direct product's."""
    return t * (k + c) / (k * c)


def _conv_arithmetic(g: Tensor, conv: Convolution) -> dict[str, float]:
    """Arithmetic of the Gram kernels that there are, as a share of the direct product's; the better one first."""
    c_out, c_in = conv.weight_shape[:2]
    t, k = math.prod(g.shape[2:]), c_in * math.prod(conv.kernel)
    if conv.is_pointwise:
        return {"gram": _token_arithmetic(t, k, c_out)}
    if conv.groups > 1 or len(conv.kernel) != 2:
        return {}
    shares = {"patch_gram": (t * (k + c_out) + 2 * k) / (k * c_out)}
    if max(conv.stride) > 1:
        return shares
    return {"pixel_gram": t * (c_in + c_out + 2 * sum(conv.kernel)) / (k * c_out), **shares}


def cuda_seconds(run: Run, device: torch.device) -> float:
    """Return the time of a call on a CUDA device in seconds, launches included; waits for the device."""
    with torch.cuda.device(device):
        run()  # loads the kernels, and lets the libraries choose theirs
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(_REPEATS):
            run()
        end.record()
        end.synchronize()
    return float(start.elapsed_time(end)) / (1000 * _REPEATS)


#: Types of device on which kernels are chosen by time, and how it is taken.
TIMERS: dict[str, Callable[[Run, torch.device], float]] = {"cuda": cuda_seconds}
# What was chosen, and the number of examples it was timed with.
_CHOSEN: dict[Hashable, tuple[int, str]] = {}


def fastest(key: Hashable, x: Tensor, candidates: Mapping[str, Run]) -> str:
    """Return the name of the fastest candidate, timed when `key` is first seen with this shape, type and device.

    Parameters
    ----------
    key
        What decides the speed beside the shape, type and device of `x`.
    x
        The layer's input, N examples. Fewer of them later, as in a last batch, keep the choice; more are timed anew.
    candidates
        Calls that compute the same. One that fails, for want of memory or of a kernel for the shape, is passed over.

    Raises
    ------
    RuntimeError
        Of the last candidate, where none works.
    """
    key = (key, x.shape[1:], x.dtype, x.device)
    timed, choice = _CHOSEN.get(key, (0, ""))
    if len(x) <= timed:
        return choice
    seconds: dict[str, float] = {}
    failure: RuntimeError | None = None
    for name, run in candidates.items():
        try:
            seconds[name] = TIMERS[x.device.type](run, x.device)
        except RuntimeError as error:
            logger.debug("kernel %s fails for %s: %s", name, key, error)
            failure = error
    if not seconds:
        assert failure is not None
        raise failure
    choice = min(seconds, key=lambda name: seconds[name])
    logger.debug("kernel %s for %s; seconds: %s", choice, key, seconds)
    _CHOSEN[key] = len(x), choice
    return choice
