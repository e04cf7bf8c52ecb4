"""What stopping at a noise tolerance saves, and what it costs in distance.

    python benchmarks/anytime.py [--cap 512] [--tolerance 0.05] [--tasks cifar10 dtd_10 ...]

Each shared task is drawn once (`--cap` images) and embedded twice with the default probe, all images against as many
as the tolerance asks for, in alternating order. Reported: images used, seconds and processor seconds of `embed_task`
(features, head, Fisher information; not drawing), the noise, the distance between the two embeddings, and over all
tasks the rank correlation of the task distances and the share of tasks whose nearest neighbour stays. Without
`--tasks` the raw output goes to results/anytime.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from hf_task2vec.distance import pairwise
from hf_task2vec.embed import embed_task, library_versions
from hf_task2vec.embedding import AUTO_SAMPLES, AUTO_TOLERANCE, TaskEmbedding
from hf_task2vec.probe import Probe
from hf_task2vec.task import Task

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT.parent / "shared" / "tasks"

Timed = tuple[TaskEmbedding, float, float]  # seconds, processor seconds


def both(task: Task, probe: Probe, tolerance: float, *, full_first: bool) -> dict[str, Timed]:
    """Embed with all images and with as many as needed."""
    found = {}
    for kind in ("full", "auto") if full_first else ("auto", "full"):
        start, cpu = time.perf_counter(), time.process_time()
        embedding = embed_task(task, probe, noise_tolerance=tolerance if kind == "auto" else None)
        found[kind] = embedding, time.perf_counter() - start, time.process_time() - cpu
    return found


def row(name: str, found: dict[str, Timed]) -> dict[str, Any]:
    """Describe one task's pair."""
    (full, full_s, full_cpu), (auto, auto_s, auto_cpu) = found["full"], found["auto"]
    return {
        "task": name,
        "n_full": int(full.descriptors["n_fisher"]),
        "n_auto": int(auto.descriptors["n_fisher"]),
        "noise_full": full.descriptors["noise"],
        "noise_auto": auto.descriptors["noise"],
        "seconds_full": full_s,
        "seconds_auto": auto_s,
        "cpu_seconds_full": full_cpu,
        "cpu_seconds_auto": auto_cpu,
        "distance": float(pairwise([full, auto])[0, 1]),
    }


def agreement(full: list[TaskEmbedding], auto: list[TaskEmbedding]) -> dict[str, float]:
    """Do task distances keep their order?"""
    upper = np.triu_indices(len(full), 1)
    a, b = pairwise(full), pairwise(auto)
    far = np.diag(np.full(len(full), np.inf))
    same = (a + far).argmin(axis=1) == (b + far).argmin(axis=1)
    return {"spearman": float(spearmanr(a[upper], b[upper]).statistic), "same_nearest": float(same.mean())}


def main() -> None:
    """Run, print, and write the raw output of a whole run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cap", type=int, default=AUTO_SAMPLES)
    parser.add_argument("--tolerance", type=float, default=AUTO_TOLERANCE)
    parser.add_argument("--tasks", nargs="*")
    args = parser.parse_args()
    names = args.tasks or [entry["name"] for entry in json.loads((TASKS / "MANIFEST.json").read_text())]
    probe = Probe.default()
    rows, full, auto = [], [], []
    for i, name in enumerate(tqdm(names)):
        task = Task.from_dataset(TASKS / name, split="train", max_samples=args.cap)
        if i == 0:
            embed_task(task.subset(range(min(32, len(task)))), probe)  # warm up
        found = both(task, probe, args.tolerance, full_first=i % 2 == 0)
        rows.append(row(name, found))
        full.append(found["full"][0])
        auto.append(found["auto"][0])
    total = {name: sum(one[name] for one in rows) for name in rows[0] if "seconds" in name}
    summary = {
        "tasks": len(rows),
        "median_n": float(np.median([one["n_auto"] for one in rows])),
        "seconds_saved": 1.0 - total["seconds_auto"] / total["seconds_full"],
        "cpu_seconds_saved": 1.0 - total["cpu_seconds_auto"] / total["cpu_seconds_full"],
        "mean_distance": float(np.mean([one["distance"] for one in rows])),
        **(agreement(full, auto) if len(rows) > 2 else {}),
    }
    settings = {"cap": args.cap, "tolerance": args.tolerance, "versions": library_versions()}
    document = json.dumps({"settings": settings, "summary": summary, "rows": rows}, indent=1)
    print(document)
    if not args.tasks:
        (ROOT / "benchmarks" / "results" / "anytime.json").write_text(document + "\n")


if __name__ == "__main__":
    main()
