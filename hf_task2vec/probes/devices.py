"""Devices: find one, feed it without making the host wait for it."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from hf_task2vec.errors import ProbeError


def default_device() -> str:
    """Return the torch device to compute on where none was asked for: a GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device by name, or raise ProbeError if this machine cannot compute on it."""
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    # An unknown name is a RuntimeError; a backend this torch was built without may be an AssertionError.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ProbeError(f"Device {str(device)!r} cannot be used here: {reason}; 'cpu' always works.") from error
    return target


def device_of(module: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer of `module` (the CPU if it has none)."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


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
