"""What a sweep of 10,000 checkpoints on 500 tasks would cost, from times measured here; writes docs/cluster.md's table.

    OMP_NUM_THREADS=1 python benchmarks/sweep_cost.py [--table-only]

Times are processor seconds of one core, so that other work on the machine hardly counts. Three architectures of
different kinds and sizes, with random weights, are loaded and run over a sample; the time of 10^9 multiply-adds, taken
over the three, and the multiply-adds of the checkpoints of the shipped index give the rest. GPU hours come from the
throughputs that timm's authors published (RTX 4090, mixed precision), which are in the index too. Raw output:
results/sweep_cost.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from hf_task2vec.bundled import DEFAULT_PROBE
from hf_task2vec.cells import Cell, CellStore
from hf_task2vec.embed import embed_task, library_versions
from hf_task2vec.files import atomic_path, write_json
from hf_task2vec.probe import Probe
from hf_task2vec.sweep_inputs import TaskSpec, resolve_checkpoint, resolve_task
from hf_task2vec.sweep_measure import evaluate
from hf_task2vec.sweep_worker import Worker
from hf_task2vec.task import Task
from hf_task2vec.transfer import extract_features
from hf_task2vec.zoo import ZooIndex

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "sweep_cost.json"
PAGE = ROOT / "docs" / "cluster.md"
MARKS = ("<!-- cost: written by benchmarks/sweep_cost.py -->", "<!-- end of cost -->")
CHECKPOINTS, TASKS, IMAGES, FEATURES, CLASSES = 10_000, 500, 1_000, 768, 20
TIMED = (
    "timm/mobilenetv2_100.ra_in1k",
    "timm/resnet50.a1_in1k",
    "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
)
TIMED_IMAGES = 64


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return processor seconds and result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def measure() -> dict[str, Any]:
    """Time every part of a cell."""
    import timm
    from timm.models import save_for_hf

    index = ZooIndex.load().checkpoints
    facts = index.set_index("hub_id")
    spec = TaskSpec(dataset=str(ROOT.parent / "shared" / "tasks" / "trashnet"), task="trashnet", split="train")
    draw, task = timed(lambda: Task.from_dataset(spec.dataset, split="train", max_samples=TIMED_IMAGES))
    rows = []
    for name in TIMED:
        architecture, _, _ = name.removeprefix("timm/").partition(".")
        with tempfile.TemporaryDirectory() as folder:
            save_for_hf(timm.create_model(architecture), folder, safe_serialization=True)
            load, probe = timed(partial(Probe.from_pretrained, folder))
        extract_features(probe, task.subset(range(8)))  # the first pass allocates
        extract, _ = timed(partial(extract_features, probe, task))
        gmacs = float(facts.loc[name, "gmacs"])
        ms = 1e3 * extract / TIMED_IMAGES
        rows.append({"architecture": architecture, "gmacs": gmacs, "load_s": load, "ms_per_image": ms})
    rng = np.random.default_rng(0)
    labels = np.arange(IMAGES) % CLASSES
    x = (rng.normal(size=(IMAGES, FEATURES)) + 0.2 * rng.normal(size=(CLASSES, FEATURES))[labels]).astype(np.float32)
    score, _ = timed(lambda: evaluate(x, labels, int(0.7 * IMAGES)))
    embed, _ = timed(lambda: embed_task(task, Probe.default()))
    gmacs, gpu = index["gmacs"].dropna(), index["throughput_gpu"].dropna()
    return {
        "cpu": platform.processor() or platform.machine(),
        "timed_images": TIMED_IMAGES,
        "architectures": rows,
        "draw_ms_per_image": 1e3 * draw / TIMED_IMAGES,
        "score_s": score,
        "embed_s_per_image": embed / TIMED_IMAGES,
        "cell_bytes": cell_bytes(spec),
        "index": {
            "checkpoints_with_gmacs": len(gmacs),
            "mean_gmacs": float(gmacs.mean()),
            "checkpoints_with_gpu_throughput": len(gpu),
            "mean_gpu_ms_per_image": float((1e3 / gpu).mean()),
            "mean_params_m": float(index["params_m"].dropna().mean()),
        },
        "versions": library_versions(),
    }


def cell_bytes(spec: TaskSpec) -> int:
    """Return the size of the files of one cell."""
    cell = Cell("measure", resolve_task(spec), resolve_checkpoint(DEFAULT_PROBE), {"max_samples": 64, "seed": 0})
    with tempfile.TemporaryDirectory() as folder:
        CellStore(Path(folder)).write(cell, Worker(device="cpu").run(cell))
        return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def on_paper(measured: dict[str, Any]) -> dict[str, float]:
    """Return what the large sweep costs."""
    index, cells = measured["index"], CHECKPOINTS * TASKS
    rows = measured["architectures"]
    s_per_gmac = sum(row["ms_per_image"] for row in rows) / sum(row["gmacs"] for row in rows) / 1e3
    return {
        "cells": cells,
        "image_passes": cells * IMAGES,
        "core_hours_extract": cells * IMAGES * index["mean_gmacs"] * s_per_gmac / 3600,
        "gpu_hours_extract": cells * IMAGES * index["mean_gpu_ms_per_image"] / 1e3 / 3600,
        "core_hours_score": cells * measured["score_s"] / 3600,
        "core_hours_load": cells * fmean(row["load_s"] for row in rows) / 3600,
        "core_hours_embed": TASKS * 256 * measured["embed_s_per_image"] / 3600,
        "weights_tb": CHECKPOINTS * index["mean_params_m"] * 4e6 / 1e12,
        "cells_gb": cells * measured["cell_bytes"] / 1e9,
        "features_tb": cells * IMAGES * FEATURES * 4 / 1e12,
    }


def table(measured: dict[str, Any]) -> str:
    """Return the table of docs/cluster.md."""
    paper, index = on_paper(measured), measured["index"]
    times = ", ".join(f"`{row['architecture']}` {row['ms_per_image']:.0f} ms" for row in measured["architectures"])
    rows = [
        ("cells", f"{paper['cells']:,.0f}", f"{CHECKPOINTS:,} checkpoints × {TASKS} tasks"),
        ("passes of an image", f"{paper['image_passes']:.1e}", f"{IMAGES:,} images a cell"),
        (
            "extraction on CPUs",
            f"{paper['core_hours_extract']:,.0f} core hours",
            (
                f"an image on one core here: {times}; {index['mean_gmacs']:.1f} GMACs on average over "
                f"{index['checkpoints_with_gmacs']:,} checkpoints of the index"
            ),
        ),
        (
            "extraction on GPUs",
            f"{paper['gpu_hours_extract']:,.0f} GPU hours",
            (
                f"{index['mean_gpu_ms_per_image']:.2f} ms an image: timm's published throughput of "
                f"{index['checkpoints_with_gpu_throughput']:,} checkpoints, RTX 4090, mixed precision"
            ),
        ),
        (
            "evaluation (CPU)",
            f"{paper['core_hours_score']:,.0f} core hours",
            f"{measured['score_s']:.1f} s a cell: {IMAGES:,} images, {FEATURES} features, {CLASSES} classes",
        ),
        (
            "loading (CPU)",
            f"{paper['core_hours_load']:,.0f} core hours",
            "once a cell, where a process never meets the same checkpoint twice",
        ),
        ("embedding the tasks (CPU)", f"{paper['core_hours_embed']:,.0f} core hours", f"256 images of {TASKS} tasks"),
        ("weights", f"{paper['weights_tb']:.1f} TB", f"{index['mean_params_m']:.0f} M parameters on average, float32"),
        ("finished cells", f"{paper['cells_gb']:,.0f} GB", f"{measured['cell_bytes']:,} bytes each"),
        ("features, with `--keep-features`", f"{paper['features_tb']:.1f} TB", "not kept by default"),
    ]
    return "\n".join(["| what | on paper | from |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def main() -> None:
    """Measure, write the raw output and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table-only", action="store_true")
    if not parser.parse_args().table_only:
        measured = measure()
        write_json(RESULT, {**measured, "on_paper": on_paper(measured)})
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    text = table(json.loads(RESULT.read_text(encoding="utf-8")))
    with atomic_path(PAGE) as temporary:
        temporary.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
