"""Feed a device without making the host wait for it."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host to `device`; through page-locked memory where else the host would wait."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def lay_out(module: nn.Module, device: torch.device) -> None:
    """Lay out convolution weights as `ImageBatches` does images, in place, where each call would do it anew."""
    if device.type == "cuda":
        for child in module.modules():
            if isinstance(child, nn.Conv2d):
                child.weight.data = child.weight.data.contiguous(memory_format=torch.channels_last)


def spare_bytes(device: torch.device) -> float:
    """Return how much memory images may take on a device: a quarter of what is free on a GPU; infinity elsewhere."""
    if device.type != "cuda":
        return float("inf")
    free = torch.cuda.mem_get_info(device)[0]
    return (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) / 4


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Compute in the precision of the tensors, whatever autocast is around."""
    if not torch.amp.is_autocast_available(device.type):  # such as "meta"
        return contextlib.nullcontext()
    autocast: contextlib.AbstractContextManager[None] = torch.autocast(device.type, enabled=False)
    return autocast
