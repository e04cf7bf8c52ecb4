"""What every feature extractor must satisfy, whichever library it comes from: frozen, pooled, finite, repeatable."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_task2vec.errors import ProbeError

if TYPE_CHECKING:
    from PIL.Image import Image

Transform = Callable[["Image"], Tensor]
"""A PIL image to a ``(3, H, W)`` float32 tensor."""


@dataclass(frozen=True)
class Extractor:
    """A network and its preprocessing, as a library adapter builds them.

    Attributes
    ----------
    module
        Network from ``(B, 3, H, W)`` to ``(B, d)`` features, or to logits when it was built with a classifier.
    transform
        The checkpoint's own evaluation preprocessing.
    input_size
        ``(3, H, W)`` of what `transform` returns.
    preprocessing
        JSON-able description of `transform`.
    """

    module: nn.Module
    transform: Transform
    input_size: tuple[int, int, int]
    preprocessing: dict[str, Any]


def freeze(module: nn.Module) -> nn.Module:
    """Put `module` in float32 and evaluation mode, without gradients, in place; return it."""
    module = module.float().eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.grad = None
    return module


def device_of(module: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer of `module` (the CPU if it has none)."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


@torch.no_grad()
def checked_feature_dim(module: nn.Module, input_size: tuple[int, int, int], what: str) -> int:
    """Return the feature dimension of a frozen `module`, measured by a forward pass of one blank image.

    The attribute a library offers for it is not used: timm's ``num_features`` of a MobileNetV3 is 576 where its
    pooled features have 1,024 entries.

    Parameters
    ----------
    module
        Frozen feature extractor.
    input_size
        ``(3, H, W)``.
    what
        How messages call the module.

    Raises
    ------
    ProbeError
        If the module does not accept such images, or its output is not one finite floating-point vector an image, or
        is another one the second time (as of networks that mask patches at random).
    """
    blank = torch.zeros(1, *input_size, device=device_of(module))
    try:
        first, second = module(blank), module(blank)
    # A foreign forward may raise anything; whatever it is, this module cannot serve as an extractor.
    except Exception as error:
        raise ProbeError(
            f"{what} failed on a batch of shape {tuple(blank.shape)}: {type(error).__name__}: {error}. "
            "It must map float32 images (B, 3, H, W) to features (B, d); check input_size."
        ) from error
    if not isinstance(first, Tensor):
        raise ProbeError(f"{what} returns {type(first).__name__}; it must return one tensor of features (B, d).")
    shape = tuple(first.shape)
    if first.ndim in (3, 4):
        kind = "a feature map" if first.ndim == 4 else "one vector a token"
        raise ProbeError(
            f"{what} returns {kind} of shape {shape}; pool it to (B, d) first, for example with "
            "torch.nn.Sequential(module, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()) for a map (B, d, H, W)."
        )
    if first.ndim != 2 or shape[0] != 1 or shape[1] < 1:
        raise ProbeError(f"{what} returns shape {shape} for one image; features must have shape (1, d).")
    if not first.is_floating_point() or not bool(torch.isfinite(first).all()):
        raise ProbeError(f"{what} returns features that are not finite floating-point numbers ({first.dtype}).")
    if not torch.equal(first, second):
        raise ProbeError(
            f"{what} returns other features each time for the same image, in evaluation mode (random masking or "
            "dropout in its forward?); features must be a function of the image."
        )
    return shape[1]


def weights_hash(module: nn.Module) -> str:
    """Return the hexadecimal SHA-256 of the state dict of `module`: names, dtypes, shapes and bytes, sorted by name.

    BatchNorm's ``num_batches_tracked`` is left out: nothing reads it in evaluation mode, and copies of one checkpoint
    differ in it. The hash does not depend on the device or the memory format.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor) or name.endswith("num_batches_tracked"):
            continue
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}\n".encode())
        # flatten() is contiguous in logical order; the byte view also serves dtypes that NumPy lacks (bfloat16).
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
