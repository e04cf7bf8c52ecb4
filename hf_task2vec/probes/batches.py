"""Batches of preprocessed images, made in parallel while the network computes, and the devices that they go to."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hf_task2vec.errors import ProbeError

if TYPE_CHECKING:
    from PIL import Image


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


# Preprocessed images are kept for the next pass up to this size; beyond it they are preprocessed again.
_KEEP_BYTES = 1 << 30
# Threads that preprocess. On a CPU the network needs the processors as well.
_WORKERS = {"cpu": 8}
_DEVICE_WORKERS = 16


def default_batch_size(device: torch.device) -> int:
    """Return a batch size that suits a device.

    On a CPU a batch of four keeps a layer's output below glibc's limit of 32 MiB, beyond which memory goes back to the
    system after each use and is faulted in anew: larger batches are slower there, and need more memory.
    """
    return 4 if device.type == "cpu" else 64


class ImageBatches:
    """Preprocessed batches of images, decoded and resized in parallel, in order; iterate over them once a pass.

    Parameters
    ----------
    images
        N RGB images.
    transform
        Maps an RGB image to a float32 tensor, shape (3, H, W).
    batch_size
        Images in a batch.
    device
        Where batches go.
    keep
        Keep the first batches on the device for later passes, as many as fit in 1 GiB and, on a GPU, in a quarter of
        its free memory. What is yielded may be changed in place all the same.
    """

    def __init__(
        self,
        images: Sequence[Image.Image],
        transform: Callable[[Image.Image], Tensor],
        *,
        batch_size: int,
        device: torch.device,
        keep: bool = False,
    ) -> None:
        self._images, self._transform, self._batch_size, self._device = images, transform, batch_size, device
        self._kept: list[Tensor] = []
        self._room = min(_KEEP_BYTES, spare_bytes(device)) if keep else 0

    def __iter__(self) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        """Yield batches, shape (B, 3, H, W), with the positions of their images, shape (B,)."""
        n, size = len(self._images), self._batch_size
        starts = range(0, n, size)
        workers = max(2, min(_WORKERS.get(self._device.type, _DEVICE_WORKERS), os.cpu_count() or 2))
        # Two batches ahead keep the workers busy without holding the whole sample; small ones need more.
        depth = 1 + max(2, 2 * workers // size)
        with ThreadPoolExecutor(workers, thread_name_prefix="hf_task2vec-images") as pool:
            ahead: collections.deque[Future[Tensor]] = collections.deque()
            to_make = iter(starts[len(self._kept) :])
            for i, start in enumerate(starts):
                while len(ahead) < depth and (first := next(to_make, None)) is not None:
                    images = [pool.submit(self._load, j) for j in range(first, min(first + size, n))]
                    # Workers take tasks in order, so the images that this one waits for are made or being made.
                    ahead.append(pool.submit(_stack, images, self._device))
                batch = self._kept[i].clone() if i < len(self._kept) else self._send(ahead.popleft().result(), i)
                yield batch, np.arange(start, min(start + size, n), dtype=np.int64)

    def _load(self, i: int) -> Tensor:
        return self._transform(self._images[i])

    def _send(self, batch: Tensor, i: int) -> Tensor:
        """Send batch `i` to the device, and keep it while there is room."""
        batch = batch.to(self._device, non_blocking=True)
        if batch.nbytes > self._room or i != len(self._kept):
            return batch
        self._kept.append(batch)
        self._room -= batch.nbytes
        return batch.clone()


def _stack(images: list[Future[Tensor]], device: torch.device) -> Tensor:
    """Make a float32 batch in the memory that `device` reads fastest."""
    batch = torch.stack([image.result() for image in images]).float()
    # Convolutions are up to twice as fast in this layout, and pass it on; to the rest it makes no difference.
    batch = batch.contiguous(memory_format=torch.channels_last)
    return batch.pin_memory() if device.type == "cuda" else batch
