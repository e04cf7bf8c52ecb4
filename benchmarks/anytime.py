"""What stopping at a noise tolerance saves, and whether retrieval suffers.

    python benchmarks/anytime.py [--cap 256] [--tolerance 0.05] [--tasks cifar10 dtd_10 ...] [--cache DIR]

Each shared task gives two disjoint halves of up to `--cap` images. With the default probe, each half is embedded with
all its images and with as many as the tolerance asks for, in alternating order. Reported: images used, seconds and
processor seconds of `embed_task` (features, head, Fisher information; not drawing), the noise, the distance between
the two embeddings; and how well halves find each other among those of all tasks (as ``retrieval.py`` judges it) with
all images and with those that the tolerance asked for. Raw output of all tasks: results/anytime.json.

Resumable: each finished task lies in a folder of its own in the cache, so a killed run loses one task at most.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from retrieval import judge
from scipy.stats import spearmanr
from tqdm import tqdm

from hf_task2vec.distance import pairwise
from hf_task2vec.embed import embed_task, library_versions
from hf_task2vec.embedding import AUTO_TOLERANCE, TaskEmbedding
from hf_task2vec.files import cache_dir, write_json
from hf_task2vec.head import stratified_folds
from hf_task2vec.probe import Probe
from hf_task2vec.task import Task

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT.parent / "shared" / "tasks"
DISTANCES = ("log_correlation", "symmetric")
KINDS = ("full", "auto")

Row = dict[str, Any]


def measure(task: Task, probe: Probe, tolerance: float, folder: Path, *, full_first: bool) -> Row:
    """Embed one half with all images and with as many as needed; save both in `folder`."""
    row: Row = {}
    found = {}
    for kind in KINDS if full_first else KINDS[::-1]:
        start, cpu = time.perf_counter(), time.process_time()
        found[kind] = embed_task(task, probe, noise_tolerance=tolerance if kind == "auto" else None)
        row[f"seconds_{kind}"] = time.perf_counter() - start
        row[f"cpu_seconds_{kind}"] = time.process_time() - cpu
        row[f"n_{kind}"] = int(found[kind].descriptors["n_fisher"])
        row[f"noise_{kind}"] = found[kind].descriptors["noise"]
        found[kind].save(folder / kind)
    row["distance"] = float(pairwise([found["full"], found["auto"]])[0, 1])
    return row


def rows_of(name: str, probe: Probe, cap: int, tolerance: float, folder: Path, *, full_first: bool) -> list[Row]:
    """Rows of both halves of a task, from an earlier run if there was one."""
    done = folder / "rows.json"
    if done.exists():
        rows: list[Row] = json.loads(done.read_text(encoding="utf-8"))
        return rows
    task = Task.from_dataset(TASKS / name, split="train", max_samples=2 * cap)
    side = stratified_folds(task.labels, 2, seed=1)
    rows = []
    for half in (0, 1):
        part = task.subset(np.flatnonzero(side == half))
        row = measure(part, probe, tolerance, folder / str(half), full_first=full_first)
        rows.append({"task": name, "half": half, **row})
    write_json(done, rows)
    return rows


def agreement(full: list[TaskEmbedding], auto: list[TaskEmbedding]) -> dict[str, float]:
    """Do task distances keep their order?"""
    upper = np.triu_indices(len(full), 1)
    a, b = pairwise(full), pairwise(auto)
    far = np.diag(np.full(len(full), np.inf))
    same = (a + far).argmin(axis=1) == (b + far).argmin(axis=1)
    return {"spearman": float(spearmanr(a[upper], b[upper]).statistic), "same_nearest": float(same.mean())}


def summarise(rows: list[Row]) -> dict[str, float]:
    """What was saved, over all halves of all tasks."""

    def saved(what: str) -> float:
        return 1.0 - sum(row[f"{what}_auto"] for row in rows) / sum(row[f"{what}_full"] for row in rows)

    return {
        "halves": len(rows),
        "median_n_full": float(np.median([row["n_full"] for row in rows])),
        "median_n_auto": float(np.median([row["n_auto"] for row in rows])),
        "stopped_early": float(np.mean([row["n_auto"] < row["n_full"] for row in rows])),
        "images_saved": saved("n"),
        "seconds_saved": saved("seconds"),
        "cpu_seconds_saved": saved("cpu_seconds"),
        "median_noise_full": float(np.median([row["noise_full"] for row in rows])),
        "median_noise_auto": float(np.median([row["noise_auto"] for row in rows])),
        "mean_distance": float(np.mean([row["distance"] for row in rows])),
    }


def main() -> None:
    """Run, print, and write the raw output of a whole run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cap", type=int, default=256)
    parser.add_argument("--tolerance", type=float, default=AUTO_TOLERANCE)
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--cache", type=Path, default=cache_dir() / "anytime")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "anytime.json")
    args = parser.parse_args()
    names = args.tasks or [entry["name"] for entry in json.loads((TASKS / "MANIFEST.json").read_text())]
    probe = Probe.default()
    settings = {"cap": args.cap, "tolerance": args.tolerance, "probe": probe.name, "versions": library_versions()}
    home = args.cache / f"{args.cap}-{args.tolerance}-{probe.weights_hash[:12]}"
    # The first run of a process pays for the start of libraries.
    embed_task(Task.from_dataset("sklearn:digits", max_samples=16), probe)
    rows: list[Row] = []
    for i, name in enumerate(tqdm(names)):
        rows += rows_of(name, probe, args.cap, args.tolerance, home / name, full_first=i % 2 == 0)
    found = {
        kind: [TaskEmbedding.load(home / name / str(half) / kind) for name in names for half in (0, 1)]
        for kind in KINDS
    }
    document: dict[str, Any] = {"settings": settings, "summary": summarise(rows)}
    if len(names) > 1:
        document["agreement"] = agreement(found["full"], found["auto"])
        document["retrieval"] = {
            distance: {kind: judge(pairwise(embeddings, distance)) for kind, embeddings in found.items()}
            for distance in DISTANCES
        }
    document |= {"load_average": os.getloadavg()[0], "rows": rows}
    print(json.dumps({key: value for key, value in document.items() if key != "rows"}, indent=1))
    if not args.tasks:
        write_json(args.out, document)


if __name__ == "__main__":
    main()
