"""Is loading the bottleneck? A whole embedding of 512 photographs against its network passes alone.

    python benchmarks/end_to_end.py [--images 512] [--side 500] [--rounds 3] [--threads 2]

Pictures of a shared task are enlarged to 500 px, given some grain (else their files would be smaller than those of
photographs) and written as JPEG, one folder a class. In alternating rounds, with as many threads as the machine has
cores, within one process:

* ``passes``: the feature and Fisher passes over tensors that are preprocessed already,
* ``draw``: `Task.from_dataset` of a folder that no cache knows (finds the columns, draws, decodes every image once),
* ``whole``: the same, then `embed_task`,
* ``embed_pixels``: `embed_task` alone, on that task (it keeps decoded pixels up to a budget),
* ``embed_files``: `embed_task` alone, every image still to be decoded.

Ratios are to ``passes`` of the same round. On a machine that others use, read ``cpu_ratio``, of processor seconds, with
``--threads 1``: threads of torch that wait for each other burn processor time. Raw output: results/end_to_end.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hf_task2vec.embedding.embed import embed_task, library_versions
from hf_task2vec.files import sha256_bytes, write_json
from hf_task2vec.fisher.diagonal import diagonal_fisher
from hf_task2vec.fisher.head import Head, fit_head, stratified_folds
from hf_task2vec.probes.batches import ImageBatches, default_batch_size
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.images import ImageSample, StoredImage
from hf_task2vec.tasks.task import Task

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT.parent / "shared" / "tasks"
TARGET = 1.35


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


@dataclass
class Passes:
    """The network's work in `embed_task`, on tensors at hand."""

    probe: Probe
    batches: list[tuple[Tensor, NDArray[np.int64]]]
    head: Head
    halves: NDArray[np.int64]

    @classmethod
    def of(cls, probe: Probe, task: Task) -> Passes:
        """Preprocess the images and fit the head."""
        size = default_batch_size(probe.device)
        batches = list(ImageBatches(task.images, probe.transform, batch_size=size, device=probe.device))
        z = np.concatenate([probe.features(images).cpu().numpy() for images, _ in batches]).astype(np.float64)
        return cls(probe, batches, fit_head(z, task.labels, task.num_classes), stratified_folds(task.labels, 2, seed=0))

    def run(self) -> None:
        """Features of all images, then the Fisher information."""
        for images, _ in self.batches:
            self.probe.features(images)
        diagonal_fisher(self.probe, self.batches, head=self.head, halves=self.halves)


def forward_passes(probe: Probe, run: Callable[[], object], images: int) -> float:
    """Return how many times each image went through the network during `run`."""
    seen = 0

    def count(module: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal seen
        seen += len(arguments[0])

    handle = probe.module.register_forward_pre_hook(count)
    try:
        run()
    finally:
        handle.remove()
    return seen / images


def timed(run: Callable[[], object]) -> dict[str, float]:
    """Seconds and processor seconds of one call."""
    start, cpu = time.perf_counter(), time.process_time()
    run()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
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
    files = undecoded(task, paths)
    passes = Passes.of(probe, task)
    few = task.subset(range(min(64, len(task))))
    facts = {
        "images": len(task),
        "side_px": side,
        "mean_file_kib": float(np.mean([path.stat().st_size for path in paths]) / 1024),
        "forward_passes_per_image": forward_passes(probe, lambda: embed_task(few, probe), len(few)),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
    }
    found: list[dict[str, dict[str, float]]] = []
    loads = []
    for i in range(rounds):
        fresh = [linked(paths, home / "photos", home / f"round{i}{part}") for part in ("draw", "whole")]
        runs: dict[str, Callable[[], object]] = {
            "passes": passes.run,
            "draw": partial(Task.from_dataset, fresh[0], max_samples=images),
            "whole": partial(draw_and_embed, fresh[1], images, probe),
            "embed_pixels": partial(embed_task, task, probe),
            "embed_files": partial(embed_task, files, probe),
        }
        order = list(runs) if i % 2 == 0 else list(runs)[::-1]
        loads.append(os.getloadavg()[0])
        found.append({name: timed(runs[name]) for name in order})
        yield {**facts, **judged(found, loads, facts["cores"]), "versions": library_versions()}


def judged(rounds: list[dict[str, dict[str, float]]], loads: list[float], cores: int) -> dict[str, Any]:
    """Summarise the rounds and say whether the target is met.

    In seconds nothing is said (None) where other processes kept half a core or more busy before a round.
    """
    figures = summary(rounds)
    met = {
        key: all(figures[run][key] <= TARGET for run in ("whole", "embed_pixels", "embed_files"))
        for key in ("ratio", "cpu_ratio")
    }
    return {
        "target": TARGET,
        "met_in_seconds": met["ratio"] if max(loads) < cores + 0.5 else None,
        "met_in_processor_seconds": met["cpu_ratio"],
        "summary": figures,
        "rounds": rounds,
        "load_average_before_rounds": loads,
    }


def draw_and_embed(folder: Path, images: int, probe: Probe) -> None:
    """What a user waits for."""
    embed_task(Task.from_dataset(folder, max_samples=images), probe)


def main() -> None:
    """Run and write the raw output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--side", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "end_to_end.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as home:
        import datasets

        datasets.config.HF_DATASETS_CACHE = Path(home) / "datasets"
        datasets.disable_progress_bars()
        document = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
        for result in measure(Path(home), args.images, args.side, args.rounds):
            document[f"torch_threads_{args.threads}"] = result
            write_json(args.out, document)
            print(json.dumps(result["rounds"][-1]), flush=True)
    for name, figures in result["summary"].items():
        print(f"{name:14} " + "  ".join(f"{key} {value:.2f}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
