"""Per-filter diagonal Fisher information of a probe network (Achille et al. 2019, arXiv 1902.03545, section 2).

``F_i = E_x E_{y~p(y|x)} [ (∂ log p(y|x) / ∂w_i)² ]`` for every weight of the extractor, averaged over the weights of a
filter: labels come from the model's own output and the square is taken per example, before any sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_task2vec.errors import FisherError, UnsupportedLayerError
from hf_task2vec.kernels import conv_squares, linear_squares
from hf_task2vec.layers import CallInterceptor, FilterLayer, weight_owners
from hf_task2vec.seeds import SAMPLINGS, SEEDS, logit_seeds

if TYPE_CHECKING:
    from hf_task2vec.head import Head
    from hf_task2vec.probe import Probe


@dataclass(frozen=True)
class FisherSums:
    """Sums over examples, ready to be added across processes and divided once.

    Attributes
    ----------
    layers
        The covered layers, in embedding order.
    sums
        Shape (2, n_filters), float64: squared gradients summed over a filter's weights and over the examples of
        either half. The two halves tell how noisy the estimate is.
    counts
        Shape (2,), int64: examples in each half.
    """

    layers: tuple[FilterLayer, ...]
    sums: np.ndarray
    counts: np.ndarray

    def mean(self) -> np.ndarray:
        """Per-filter mean Fisher information, shape (n_filters,), float64."""
        return self._divide(self.sums.sum(axis=0), int(self.counts.sum()))

    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the estimates of the two halves, each of shape (n_filters,)."""
        return self._divide(self.sums[0], int(self.counts[0])), self._divide(self.sums[1], int(self.counts[1]))

    def __add__(self, other: FisherSums) -> FisherSums:
        if self.layers != other.layers:
            raise FisherError("sums of different networks or layers cannot be added")
        return FisherSums(self.layers, self.sums + other.sums, self.counts + other.counts)

    def _divide(self, total: np.ndarray, count: int) -> np.ndarray:
        if count == 0:
            raise FisherError("no examples were seen: the Fisher information needs at least one image (two for halves)")
        weights = np.repeat(
            [layer.weights_per_filter for layer in self.layers], [layer.n_filters for layer in self.layers]
        )
        return total / (weights * count)


@torch.inference_mode(False)
def diagonal_fisher(
    probe: Probe,
    batches: Iterable[tuple[Tensor, np.ndarray]],
    *,
    head: Head,
    label_sampling: str = "sketch",
    draws: int = 1,
    seed: int = 0,
    halves: np.ndarray | None = None,
    fold_batch_norm: bool = True,
) -> FisherSums:
    """Sum the per-filter squared gradients of the log-likelihood over examples.

    Parameters
    ----------
    probe
        The probe network.
    batches
        Pairs of images, shape (B, 3, H, W), and example ids, shape (B,) int64. An example's random draws depend on
        its id alone, so the result does not depend on batch size, order or number of processes beyond rounding.
    head
        The fitted linear head; its likelihood (categorical or Bernoulli) defines the Fisher information.
    label_sampling
        ``"sketch"`` (one backward pass whatever the number of classes, unbiased, lowest variance), ``"exact"``
        (C − 1 backward passes, no sampling) or ``"monte_carlo"`` (the paper's: labels drawn from the output).
    draws
        Independent draws per example for the two random samplings.
    seed
        Seed of the draws.
    halves
        Half (0 or 1) of every example, indexed by id; by default the parity of the id. Halves should hold the same
        mix of classes.
    fold_batch_norm
        Run a convolution and the BatchNorm that alone reads it as one convolution. The result refers to the original
        weights either way and agrees up to rounding; folding is faster.

    Returns
    -------
    FisherSums
        Sums and counts, zero if there were no images; ``.mean()`` is the embedding.

    Raises
    ------
    FisherError
        Unknown `label_sampling` or likelihood, no draws, or non-finite outputs or gradients.
    UnsupportedLayerError
        An activation needed for a gradient was overwritten in place, or the network cuts gradients off.
    """
    if label_sampling not in SAMPLINGS:
        raise FisherError(f"label_sampling={label_sampling!r} is unknown; choose one of {', '.join(SAMPLINGS)}")
    if draws < 1:
        raise FisherError(f"draws={draws}: give at least 1")
    if head.likelihood not in SEEDS:
        raise FisherError(f"likelihood {head.likelihood!r} is unknown; choose one of {', '.join(SEEDS)}")
    capture = _Capture(probe.module, probe.layers, fold_batch_norm)
    for images, ids in batches:
        ids = np.asarray(ids, dtype=np.int64)
        if len(ids) == 0:
            continue
        half = ids % 2 if halves is None else halves[ids]
        capture.half = torch.as_tensor(half, dtype=torch.int64, device=images.device)
        # Under the caller's autocast, half-precision squares would underflow.
        with torch.autocast(images.device.type, enabled=False):
            with capture, torch.enable_grad():
                features = probe.module(images.clone() if images.is_inference() else images)
            if not features.requires_grad:
                raise UnsupportedLayerError(
                    "no gradient leads from the features back to any covered layer; remove .detach() and "
                    "torch.no_grad() from the network's forward"
                )
            gradients = _feature_gradients(head, features.detach(), ids, label_sampling, seed, draws)
            for i, gradient in enumerate(gradients):
                torch.autograd.backward(features, gradient, retain_graph=i + 1 < len(gradients))
        capture.counts += np.bincount(half, minlength=2)
    sums = capture.result()
    if not np.isfinite(sums).all():
        worst = capture.first_non_finite(sums)
        raise FisherError(f"the gradients of layer {worst!r} are not finite; check that the probe's weights are sound")
    return FisherSums(probe.layers, sums, capture.counts)


def _feature_gradients(
    head: Head, features: Tensor, ids: np.ndarray, sampling: str, seed: int, draws: int
) -> list[Tensor]:
    """Gradients with respect to the features, one per logit seed: the head is linear, so they need no graph."""
    z = features.cpu().numpy().astype(np.float64)
    if not np.isfinite(z).all():
        raise FisherError("the probe's features are not finite; check its weights and the images' preprocessing")
    logits = head.logits(z)
    if not np.isfinite(logits).all():
        raise FisherError("the head's logits are not finite; fit it on finite features")
    seeds = logit_seeds(head.likelihood, logits, ids, sampling, seed=seed, draws=draws)
    gradients = torch.from_numpy(seeds @ head.weight)
    return list(gradients.to(device=features.device, dtype=features.dtype))


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
    folded: tuple[Tensor, Tensor] | None = None  # weight, bias
    scale_squared: Tensor | None = None
    norm: int | None = None  # id of the folded BatchNorm's running variance


class _Capture(CallInterceptor):
    """Intercepts filter calls: keeps their inputs, and squares per-example gradients in the backward pass."""

    def __init__(self, module: nn.Module, layers: tuple[FilterLayer, ...], fold: bool) -> None:
        super().__init__()
        owners = {name: weight for weight, name in weight_owners(module).items()}
        parameters = {id(p): p for p in module.parameters()}
        modules = dict(module.named_modules())
        self.plans: dict[int, _Plan] = {}
        for layer in layers:
            weight = parameters[owners[layer.name]]
            plan = _Plan(layer, torch.zeros(2, layer.n_filters, dtype=torch.float64, device=weight.device))
            if fold and layer.batch_norm is not None:
                _fold(plan, weight, modules[layer.name], modules[layer.batch_norm])
            self.plans[id(weight)] = plan
        self.counts = np.zeros(2, dtype=np.int64)
        self.half = torch.empty(0, dtype=torch.int64)
        self._unnormalised: dict[int, int] = {}  # id of a folded output -> id of the BatchNorm still to be skipped
        self._modules = module  # keeps the parameters, hence the ids, alive

    def filter_call(self, kind: str, func: Any, call: dict[str, Any]) -> Tensor:
        plan = self.plans.get(id(call["weight"]))
        if plan is None:
            return func(**call)
        x: Tensor = call["input"].detach()
        shape = call["weight"].shape
        if plan.folded is not None:
            call = {**call, "weight": plan.folded[0], "bias": plan.folded[1]}
        output: Tensor = func(**call)
        if not torch.is_grad_enabled():
            raise UnsupportedLayerError(
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
                raise UnsupportedLayerError(
                    f"the input of layer {plan.layer.name!r} was overwritten in place after use, so its gradient "
                    "would be wrong; make the operation after it out-of-place"
                )
            with torch.no_grad():
                inputs, gradients = (_by_example(t, len(self.half), plan.layer.name) for t in (x, g))
                squares = _squares(kind, inputs, gradients, shape, call)
                plan.sums.index_add_(0, self.half, squares.to(torch.float64))

        output.register_hook(accumulate)
        return output

    def batch_norm(self, func: Any, call: dict[str, Any]) -> Tensor:
        if self._unnormalised.pop(id(call["input"]), None) == id(call["running_var"]):
            return call["input"]
        if call["training"]:  # of a weight, which is how weight standardisation is computed
            return func(**call)
        # Written out, because torch 2.15's own backward is wrong on a CPU for one image and a transposed gradient.
        scale, shift = _affine(call["running_mean"], call["running_var"], call["weight"], call["bias"], call["eps"])
        shape = (1, -1, *[1] * (call["input"].dim() - 2))
        dtype = call["input"].dtype
        return torch.addcmul(shift.to(dtype).view(shape), call["input"], scale.to(dtype).view(shape))

    def result(self) -> np.ndarray:
        """Return the sums of all layers, shape (2, n_filters), referred to the original, unfolded weights."""
        parts = []
        for plan in self.plans.values():
            sums = plan.sums if plan.scale_squared is None else plan.sums * plan.scale_squared
            parts.append(sums.cpu().numpy())
        return np.concatenate(parts, axis=1)

    def first_non_finite(self, sums: np.ndarray) -> str:
        """Name the first layer with a non-finite sum."""
        position = int(np.flatnonzero(~np.isfinite(sums).all(axis=0))[0])
        ends = np.cumsum([plan.layer.n_filters for plan in self.plans.values()])
        return list(self.plans.values())[int(np.searchsorted(ends, position, side="right"))].layer.name


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
    plan.folded = (folded.to(weight.dtype).contiguous(memory_format=_layout(weight)), bias.to(weight.dtype))
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
        raise UnsupportedLayerError(f"layer {name!r} got {len(t)} inputs for a batch of {n} images")
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
