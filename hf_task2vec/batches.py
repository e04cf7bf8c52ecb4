"""Batches of preprocessed images, made in parallel while the network computes."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

# Preprocessed images are kept for the second pass up to this size; beyond it they are preprocessed again.
_KEEP_BYTES = 1 << 30


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
        Keep the preprocessed images for later passes, while they fit in 1 GiB.
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
        self._kept: dict[int, Tensor] = {}  # by position
        self._room = _KEEP_BYTES if keep else 0

    def __len__(self) -> int:
        return math.ceil(len(self._images) / self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        return self.between(0, len(self._images))

    def between(self, first: int, last: int) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        """Yield the batches of images `first` to `last` - 1 with their positions, shape (B,).

        Batches end at multiples of the batch size wherever one starts, so an image's company does not depend on it
        more than it must: sums in another order differ by rounding.
        """
        workers = max(2, min(8, os.cpu_count() or 2))
        with ThreadPoolExecutor(workers, thread_name_prefix="hf_task2vec-images") as pool:
            ahead: list[Any] = []
            inner = range(first - first % self._batch_size + self._batch_size, last, self._batch_size)
            edges = [first, *inner, last] if first < last else []
            spans = list(itertools.pairwise(edges))
            for i, (start, end) in enumerate(spans):
                # Two batches ahead keep the processors busy without holding the whole sample.
                ahead.extend(
                    [pool.submit(self._load, j) for j in range(*span)] for span in spans[i + len(ahead) : i + 3]
                )
                images = self._collect(ahead.pop(0))
                yield images.to(self._device, non_blocking=True), np.arange(start, end, dtype=np.int64)

    def _load(self, i: int) -> Tensor:
        if (kept := self._kept.get(i)) is not None:
            return kept
        image = self._transform(self._images[i])
        if image.nbytes <= self._room:
            self._kept[i] = image
            self._room -= image.nbytes
        return image

    def _collect(self, futures: list[Any]) -> Tensor:
        # Convolutions are up to twice as fast in this layout, and pass it on; to the rest it makes no difference.
        batch = torch.stack([future.result() for future in futures]).float()
        return batch.contiguous(memory_format=torch.channels_last)
