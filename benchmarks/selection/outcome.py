"""Does it pay? What the checkpoint picked in one way or another reaches after fine-tuning, at its own size.

    OMP_NUM_THREADS=2 python -m benchmarks.selection.outcome --cache DIR [--tasks trashnet ...] [--max-train 250]

On each shared task (its test images are withheld from all selection) the checkpoint is fine-tuned as ``hf-task2vec
finetune`` does it, that would be picked by: the first of the ranking; the first after three of the short list were
measured (``refine=3``); accuracy on ImageNet; the best mean standing on other tasks (static); and seeded draws. The
pool is what can be loaded here, served as by ``benchmarks.selection.examples``; the index has forgotten the task and
its near duplicates, and its metric is trained anew. Raw output: results/outcome.json, with the seconds that selection
and training took. Resumable, cell by cell.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import TASKS, parser, write
from benchmarks.selection.examples import POOL, held_out, served_pool, static_pick

CHOSEN = (
    "aid", "brain_tumor_mri", "busi_breast_ultrasound", "clothing_small", "dtd_10", "fer2013", "grocery_store",
    "ham10000", "hymenoptera", "magnetic_tile_defects", "monkeys10", "neu_steel_defects", "pbc_blood_cells", "scene15",
    "trashnet", "weather5",
)  # fmt: skip
WAYS = ("first", "refined", "imagenet", "static", "random")


def picks(folder: Path, index: Any, parts: Any, draws: int, seed: int) -> dict[str, Any]:
    """The checkpoints that each way picks, and the seconds that the first two took; from disk if they are there."""
    from hf_task2vec import select_backbone
    from hf_task2vec.files import write_json

    path = folder / "picks.json"
    if not path.exists():
        seconds, found = {}, {}
        for way, refine in (("first", 0), ("refined", 3)):
            started = time.perf_counter()
            ranking = select_backbone(
                parts.sample, index=index, candidates=list(POOL), refine=refine, top_k=len(POOL), cache=False
            )
            found[way], seconds[way] = [ranking.best.hub_id], time.perf_counter() - started
        known = index.checkpoints.set_index("hub_id").loc[list(POOL)]["in1k_top1"].astype(float)
        found["imagenet"], found["static"] = [str(known.idxmax())], [static_pick(index)]
        found["random"] = [str(name) for name in np.random.default_rng(seed).permutation(POOL)[:draws]]
        write_json(path, {"picks": found, "seconds": seconds})
    return dict(json.loads(path.read_text(encoding="utf-8")))


def cell(folder: Path, parts: Any, checkpoint: str, epochs: int) -> dict[str, Any]:
    """Fine-tune a checkpoint, or read what it reached."""
    from hf_task2vec.evidence.finetune import Recipe, train
    from hf_task2vec.files import write_json

    path = folder / f"{checkpoint.replace('/', '--')}.json"
    if not path.exists():
        work, started = path.with_suffix(""), time.perf_counter()
        found = train(checkpoint, parts, work, Recipe(epochs=epochs))
        seconds = time.perf_counter() - started
        write_json(path, {key: found[key] for key in ("accuracy", "epochs", "head_alone")} | {"seconds": seconds})
        shutil.rmtree(work)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def row(cache: Path, task: str, args: Any) -> dict[str, Any]:
    """Everything about one task."""
    from hf_task2vec import ZooIndex
    from hf_task2vec.evidence.finetune import Parts

    folder = cache / "index" / task
    if not (folder / "manifest.json").exists():
        held_out(task).save(folder)
    index, work = ZooIndex.load(folder), cache / "outcome" / task
    parts = Parts.of_dataset(TASKS / task, max_train=args.max_train)
    chosen = picks(work, index, parts, args.random, sum(task.encode()))
    cells = {
        name: cell(work, parts, name, args.epochs) for name in sorted({n for p in chosen["picks"].values() for n in p})
    }
    reached = {way: [cells[name] for name in names] for way, names in chosen["picks"].items()}
    return {
        "task": task,
        **chosen,
        "accuracy": {way: float(np.mean([c["accuracy"] for c in found])) for way, found in reached.items()},
        "training_seconds": {way: float(np.mean([c["seconds"] for c in found])) for way, found in reached.items()},
        "n_train": len(parts.train),
        "n_test": len(parts.test),
        "cells": cells,
    }


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean accuracy of each way, and its lead over the static pick with a 95 % interval over tasks."""
    from hf_task2vec.metric.evaluation import bootstrap_interval

    found = []
    for way in WAYS:
        lead = np.array([r["accuracy"][way] - r["accuracy"]["static"] for r in rows])
        low, high = bootstrap_interval(lead)
        mean = float(np.mean([r["accuracy"][way] for r in rows]))
        seconds = float(np.mean([r["seconds"].get(way, 0.0) for r in rows]))
        training = float(np.mean([r["training_seconds"][way] for r in rows]))
        found.append({"way": way, "accuracy": mean, "lead": float(lead.mean()), "low": low, "high": high,
                      "selection_seconds": seconds, "training_seconds": training})  # fmt: skip
    return found


def main() -> None:
    """Fine-tune what is left."""
    arguments = parser(__doc__)
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--tasks", nargs="+", default=list(CHOSEN), choices=CHOSEN)
    arguments.add_argument("--random", type=int, default=1)
    arguments.add_argument("--max-train", type=int, default=250)
    arguments.add_argument("--epochs", type=int, default=4)
    args = arguments.parse_args()
    with served_pool(args.cache):
        rows = [row(args.cache, task, args) for task in args.tasks]
    from hf_task2vec.embedding.embed import library_versions

    budget = {"max_train": args.max_train, "epochs": args.epochs, "random": args.random}
    document = {"summary": summary(rows), "budget": budget, "pool": list(POOL), "rows": rows}
    if args.tasks == list(CHOSEN):
        write("outcome", document | {"versions": library_versions()})
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
