"""What the per-filter Fisher information costs, against a plain forward and backward pass and other libraries.

    python -m benchmarks.speed.fisher [--only models scaling memory] [--device cpu|cuda] [--rounds 7] [--batch 8]
                                      [--peers] [--models resnet18 ...] [--axes classes ...]

All methods run in turn within one process on the same images, so that the ratios hold on a noisy machine; the median of
the rounds is reported with its range. The plain pass is what training would do: eval mode, NCHW, gradients of all
weights. On a CPU one thread is used, and seconds are processor seconds, which other processes disturb less.

* ``models``: the ratio for four networks, and with ``--peers`` (``pip install backpack-for-pytorch nngeometry``) that
  of others: ``vmap_grad`` (torch.func, one sampled label an image), ``backpack`` (DiagGGNMC, one draw), ``nngeometry``
  (FIM, exact) and ``batch_mean_loop``, the loop of the original Task2Vec code (the square of the batch's mean
  gradient, which is not the Fisher information), which goes on for 10,000 drawn images.
* ``scaling``: EfficientNet-Lite0 against classes, image size, batch size and number of images.
* ``memory``: peak memory against batch size, each point in a process of its own; the slope is the memory per image.

Every part goes into the raw output, results/fisher_speed_<device>.json, as soon as it is measured; the rest of the file
stays, so a long run can be done in parts. The plot beside it is drawn from what is there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from benchmarks.common import RESULTS, ROOT, parser, read, write
from benchmarks.speed.fisher_peers import ORIGINAL_DRAWS, able_peers
from benchmarks.speed.fisher_plot import plot
from hf_task2vec import diagonal_fisher
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.fisher.head import Head
from hf_task2vec.probes.layers import trace_layers

#: Networks, and the ratio to a plain pass that the sketch shall not exceed.
TARGETS = {"resnet18": 0.90, "tf_efficientnet_lite0": 0.80, "vit_tiny_patch16_224": 1.10, "convnext_atto": 1.10}
SCALED = "tf_efficientnet_lite0"
SCALES = {
    "classes": (2, 10, 100, 1000),
    "size": (128, 224, 320),
    "batch": (1, 2, 4, 8, 16),
    "images": (16, 32, 64, 128, 256),
}
MEMORY_BATCHES = (2, 4, 8, 16, 32)
IMAGES = 256  # what `Task.from_dataset` draws by default

Run = Callable[[], None]


class Case:
    """One network with a head and one batch of images."""

    def __init__(
        self, model: str, *, batch: int, device: torch.device, size: int = 224, classes: int = 10, images: int = 0
    ) -> None:
        torch.manual_seed(0)
        kwargs = {"img_size": size} if model.startswith("vit") and size != 224 else {}
        self.plain = timm.create_model(model, num_classes=classes, **kwargs).eval().to(device)
        extractor = timm.create_model(model, num_classes=0, **kwargs).eval().requires_grad_(False).to(device)
        extractor.load_state_dict(self.plain.state_dict(), strict=False)
        self.images = torch.randn(batch, 3, size, size, device=device)
        self.labels = torch.arange(batch, device=device) % classes
        channels_last = self.images.contiguous(memory_format=torch.channels_last)
        starts = range(0, max(images, batch), batch)
        self.batches = [(channels_last, np.arange(start, start + batch)) for start in starts]
        head = self.plain.get_classifier()
        self.head = Head(head.weight.detach().double().cpu().numpy(), head.bias.detach().double().cpu().numpy())
        self.probe: Any = SimpleNamespace(module=extractor, layers=trace_layers(extractor, self.images[:1]).layers)

    def forward_backward(self) -> None:
        """The yardstick."""
        self.plain.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(self.plain(self.images), self.labels).backward()

    def sketch(self) -> None:
        """The estimator of this package."""
        diagonal_fisher(self.probe, self.batches, head=self.head)

    def methods(self) -> dict[str, Run]:
        """The yardstick first."""
        return {"plain": self.forward_backward, "sketch": self.sketch}


def timed(run: Run, device: torch.device) -> float:
    """Seconds of one call; on a CPU, where one thread runs, those of the processor."""
    if device.type == "cpu":
        started = time.process_time()
        run()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(methods: dict[str, Run], rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Run the methods in turn; ratios to the first, round by round."""
    for run in methods.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, run in methods.items():
            seconds[name].append(timed(run, device))
    return ratios(seconds)


def ratios(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median seconds, and median and range of the ratio to the first method of the same round."""
    base = np.array(next(iter(seconds.values())))
    return {
        name: {
            "median_s": float(np.median(values)),
            "ratio": float(np.median(np.array(values) / base)),
            "ratio_min": float(np.min(np.array(values) / base)),
            "ratio_max": float(np.max(np.array(values) / base)),
        }
        for name, values in seconds.items()
    }


def measure_model(model: str, device: torch.device, rounds: int, batch: int, *, peers: bool) -> dict[str, Any]:
    """The sketch, and other libraries, on one network."""
    case = Case(model, batch=batch, device=device)
    entry: dict[str, Any] = {
        "methods": compare(case.methods(), rounds, device),
        "target": TARGETS.get(model),
        "batch": batch,
        "rounds": rounds,
        "load_average": os.getloadavg()[0],
        "malloc": {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")},
    }
    if peers:
        able, unable = able_peers(case.plain, case.images, case.labels)
        entry["peers"] = compare({**case.methods(), **able}, max(3, rounds // 2), device)
        entry["peers_unable"] = unable
        entry["original_loop"] = original_loop(entry["peers"], batch)
    return entry


def original_loop(found: dict[str, dict[str, float]], batch: int) -> dict[str, float]:
    """What the original loop costs for all its draws, by its cost for one batch; not run to the end."""
    draws = found["batch_mean_loop"]["median_s"] / batch * ORIGINAL_DRAWS
    sketch = found["sketch"]["median_s"] / batch * IMAGES
    return {
        "draws": ORIGINAL_DRAWS,
        "seconds_of_all_draws_extrapolated": draws,
        "sketch_images": IMAGES,
        "sketch_seconds_extrapolated": sketch,
        "times_the_sketch_extrapolated": draws / sketch,
    }


def scaling(device: torch.device, rounds: int, batch: int, axis: str) -> list[dict[str, float]]:
    """Cost of the sketch against one quantity."""
    found = []
    cases = {point: Case(SCALED, **{"batch": batch, "device": device, axis: point}) for point in SCALES[axis]}
    if axis == "classes":  # the same pass but for the classes, so that all points share the rounds
        methods = {"plain": cases[min(cases)].forward_backward}
        shared = compare(methods | {str(point): case.sketch for point, case in cases.items()}, rounds, device)
    for point, case in cases.items():
        if axis == "images":
            case.sketch()
            seconds = float(np.median([timed(case.sketch, device) for _ in range(2)]))
            found.append({axis: point, "seconds": seconds, "seconds_per_image": seconds / point})
            continue
        row = shared[str(point)] if axis == "classes" else compare(case.methods(), rounds, device)["sketch"]
        found.append({axis: point, "ratio": row["ratio"], "seconds_per_image": row["median_s"] / len(case.images)})
    return found


def peak_mib(model: str, method: str, batch: int, device: str) -> float:
    """Peak memory of this process, or of the GPU, with one method on one batch."""
    torch.set_num_threads(1)
    run = Case(model, batch=batch, device=torch.device(device)).methods()[method]
    run()
    run()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage: its peak of a new process is at least that of the process which started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def memory(model: str, device: str, batches: Sequence[int] = MEMORY_BATCHES) -> dict[str, Any]:
    """Peak memory against batch size, each point in a process of its own, and the slope."""
    found: dict[str, Any] = {"batch": list(batches)}
    for method in ("plain", "sketch"):
        peaks = []
        for batch in batches:
            code = f"from {__spec__.name} import peak_mib; print(peak_mib({model!r}, {method!r}, {batch}, {device!r}))"
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout.split()[-1]))
        slope, base = np.polyfit(batches, peaks, 1)
        found[method] = {"peak_mib": peaks, "mib_per_image": float(slope), "base_mib": float(base)}
    found["ratio"] = found["sketch"]["mib_per_image"] / found["plain"]["mib_per_image"]
    return found


def main() -> None:
    """Run the parts asked for; write each into the raw output; draw."""
    arguments = parser(__doc__)
    parts = ("models", "scaling", "memory")
    arguments.add_argument("--only", nargs="*", choices=parts, default=parts)
    arguments.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--peers", action="store_true")
    arguments.add_argument("--models", nargs="*", default=list(TARGETS))
    arguments.add_argument("--axes", nargs="*", choices=SCALES, default=list(SCALES))
    args = arguments.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        threadpool_limits(1)  # of numpy too: threads that wait for each other burn processor seconds
    name = f"fisher_speed_{device.type}"
    result = read(name) | {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu, one thread",
        "versions": library_versions(),
    }
    runs: dict[tuple[str, str], Callable[[], Any]] = {}
    for model in args.models:
        runs["models", model] = partial(measure_model, model, device, args.rounds, args.batch, peers=args.peers)
        runs["memory", model] = partial(memory, model, args.device)
    for axis in args.axes:
        runs["scaling", axis] = partial(scaling, device, args.rounds, args.batch, axis)
    for (part, which), run in runs.items():
        if part in args.only:
            found = result.setdefault(part, {})[which] = run()
            write(name, result)
            print(part, which, json.dumps(found), flush=True)
    plot(result, RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
