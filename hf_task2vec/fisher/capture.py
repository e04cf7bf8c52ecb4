"""Capture what a layer's per-example gradients are made of, and square them in the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_task2vec.errors import ProbeError
from hf_task2vec.fisher.autotune import conv_squares, linear_squares
from hf_task2vec.probes import CallInterceptor, FilterLayer, weight_owners


class _Anchor(torch.autograd.Function):
    """Start a graph at the first filter's output: nothing before it needs a gradient."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(output)  # stays in place, and may later be changed in place, unlike a leaf
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        return None, None


@dataclass
class _Plan:
    """What a layer needs at run time: its place in the embedding, and the BatchNorm folded into it."""

    layer: FilterLayer
    sums: Tensor
    weight: Tensor | None = None  # with a folded BatchNorm, and so below
    bias: Tensor | None = None
    scale_squared: Tensor | None = None
    norm: int | None = None  # id of the folded BatchNorm's running variance


class SquareCapture(CallInterceptor):
    """Intercepts filter calls: keeps their inputs, and squares per-example gradients in the backward pass.

    Parameters
    ----------
    module
        The network.
    layers
        Its covered layers.
    """

    def __init__(self, module: nn.Module, layers: tuple[FilterLayer, ...]) -> None:
        super().__init__()
        owners = {name: weight for weight, name in weight_owners(module).items()}
        parameters = {id(p): p for p in module.parameters()}
        modules = dict(module.named_modules())
        self.plans: dict[int, _Plan] = {}
        for layer in layers:
            weight = parameters[owners[layer.name]]
            sums = torch.zeros(2, layer.n_filters, dtype=torch.float64, device=weight.device)
            plan = _Plan(layer, sums)
            if layer.batch_norm is not None:
                _fold(plan, weight, modules[layer.name], modules[layer.batch_norm])
            self.plans[id(weight)] = plan
        self.counts = np.zeros(2, dtype=np.int64)
        self.half = torch.empty(0, dtype=torch.int64)
        self._not_finite = torch.zeros((), dtype=torch.float64, device=next(iter(self.plans.values())).sums.device)
        self._unnormalised: dict[int, int] = {}  # id of a folded output -> id of the BatchNorm still to be skipped
        self._modules = module  # keeps the parameters, hence the ids, alive

    def filter_call(self, kind: str, func: Any, call: dict[str, Any]) -> Tensor:
        """Compute the output, and arrange that its gradient is squared."""
        plan = self.plans.get(id(call["weight"]))
        if plan is None:
            return func(**call)
        x: Tensor = call["input"].detach()
        shape = call["weight"].shape
        if plan.weight is not None:
            call = {**call, "weight": plan.weight, "bias": plan.bias}
        output: Tensor = func(**call)
        if not torch.is_grad_enabled():
            raise ProbeError(
                f"layer {plan.layer.name!r} runs under torch.no_grad(), so it has no gradient; remove that from the "
                "network's forward"
            )
        if not output.requires_grad:
            anchor = torch.zeros((), device=output.device, requires_grad=True)
            output = _Anchor.apply(output, anchor)
        if plan.norm is not None:
            self._unnormalised[id(output)] = plan.norm
        version = x._version

        def accumulate(g: Tensor) -> None:
            if x._version != version:
                raise ProbeError(
                    f"the input of layer {plan.layer.name!r} was overwritten in place after use, so its gradient "
                    "would be wrong; make the operation after it out-of-place"
                )
            with torch.no_grad():
                # In half precision, squares and their sums would lose most of their digits.
                inputs, gradients = (_by_example(in_full(t), len(self.half), plan.layer.name) for t in (x, g))
                squares = _squares(kind, inputs, gradients, shape, call)
                plan.sums.index_add_(0, self.half, squares.to(torch.float64))

        output.register_hook(accumulate)
        return output

    def batch_norm(self, func: Any, call: dict[str, Any]) -> Tensor:
        """Normalise, unless that is folded into the layer before."""
        if self._unnormalised.pop(id(call["input"]), None) == id(call["running_var"]):
            return call["input"]
        if call["training"]:  # of a weight, which is how weight standardisation is computed
            return func(**call)
        # Written out, because torch 2.15's own backward is wrong on a CPU for one image and a transposed gradient.
        scale, shift = _affine(call["running_mean"], call["running_var"], call["weight"], call["bias"], call["eps"])
        shape = (1, -1, *[1] * (call["input"].dim() - 2))
        x = in_full(call["input"])
        y = torch.addcmul(shift.to(x.dtype).view(shape), x, scale.to(x.dtype).view(shape))
        return y.to(call["input"].dtype)

    def watch(self, features: Tensor) -> None:
        """Count the features that are not finite; :meth:`result` tells, so that nothing waits for the device here."""
        self._not_finite += (~features.detach().isfinite()).sum()

    def result(self) -> tuple[np.ndarray, bool]:
        """Return the sums of all layers, shape (2, n_filters), and whether all features watched were finite.

        The sums refer to the original, unfolded weights.
        """
        parts = [
            plan.sums if plan.scale_squared is None else plan.sums * plan.scale_squared for plan in self.plans.values()
        ]
        found = torch.cat([*parts, self._not_finite.expand(2, 1)], dim=1).cpu().numpy()
        return found[:, :-1], bool(found[0, -1] == 0)

    def first_non_finite(self, sums: np.ndarray) -> str:
        """Name the first layer with a non-finite sum."""
        position = int(np.flatnonzero(~np.isfinite(sums).all(axis=0))[0])
        ends = np.cumsum([plan.layer.n_filters for plan in self.plans.values()])
        return list(self.plans.values())[int(np.searchsorted(ends, position, side="right"))].layer.name


def in_full(t: Tensor) -> Tensor:
    """Return a tensor in single precision at least."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _fold(plan: _Plan, weight: Tensor, layer: nn.Module, norm: nn.Module) -> None:
    """Fold ``y = γ (Wx + b − μ)/σ + β`` into one weight and bias.

    As dL/dW = (γ/σ) dL/dW_folded, the Fisher information scales by the square of γ/σ.
    """
    variance = norm.running_var
    norm_weight, norm_bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    scale, bias = _affine(norm.running_mean, variance, norm_weight, norm_bias, norm.eps)
    if getattr(layer, "bias", None) is not None:
        bias = bias + layer.bias.detach().double() * scale  # type: ignore[operator]
    folded = weight.detach().double() * scale.view(-1, *[1] * (weight.dim() - 1))
    plan.weight, plan.bias = folded.to(weight.dtype).contiguous(memory_format=_layout(weight)), bias.to(weight.dtype)
    plan.scale_squared = scale.square()
    plan.norm = id(variance)


def _affine(mean: Any, variance: Any, weight: Any, bias: Any, eps: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BatchNorm in eval mode, float64, each of shape (C,)."""
    scale = torch.rsqrt(variance.detach().double() + eps)
    if weight is not None:
        scale = scale * weight.detach().double()
    shift = -mean.detach().double() * scale
    return scale, shift if bias is None else shift + bias.detach().double()


def _layout(weight: Tensor) -> torch.memory_format:
    last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _by_example(t: Tensor, n: int, name: str) -> Tensor:
    """Split the first dimension by example where a layer sees one as several inputs, such as attention windows.

    That examples are its slow index was checked by `trace_layers`.
    """
    if len(t) == n:
        return t
    if len(t) % n:
        raise ProbeError(f"layer {name!r} got {len(t)} inputs for a batch of {n} images")
    return t.unflatten(0, (n, -1))


def _squares(kind: str, x: Tensor, g: Tensor, shape: torch.Size, call: dict[str, Any]) -> Tensor:
    """Per-example squared gradients of one call's filters, shape (N, n_filters)."""
    if kind == "linear":
        return linear_squares(x, g)
    spatial = len(shape) - 2
    stride, dilation = (_tuple(call[key], spatial) for key in ("stride", "dilation"))
    padding = call["padding"]
    if isinstance(padding, str):
        if padding == "same":
            total = [d * (k - 1) for d, k in zip(dilation, shape[2:], strict=True)]
            x = nn.functional.pad(x, [p for t in reversed(total) for p in (t // 2, t - t // 2)])
        padding = 0
    return conv_squares(x, g, shape, stride, _tuple(padding, spatial), dilation, call["groups"])


def _tuple(value: Any, length: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * length if len(values) == 1 else values
