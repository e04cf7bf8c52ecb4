"""Turn the features of ``measure_matrix.py`` into scores, and put those of Hub checkpoints into ``zoo_index``.

    python benchmarks/score_matrix.py --cache DIR [--index zoo_index]

For every cell: accuracy of a linear probe and of five nearest neighbours (closed-form leave-one-out over all images,
train and test pooled), LogME, H-score, and the accuracy of an L2 logistic regression on the plain test split. Raw
output: results/matrix.csv, and which images were classified rightly: results/matrix_correct.npz.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure_matrix import BUNDLED, TASKS, cell, checkpoint_names
from safetensors.numpy import load_file
from tqdm import tqdm

from hf_task2vec.embed import library_versions
from hf_task2vec.files import atomic_path, sha256_file
from hf_task2vec.schema import LOCAL_PREFIX, CheckpointRow, TaskRow, is_leak
from hf_task2vec.transfer import measure_features
from hf_task2vec.transferability import Predictions, logistic_test
from hf_task2vec.zoo import ZooIndex

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SOURCE = "hf_task2vec_measured"
#: Names of local folders that are exact copies of a Hub checkpoint.
HUB_IDS = {name: name for name in BUNDLED} | {
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
}
FIELDS = (
    "task", "checkpoint", "n", "n_train", "n_test", "dim", "linear", "linear_se", "knn", "knn_se", "logme", "h_score",
    "test", "test_se", "seconds", "features_sha256",
)  # fmt: skip


def score_cell(path: Path) -> tuple[dict[str, Any], Predictions]:
    """Evaluate one cell."""
    started = time.perf_counter()
    tensors = load_file(path)
    x, labels, n_train = tensors["features"], tensors["labels"], int(tensors["n_train"][0])
    transfer = measure_features(x, labels)
    test = logistic_test(x[:n_train], labels[:n_train], x[n_train:], labels[n_train:])
    row = {
        "n": len(x),
        "n_train": n_train,
        "n_test": len(x) - n_train,
        "dim": x.shape[1],
        "linear": transfer.linear.accuracy,
        "linear_se": transfer.linear.std_error,
        "knn": transfer.knn.accuracy,
        "knn_se": transfer.knn.std_error,
        "logme": transfer.logme,
        "h_score": transfer.h_score,
        "test": test.accuracy,
        "test_se": test.std_error,
        "seconds": time.perf_counter() - started,
        "features_sha256": sha256_file(path)[:16],
    }
    return row, transfer.linear


def source_row() -> dict[str, Any]:
    """The matrix as a row of ``sources.csv``."""
    return {
        "source": SOURCE,
        "repo": "hf_task2vec",
        "path": "benchmarks/score_matrix.py",
        "protocol": (
            "frozen pooled features; linear_probe_loo: ridge on one-hot labels, closed-form leave-one-out over all "
            "images; linear_probe_logistic: L2 logistic regression on train, strength by 3-fold cross-validation"
        ),
        "split": "train-test: both splits pooled; test",
        "metric": "top-1 accuracy",
        "license": "CC0-1.0",
    }


def score_rows(rows: list[dict[str, Any]], index: ZooIndex) -> list[dict[str, Any]]:
    """Rows of ``scores.csv`` for the checkpoints that the index knows, by Hub id or as ``local:<name>``."""
    tasks = {row.task: row for row in index.rows["tasks"] if isinstance(row, TaskRow)}
    checkpoints = {row.hub_id: row for row in index.rows["checkpoints"] if isinstance(row, CheckpointRow)}
    versions = library_versions()
    result = []
    for row in rows:
        name = HUB_IDS.get(row["checkpoint"], LOCAL_PREFIX + row["checkpoint"])
        if name not in checkpoints:
            continue
        for protocol, split, column, n_train, n_test in (
            ("linear_probe_loo", "train-test", "linear", row["n"] - 1, row["n"]),
            ("linear_probe_logistic", "test", "test", row["n_train"], row["n_test"]),
        ):
            result.append(
                {
                    "task": row["task"],
                    "checkpoint": name,
                    "score": round(row[column], 6),
                    "score_std_error": round(row[f"{column}_se"], 6),
                    "metric": "top1",
                    "protocol": protocol,
                    "split": split,
                    "n_train": n_train,
                    "n_test": n_test,
                    "source": SOURCE,
                    "source_license": source_row()["license"],
                    "checkpoint_match": "measured",
                    "leak": is_leak(tasks[row["task"]], checkpoints[name]),
                    "versions": f"torch {versions['torch']} timm {versions['timm']}",
                }
            )
    return result


def main() -> None:
    """Score all cells present, write the raw output, extend the index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--index", type=Path, default=None)
    args = parser.parse_args()
    names = [row["name"] for row in json.loads((TASKS / "MANIFEST.json").read_text())]
    known = read_rows()
    rows, correct = [], {}
    kept = dict(np.load(RESULTS / "matrix_correct.npz")) if known else {}
    cells = [(c, t, cell(args.cache, c, t)) for c in checkpoint_names() for t in names]
    for checkpoint, task, path in tqdm([c for c in cells if c[2].exists()]):
        key = f"{checkpoint.replace('/', '--')}:{task}"
        old = known.get((task, checkpoint))
        if old is not None and old["features_sha256"] == sha256_file(path)[:16]:
            rows.append(old)
            correct[key] = kept[key]
            continue
        row, linear = score_cell(path)
        rows.append({"task": task, "checkpoint": checkpoint, **row})
        correct[key] = np.packbits(linear.correct)
    write_rows(rows)
    with atomic_path(RESULTS / "matrix_correct.npz") as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **correct)
    if args.index is not None:
        extend_index(rows, args.index)


def extend_index(rows: list[dict[str, Any]], path: Path) -> None:
    """Replace the measured scores of an index by those of `rows` whose checkpoint is on the Hub."""
    index = ZooIndex.load(path, verify=False).add_sources([source_row()], replace=True)
    index.add_scores(score_rows(rows, index), replace=True).save(path)


def read_rows() -> dict[tuple[str, str], dict[str, Any]]:
    """Read the raw output of an earlier run."""
    path = RESULTS / "matrix.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as handle:
        found = {}
        for row in csv.DictReader(handle):
            numbers: dict[str, Any] = {
                k: v
                if k in ("task", "checkpoint", "features_sha256")
                else int(v)
                if k in ("n", "n_train", "n_test", "dim")
                else float(v)
                for k, v in row.items()
            }
            found[row["task"], row["checkpoint"]] = numbers
        return found


def write_rows(rows: list[dict[str, Any]]) -> None:
    """Write the raw output."""
    with atomic_path(RESULTS / "matrix.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, FIELDS, lineterminator="\n")
        writer.writeheader()
        for row in sorted(rows, key=lambda r: (r["task"], r["checkpoint"])):
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


if __name__ == "__main__":
    main()
