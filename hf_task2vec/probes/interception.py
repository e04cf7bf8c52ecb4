"""Watch a network's convolution, linear and normalisation calls, whoever makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
