"""Batches of preprocessed images, made in parallel while the network computes."""

from __future__ import annotations

import collections
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_task2vec.devices import spare_bytes

if TYPE_CHECKING:
    from PIL import Image

# Preprocessed images are kept for the second pass up to this size; beyond it they are preprocessed again.
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
    """Preprocessed batches of images, decoded and resized in parallel, in order.

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
        Keep the batches on the device for later passes, while they fit in 1 GiB and, on a GPU, in a quarter of its free
        memory. What is yielded may be changed in place all the same.
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
        self._kept: dict[int, Tensor] = {}  # whole batches, by the position of their first image
        self._room = min(_KEEP_BYTES, spare_bytes(device)) if keep else 0

    def __len__(self) -> int:
        return math.ceil(len(self._images) / self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        return self.between(0, len(self._images))

    def between(self, first: int, last: int) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        """Yield the batches of images `first` to `last` - 1 with their positions, shape (B,).

        Batches end at multiples of the batch size wherever one starts, so an image's company does not depend on it
        more than it must: sums in another order differ by rounding.
        """
        workers = max(2, min(_WORKERS.get(self._device.type, _DEVICE_WORKERS), os.cpu_count() or 2))
        # Two batches ahead keep the workers busy without holding the whole sample; small ones need more.
        depth = 1 + max(2, 2 * workers // self._batch_size)
        inner = range(first - first % self._batch_size + self._batch_size, last, self._batch_size)
        spans = list(itertools.pairwise([first, *inner, last] if first < last else []))
        with ThreadPoolExecutor(workers, thread_name_prefix="hf_task2vec-images") as pool:
            ahead: collections.deque[Future[Tensor] | None] = collections.deque()
            for i, (start, end) in enumerate(spans):
                while len(ahead) < depth and i + len(ahead) < len(spans):
                    ahead.append(self._submit(pool, *spans[i + len(ahead)]))
                coming = ahead.popleft()
                images = self._again(start, end) if coming is None else self._keep(coming.result(), start)
                yield images, np.arange(start, end, dtype=np.int64)

    def _submit(self, pool: ThreadPoolExecutor, start: int, end: int) -> Future[Tensor] | None:
        """Start to make a batch, unless it is kept."""
        if self._start_of_batch(start) in self._kept:
            return None
        images = [pool.submit(self._load, i) for i in range(start, end)]
        # Workers take tasks in order, so the images that this one waits for are made or being made by others.
        return pool.submit(_stack, images, self._device)

    def _load(self, i: int) -> Tensor:
        return self._transform(self._images[i])

    def _start_of_batch(self, i: int) -> int:
        return i - i % self._batch_size

    def _again(self, start: int, end: int) -> Tensor:
        """Copy a part of a batch that was kept."""
        whole = self._start_of_batch(start)
        return self._kept[whole][start - whole : end - whole].clone()

    def _keep(self, batch: Tensor, start: int) -> Tensor:
        """Send a batch to the device, and keep a whole one while there is room."""
        whole = min(self._batch_size, len(self._images) - start)
        sent = batch.to(self._device, non_blocking=True)
        if start % self._batch_size or len(batch) < whole or sent.nbytes > self._room:
            return sent
        self._kept[start] = sent
        self._room -= sent.nbytes
        return sent.clone()


def _stack(images: list[Future[Tensor]], device: torch.device) -> Tensor:
    """Make a float32 batch in the memory that `device` reads fastest."""
    batch = torch.stack([future.result() for future in images]).float()
    # Convolutions are up to twice as fast in this layout, and pass it on; to the rest it makes no difference.
    batch = batch.contiguous(memory_format=torch.channels_last)
    return batch.pin_memory() if device.type == "cuda" else batch
