"""Is loading the bottleneck? A whole embedding of 512 photographs against its network passes alone.

    python -m benchmarks.speed.end_to_end [--images 512] [--side 500] [--rounds 3] [--threads 2]

Pictures of a shared task are enlarged to 500 px, given some grain (else their files would be smaller than those of
photographs) and written as JPEG, one folder a class. In alternating rounds, with as many threads as the machine has
cores, within one process:

* ``passes``: the feature and Fisher passes over tensors that are preprocessed already,
* ``whole``: `Task.from_dataset` of a folder that no cache knows (finds the columns, draws, decodes every image once),
  then `embed_task`,
* ``embed_pixels``: `embed_task` alone, on such a task (it keeps decoded pixels up to a budget),
* ``embed_files``: `embed_task` alone, every image still to be decoded.

Ratios are to ``passes`` of the same round. On a machine that others use, read ``cpu_ratio``, of processor seconds, with
``--threads 1``: threads of torch that wait for each other burn processor time. Raw output: results/end_to_end.json.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common import TASKS, parser, read, write
from hf_task2vec import Probe, Task, diagonal_fisher, embed_task, fit_head
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.files import sha256_bytes
from hf_task2vec.fisher.head import stratified_folds
from hf_task2vec.probes.batches import ImageBatches, default_batch_size
from hf_task2vec.tasks.images import ImageSample, StoredImage

TARGET = 1.35
Cost = dict[str, float]


def photograph(image: Image.Image, side: int, rng: np.random.Generator, *, mirror: bool, grain: float = 6.0) -> bytes:
    """Return a JPEG of quality 90 of an enlarged picture, its longer side of `side` pixels.

    `grain` is the standard deviation of the noise added to 8-bit grey values.
    """
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    large = image.resize(size, Image.Resampling.BICUBIC)
    if mirror:
        large = large.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(large, dtype=np.float32)
    noisy = pixels + rng.normal(0.0, grain, pixels.shape[:2]).astype(np.float32)[..., None]
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_folder(task: Task, folder: Path, images: int, side: int) -> list[Path]:
    """Write `images` photographs, one subfolder a class; pictures come again, mirrored, where the task has too few."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(images):
        again, position = divmod(i, len(task))
        path = folder / f"class {task.labels[position]}" / f"{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(task.images[position], side, rng, mirror=again % 2 == 1))
        paths.append(path)
    return paths


def linked(paths: list[Path], source: Path, target: Path) -> Path:
    """Show the same files under another folder, which no cache of the `datasets` library knows."""
    for path in paths:
        link = target / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, link)
    return target


def undecoded(task: Task, paths: list[Path]) -> Task:
    """Return the task with files in place of pixels: every pass that asks for an image decodes it."""
    files = {sha256_bytes(data): data for data in (path.read_bytes() for path in paths)}
    images = ImageSample(StoredImage(files[sha256], sha256) for sha256 in task.images.sha256)
    return replace(task, draw=lambda: replace(task.sample, images=images))


def passes(probe: Probe, task: Task) -> Callable[[], None]:
    """Prepare the network's work in `embed_task`: features of all images, then the Fisher information."""
    size = default_batch_size(probe.device)
    batches = list(ImageBatches(task.images, probe.transform, batch_size=size, device=probe.device))
    z = np.concatenate([probe.features(images).cpu().numpy() for images, _ in batches]).astype(np.float64)
    head = fit_head(z, task.labels, task.num_classes)
    halves = stratified_folds(task.labels, 2, seed=0)

    def run() -> None:
        for images, _ in batches:
            probe.features(images)
        diagonal_fisher(probe, batches, head=head, halves=halves)

    return run


def whole(folder: Path, images: int, probe: Probe) -> None:
    """What a user waits for."""
    embed_task(Task.from_dataset(folder, max_samples=images), probe)


def timed(run: Callable[[], object]) -> Cost:
    """Seconds and processor seconds of one call."""
    start, cpu = time.perf_counter(), time.process_time()
    run()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


def summary(rounds: list[dict[str, Cost]]) -> dict[str, Cost]:
    """Medians and ratios to ``passes`` of the same round, in seconds and in processor seconds."""
    found = {}
    for name in rounds[0]:
        wall = np.array([one[name]["seconds"] / one["passes"]["seconds"] for one in rounds])
        cpu = np.array([one[name]["cpu_seconds"] / one["passes"]["cpu_seconds"] for one in rounds])
        found[name] = {
            "median_s": float(np.median([one[name]["seconds"] for one in rounds])),
            "ratio": float(np.median(wall)),
            "ratio_min": float(wall.min()),
            "ratio_max": float(wall.max()),
            "cpu_ratio": float(np.median(cpu)),
        }
    return found


def measure(home: Path, images: int, side: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Make the photographs in `home` and time everything; yield all that is known after each round."""
    probe = Probe.default()
    paths = write_folder(Task.from_dataset(TASKS / "imagenette", max_samples=None), home / "photos", images, side)
    task = Task.from_dataset(linked(paths, home / "photos", home / "first"), max_samples=images)
    runs: dict[str, Callable[[], object]] = {
        "passes": passes(probe, task),
        "embed_pixels": partial(embed_task, task, probe),
        "embed_files": partial(embed_task, undecoded(task, paths), probe),
    }
    found: list[dict[str, Cost]] = []
    loads = []
    for i in range(rounds):
        runs["whole"] = partial(whole, linked(paths, home / "photos", home / f"round{i}"), images, probe)
        loads.append(os.getloadavg()[0])
        found.append({name: timed(runs[name]) for name in (list(runs) if i % 2 == 0 else list(runs)[::-1])})
        yield {
            "images": len(task),
            "side_px": side,
            "mean_file_kib": float(np.mean([path.stat().st_size for path in paths]) / 1024),
            "cores": len(os.sched_getaffinity(0)),
            "torch_threads": torch.get_num_threads(),
            "target": TARGET,
            "summary": summary(found),
            "rounds": found,
            "load_average_before_rounds": loads,
            "versions": library_versions(),
        }


def main() -> None:
    """Run and write the raw output."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=512)
    arguments.add_argument("--side", type=int, default=500)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch")
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as home:
        import datasets

        datasets.config.HF_DATASETS_CACHE = Path(home) / "datasets"
        datasets.disable_progress_bars()
        for result in measure(Path(home), args.images, args.side, args.rounds):
            write("end_to_end", read("end_to_end") | {f"torch_threads_{args.threads}": result})
            print(json.dumps(result["rounds"][-1]), flush=True)
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
