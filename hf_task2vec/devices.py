"""Feed a device without making the host wait for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

#: Reduced precisions that a network may compute in. Not fp16: a third of the squared gradients fall below its minimum.
AUTOCASTS: dict[str, torch.dtype] = {"bf16": torch.bfloat16}
# Results that wait on a device before they are copied to the host.
_COLLECT_BYTES = 64 << 20


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


def rows_on_host(parts: Iterable[Tensor]) -> NDArray[np.float32]:
    """Concatenate parts of a table, shapes (B, d), in host memory, copying many at a time from a device.

    A copy waits until the device has computed it, and the device then waits for what the host has not launched yet.
    """
    tables: list[NDArray[np.float32]] = []
    waiting: list[Tensor] = []

    def fetch() -> None:
        tables.append(torch.cat(waiting).cpu().numpy())
        waiting.clear()

    for part in parts:
        waiting.append(part)
        if sum(t.nbytes for t in waiting) >= _COLLECT_BYTES:
            fetch()
    if waiting:
        fetch()
    return np.concatenate(tables) if tables else np.empty((0, 0), np.float32)


def spare_bytes(device: torch.device) -> float:
    """Return how much memory images may take on a device: a quarter of what is free on a GPU; infinity elsewhere."""
    if device.type != "cuda":
        return float("inf")
    free = torch.cuda.mem_get_info(device)[0]
    return (free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) / 4


def computing_in(precision: str | None, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Compute in the precision of that name in `AUTOCASTS`, or for None in that of the tensors, whatever is around."""
    if precision is None and not torch.amp.is_autocast_available(device.type):  # such as "meta"
        return contextlib.nullcontext()
    dtype = AUTOCASTS[precision] if precision is not None else None
    autocast: contextlib.AbstractContextManager[None] = torch.autocast(
        device.type, dtype=dtype, enabled=precision is not None
    )
    return autocast
