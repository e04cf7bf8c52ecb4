"""Which weights of a network are filters that the Fisher information can cover, and how the network uses them.

Coverage goes by weight *tensor*, not by module: a `TorchFunctionMode` sees every convolution and linear call, whoever
makes it. So `F.linear` calls that bypass a module are covered like any layer, padding done inside a ``forward`` is
already part of the input, and a weight that is computed on the fly (weight standardisation, weight normalisation),
read by a fused operation (`nn.MultiheadAttention`), used twice, quantised or never used is found out and listed.
So is one whose input is not laid out by example: two batches that share their first image tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hf_task2vec.errors import ProbeError

#: Calls whose second argument is a weight with one row per filter.
FILTER_CALLS: dict[Callable[..., Any], str] = {
    F.linear: "linear",
    torch.conv1d: "conv1d",
    torch.conv2d: "conv2d",
    torch.conv3d: "conv3d",
}
_ARGUMENTS = {
    "linear": ("input", "weight", "bias"),
    "conv": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
}
_DEFAULTS: dict[str, Any] = {
    "bias": None,
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
    "training": False,
    "eps": 1e-5,
}


def bind(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Name the arguments of a ``linear``, ``conv`` or ``batch_norm`` call, with torch's defaults filled in."""
    names = _ARGUMENTS["conv" if kind.startswith("conv") else kind]
    bound = dict(zip(names, args, strict=False)) | kwargs
    return {name: bound.get(name, _DEFAULTS.get(name)) for name in names}


class CallInterceptor(TorchFunctionMode):
    """Base of the modes that watch filter calls: subclasses override :meth:`filter_call` and :meth:`batch_norm`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = FILTER_CALLS.get(func)
        if kind is not None:
            return self.filter_call(kind, func, bind(kind, args, kwargs))
        if func is F.batch_norm:
            return self.batch_norm(func, bind("batch_norm", args, kwargs))
        return self.other_call(func, args, kwargs)

    def filter_call(self, kind: str, func: Any, call: dict[str, Any]) -> Tensor:
        """Handle a convolution or linear call."""
        return func(**call)

    def batch_norm(self, func: Any, call: dict[str, Any]) -> Tensor:
        """Handle a batch normalisation."""
        return func(**call)

    def other_call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Handle any other torch function."""
        return func(*args, **kwargs)


def weight_owners(module: nn.Module) -> dict[int, str]:
    """Map the id of every parameter with at least two dimensions to its owner's dotted name.

    A module's own ``weight`` is named after the module; any other parameter keeps its full name
    (``"attn.in_proj_weight"``).
    """
    owners = {}
    for name, parameter in module.named_parameters():
        if parameter.dim() >= 2:
            owners[id(parameter)] = name.removesuffix(".weight")
    return owners


@dataclass(frozen=True)
class FilterLayer:
    """One weight tensor whose rows are filters."""

    name: str
    """Dotted name of the parameter's owner in the extractor, such as ``"blocks.0.conv_dw"``."""
    kind: str
    """``"linear"``, ``"conv1d"``, ``"conv2d"`` or ``"conv3d"``."""
    n_filters: int
    """Output channels (convolution) or output rows (linear)."""
    weights_per_filter: int
    """Weights in one filter: the mean of the Fisher information runs over these."""
    batch_norm: str | None = None
    """Name of the BatchNorm that alone reads this layer's output, or None. It can be folded into the weight."""


@dataclass(frozen=True)
class Uncovered:
    """Parameters for which no Fisher information is estimated, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class LayerTrace:
    """What :func:`trace_layers` found: the covered layers in call order, and the rest."""

    layers: tuple[FilterLayer, ...]
    uncovered: tuple[Uncovered, ...]


# Reading a tensor's shape is no use of its values.
_METADATA = {
    torch.Tensor.size,
    torch.Tensor.dim,
    torch.Tensor.numel,
    torch.Tensor.is_floating_point,
    torch.Tensor.stride,
    *(getattr(torch.Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda")),
}


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


_NOT_A_FILTER = "not a filter (normalisation, bias, token, scale or position parameter)"
# Entries of a layer's input that are compared between two runs, and the relative difference that rounding may make
# (TensorFloat-32 kernels chosen by batch size); another image makes a far larger one.
_COMPARED = 4096
_ROUNDING = 1e-2


class _Tracer(CallInterceptor):
    """Records filter calls of one forward pass, and which outputs feed a batch normalisation and nothing else."""

    def __init__(self, module: nn.Module, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.owners = weight_owners(module)
        self.norms = {
            id(b): n.removesuffix(".running_var") for n, b in module.named_buffers() if n.endswith("running_var")
        }
        self.calls: list[tuple[int, str]] = []  # (weight id, kind) in call order
        self.first_rows: dict[int, tuple[float, Tensor]] = {}  # weight id -> rows per example; input of the first one
        self.outputs: dict[int, int] = {}  # id of an output -> weight id
        self.uses: dict[int, int] = {}  # weight id -> number of uses of its output
        self.other_reads: set[int] = set()  # weights that something else than a filter call reads
        self.norm_of: dict[int, str] = {}
        self.train_mode_norm = False
        # Tensors computed from the weights alone: the same whatever the images.
        self.constants = {id(t) for t in (*module.parameters(), *module.buffers())}
        self._alive: list[Tensor] = []  # ids stay unique only while the tensors live

    def count_uses(self, values: Any) -> None:
        """Count a use of each covered layer's output among `values`."""
        for value in _tensors(values):
            if (weight := self.outputs.get(id(value))) is not None:
                self.uses[weight] = self.uses.get(weight, 0) + 1

    def _follow_constants(self, values: Any, result: Any) -> None:
        arguments = [id(value) for value in _tensors(values)]
        results = [value for value in _tensors(result) if id(value) not in arguments]
        if results:  # else metadata was read
            self.other_reads.update(self.owners.keys() & set(arguments))
        if arguments and self.constants.issuperset(arguments):
            self.constants.update(map(id, results))
            self._alive += results

    def filter_call(self, kind: str, func: Any, call: dict[str, Any]) -> Tensor:
        self.count_uses(call)
        output: Tensor = func(**call)
        weight = id(call["weight"])
        if weight in self.owners:
            self.calls.append((weight, kind))
            self.outputs[id(output)] = weight
            self._alive.append(output)
            self.other_reads.update(self.owners.keys() & {id(call["input"])})
            rows = call["input"].shape[0]
            first = call["input"][: rows // self.batch_size].flatten()
            step = first.numel() // _COMPARED | 1  # odd, so as not to keep step with the rows
            self.first_rows[weight] = rows / self.batch_size, first[::step].double()
        else:
            self._follow_constants(call, output)
        return output

    def batch_norm(self, func: Any, call: dict[str, Any]) -> Tensor:
        self.count_uses(call)
        # Weight standardisation normalises a weight, not the examples: that is harmless.
        self.train_mode_norm |= bool(call["training"]) and id(call["input"]) not in self.constants
        weight = self.outputs.get(id(call["input"]))
        norm = self.norms.get(id(call["running_var"]))
        if weight is not None and norm is not None:
            self.norm_of[weight] = norm
        output: Tensor = func(**call)
        self._follow_constants(call, output)
        return output

    def other_call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func not in _METADATA:
            self.count_uses((args, kwargs))
        result = func(*args, **kwargs)
        self._follow_constants((args, kwargs), result)
        if isinstance(result, Tensor) and id(result) in self.outputs and result is not (args[0] if args else None):
            # An alias made without copying would escape the count of uses.
            self.uses[self.outputs[id(result)]] = 2
        return result


def trace_layers(module: nn.Module, example: Tensor) -> LayerTrace:
    """Run `module` on two small batches and list the filters that the Fisher information covers.

    `module` is in eval mode; `example`, shape (B, 3, H, W), tells shape, type and device of the batches, which hold
    noise. Refused are networks that normalise with batch statistics (they mix examples, so per-example gradients do not
    exist), and those without any covered layer.
    """
    noise = torch.randn(4, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    noise[1:] *= torch.tensor([0.5, 2.0, 1.0]).view(-1, *[1] * (noise.dim() - 1))  # images clearly unlike each other
    noise = noise.to(example.device, example.dtype)
    tracer, other = _run(module, noise[[0, 1]]), _run(module, noise[[0, 2, 3]])
    times: dict[int, int] = {}
    for weight, _ in tracer.calls:
        times[weight] = times.get(weight, 0) + 1
    reasons = {weight: _reason(weight, times.get(weight, 0), tracer, other) for weight in tracer.owners}
    parameters = {id(p): p for p in module.parameters()}
    modules = dict(module.named_modules())
    layers = []
    for weight, kind in tracer.calls:
        if reasons[weight] is None:
            shape = parameters[weight].shape
            name = tracer.owners[weight]
            foldable = kind != "linear" and name in modules and tracer.uses.get(weight, 0) == 1
            norm = tracer.norm_of.get(weight) if foldable else None
            layers.append(FilterLayer(name, kind, shape[0], shape[1:].numel(), norm))
    if not layers:
        found = ", ".join(sorted({type(m).__name__ for m in module.modules() if not list(m.children())})[:8])
        raise ProbeError(
            "no convolution or linear layer of the network is used in a way the Fisher information can cover "
            f"(layers found: {found}); wrap a float32 network with nn.Conv*d or nn.Linear layers"
        )
    return LayerTrace(tuple(layers), tuple(_uncovered(module, reasons)))


def _run(module: nn.Module, batch: Tensor) -> _Tracer:
    tracer = _Tracer(module, len(batch))
    with torch.no_grad(), tracer:
        tracer.count_uses(module(batch))
    if tracer.train_mode_norm:
        raise ProbeError(
            "the network normalises with batch statistics, which mix the examples; call .eval() on it first "
            "(and give each BatchNorm track_running_stats=True)"
        )
    return tracer


def _reason(weight: int, times: int, tracer: _Tracer, other: _Tracer) -> str | None:
    """Why a weight of two or more dimensions is not covered, or None if it is."""
    if times > 1:
        return f"used {times} times in one forward pass: its per-example gradients would have to be summed first"
    if times == 0:
        return "not read directly by a convolution or linear call (re-parametrised, fused or unsupported operation)"
    if weight in tracer.other_reads:
        return "also used outside its convolution or linear call: its per-example gradients would have to be summed"
    (rows, first), (other_rows, other_first) = tracer.first_rows[weight], other.first_rows.get(weight, (0.0, None))
    if other_first is None or rows != other_rows or rows % 1:
        return "the first dimension of its input does not run over the images"
    first, other_first = first.nan_to_num(), other_first.nan_to_num()
    if float((first - other_first).norm()) > _ROUNDING * float(first.norm()):
        return "its input is not laid out by image, or mixes the images of a batch"
    return None


def _uncovered(module: nn.Module, reasons: dict[int, str | None]) -> list[Uncovered]:
    rest = []
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in module.named_parameters():
        reason = reasons.get(id(parameter), _NOT_A_FILTER)
        if reason is None:
            continue
        if reason.startswith("not read") and ("weight" not in name or id(parameter) in embeddings):
            reason = _NOT_A_FILTER
        rest.append(Uncovered(name, reason))
    for name, child in module.named_modules():
        if ".quantized" in type(child).__module__ and not list(child.parameters(recurse=False)):
            rest.append(Uncovered(name, f"quantised module {type(child).__name__}: its weights have no gradient"))
    return rest
