"""What a sweep will cost, before it starts: from cells measured earlier, and from the checkpoints' multiply-adds."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from hf_task2vec.cells import Cell, CellStore

#: Taken for a task of which nothing is known when all images are to be measured.
ASSUMED_IMAGES = 2000
#: Multiply-adds of a checkpoint of which nothing is known, 10^9: a ResNet-50's.
ASSUMED_GMACS = 4.1
_TIMED_IMAGES = 8
_TIMED_PASSES = 3
_PROBE_GMACS = 0.4  # of the default probe, 10^9


@dataclass(frozen=True)
class Estimate:
    """What is left of a sweep.

    Attributes
    ----------
    cells, done, failed
        All cells, those measured already, and those that failed before or are known to fail (no such checkpoint).
    images
        Passes of an image through a checkpoint that are left, at most.
    hours
        Time left, with `workers` cells at a time.
    workers
        Cells that are worked on at the same time.
    download_gb
        Weights of the checkpoints left, 10^9 bytes in float32; those of unknown size are not counted.
    n_timed, n_known, n_assumed
        Checkpoints left whose time is known from earlier cells, follows from their multiply-adds, or is that of a
        ResNet-50.
    """

    cells: int
    done: int
    failed: int
    images: int
    hours: float
    workers: int
    download_gb: float
    n_timed: int
    n_known: int
    n_assumed: int

    @property
    def left(self) -> int:
        """Cells left."""
        return self.cells - self.done - self.failed

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"left": self.left, **asdict(self)}

    def __str__(self) -> str:
        if not self.left:
            return f"{self.cells} cells: {self.done} are measured, {self.failed} failed; nothing is left to do"
        text = f"{self.cells} cells: {self.done} are measured, {self.failed} failed, {self.left} are left. "
        text += f"At most {self.images:,} image passes, about {_duration(self.hours)}"
        text += f" with {self.workers} cells at a time" if self.workers > 1 else ""
        basis = [(self.n_timed, "timed before"), (self.n_known, "by multiply-adds"), (self.n_assumed, "assumed")]
        text += f" (checkpoints: {', '.join(f'{n} {how}' for n, how in basis if n)})"
        return text + (f"; up to {self.download_gb:.1f} GB of weights" if self.download_gb else "")


def _duration(hours: float) -> str:
    return f"{hours * 3600:.0f} s" if hours < 1 / 30 else f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"


def estimate(
    cells: Sequence[Cell],
    store: CellStore,
    *,
    pending: Sequence[Cell],
    facts: Mapping[str, Mapping[str, Any]],
    task_sizes: Mapping[str, int],
    seconds_per_gmac: Callable[[], float],
    workers: int = 1,
) -> Estimate:
    """Estimate what is left of a sweep.

    Parameters
    ----------
    cells, pending
        All cells, and those left that are not known to fail.
    store
        Where finished cells lie.
    facts
        ``gmacs`` and ``params_m`` by checkpoint.
    task_sizes
        Images of a task, by its name.
    seconds_per_gmac
        Called if a checkpoint was not timed before: time of 10^9 multiply-adds here.
    workers
        Cells that are worked on at the same time.
    """
    left = {cell.key for cell in pending}
    documents = [d for cell in cells if cell.key not in left and (d := store.document(cell)) is not None]
    done = [document for document in documents if document["status"] == "done"]
    timed, overhead, sizes = _timings(done)
    names = sorted({cell.checkpoint.name for cell in pending})
    untimed = [name for name in names if name not in timed]
    known = [name for name in untimed if facts.get(name, {}).get("gmacs")]
    rate = seconds_per_gmac() if untimed else 0.0
    per_image = timed | {name: rate * (facts.get(name, {}).get("gmacs") or ASSUMED_GMACS) for name in untimed}
    images = {
        cell.key: 0 if store.features_path(cell).exists() else _passes(cell, {**task_sizes, **sizes})
        for cell in pending
    }
    seconds = sum(images[cell.key] * per_image[cell.checkpoint.name] + overhead for cell in pending)
    return Estimate(
        cells=len(cells),
        done=len(done),
        failed=len(cells) - len(pending) - len(done),
        images=sum(images.values()),
        hours=seconds / workers / 3600,
        workers=workers,
        download_gb=sum(4e-3 * (facts.get(name, {}).get("params_m") or 0.0) for name in untimed),
        n_timed=len(names) - len(untimed),
        n_known=len(known),
        n_assumed=len(untimed) - len(known),
    )


def _timings(done: Iterable[Mapping[str, Any]]) -> tuple[dict[str, float], float, dict[str, int]]:
    """Seconds an image by checkpoint, seconds a cell for the rest, and images by task, of cells measured earlier."""
    per_image: defaultdict[str, list[float]] = defaultdict(list)
    rest: list[float] = []
    sizes: dict[str, int] = {}
    for document in done:
        if document["kind"] != "measure":
            continue
        seconds, n = document["seconds"], document["sample"]["n"]
        sizes[document["task"]] = n
        if "extract" in seconds:
            per_image[document["checkpoint"]].append(seconds["extract"] / n)
        rest.append(sum(value for name, value in seconds.items() if name != "extract"))
    return {name: median(times) for name, times in per_image.items()}, fmean(rest) if rest else 1.0, sizes


def _passes(cell: Cell, task_sizes: Mapping[str, int]) -> int:
    """Passes of an image; the backward pass of an embedding costs about as much as two forward ones."""
    splits, passes = (1, 3) if cell.kind == "embed" else (2, 1)
    most = cell.config["max_samples"]
    limit = math.inf if most is None else splits * most
    return passes * int(min(limit, task_sizes.get(cell.task.name, ASSUMED_IMAGES if most is None else limit)))


def time_one_gmac(device: str) -> float:
    """Measure the seconds that 10^9 multiply-adds take on `device`, with the default probe and a few blank images."""
    import torch

    from hf_task2vec.batches import default_batch_size
    from hf_task2vec.probe import Probe

    probe = Probe.default().to(device)
    batch = torch.zeros(min(_TIMED_IMAGES, default_batch_size(probe.device)), *probe.input_size)
    probe.features(batch)  # the first pass allocates and chooses kernels
    times = []
    for _ in range(_TIMED_PASSES):
        start = time.perf_counter()
        probe.features(batch).cpu()
        times.append(time.perf_counter() - start)
    return min(times) / len(batch) / _PROBE_GMACS
