"""Do linear probes rank checkpoints as fine-tuning does? A short full fine-tune of five checkpoints on ten tasks.

    python -m benchmarks.selection.fine_tune --cache DIR [--epochs 3] [--rate 2e-4] [--tasks aid ...]

All weights are trained on a task's train split at the checkpoint's own input size: AdamW, one cycle, batches of 16,
shifts of a few pixels, BatchNorm with its stored statistics, starting from a fitted linear head (linear probing, then
fine-tuning: Kumar et al. 2022, arXiv 2202.10054). The same setting everywhere, nothing tuned. Accuracy on the test
split is compared with the leave-one-out linear probe of the frozen features over all images, which the index ranks by.
Raw output: results/fine_tune.json (not written with ``--tasks``). Resumable, cell by cell.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common import TASKS, parser, read_matrix, write
from benchmarks.index.local_checkpoints import PACKAGED, load
from hf_task2vec import Task, fit_head
from hf_task2vec.embedding.embed import library_versions
from hf_task2vec.files import write_json
from hf_task2vec.metric.evaluation import bootstrap_interval

NAMES = (
    PACKAGED[0],
    "mobilenetv2_100.tv_in1k",
    "mobilenetv2_100.inat_bird_coral",
    "lcnet_100.pulc_text_orientation",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
)
CHOSEN = (
    "aid", "busi_breast_ultrasound", "caltech101_60", "clothing_small", "dtd_10", "emoji_categories", "grocery_store",
    "pbc_blood_cells", "shape_cue_conflict", "trashnet",
)  # fmt: skip
BATCH = 16


def images_of(task: Task, transform: Any) -> Tensor:
    """All images of a task, preprocessed, in half precision to save memory."""
    return torch.stack([transform(task.images[i]).half() for i in range(len(task))])


def features(module: nn.Module, images: Tensor) -> np.ndarray:
    """Features of preprocessed images, float64."""
    with torch.inference_mode():
        return torch.cat([module(part.float()) for part in images.split(BATCH)]).double().numpy()


def shifted(images: Tensor, rng: np.random.Generator, pad: int = 8) -> Tensor:
    """Shift a batch at random, at most by `pad` pixels."""
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (pad,) * 4, mode="replicate")
    y, x = rng.integers(0, 2 * pad + 1, 2)
    return padded[:, :, y : y + height, x : x + width].contiguous(memory_format=torch.channels_last)


def fine_tune(name: str, task: str, *, epochs: int, rate: float) -> dict[str, Any]:
    """Train one cell, and judge it on the test split."""
    started = time.perf_counter()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train, test = (Task.from_dataset(TASKS / task, split=split, max_samples=None) for split in ("train", "test"))
    checkpoint = load(name)
    module = checkpoint.module.eval().to(memory_format=torch.channels_last)
    x, y = images_of(train, checkpoint.transform), torch.from_numpy(train.labels)
    x_test = images_of(test, checkpoint.transform)
    fitted = fit_head(features(module, x), train.labels, train.num_classes, l2=1e-2)
    head = nn.Linear(fitted.weight.shape[1], train.num_classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fitted.weight))
        head.bias.copy_(torch.from_numpy(fitted.bias))

    def correct() -> np.ndarray:
        with torch.inference_mode():
            logits = torch.cat([head(module(part.float())) for part in x_test.split(BATCH)])
        return logits.argmax(dim=1).numpy() == test.labels

    before = correct()
    module.requires_grad_(True)
    parameters = [p for p in module.parameters() if p.is_floating_point()]
    optimizer = torch.optim.AdamW([*parameters, *head.parameters()], lr=rate, weight_decay=1e-2)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            loss = nn.functional.cross_entropy(head(module(shifted(x[rows].float(), rng))), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    module.requires_grad_(False)
    after = correct()
    return {
        "task": task,
        "checkpoint": name,
        "n_train": len(train),
        "n_test": len(test),
        "accuracy_before": float(before.mean()),
        "accuracy": float(after.mean()),
        "correct": "".join("01"[int(c)] for c in after),
        "seconds": time.perf_counter() - started,
    }


def agreement(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """How linear probes order the checkpoints against fine-tuning: means over tasks, bootstrap intervals over tasks."""
    measured = read_matrix()
    tasks = sorted({cell["task"] for cell in cells})
    by_task = [[cell for cell in cells if cell["task"] == task] for task in tasks]
    tuned = np.array([[cell["accuracy"] for cell in part] for part in by_task])
    linear = np.array([[measured[c["task"], c["checkpoint"]]["linear"] for c in part] for part in by_task])
    tau = np.array([kendalltau(x, y).statistic for x, y in zip(linear, tuned, strict=True)])
    picked, low_high = linear.argmax(axis=1), bootstrap_interval(tau)
    differences = [(table - table.mean(axis=1)[:, None]).ravel() for table in (linear, tuned)]
    return {
        "linear_against_fine_tuned": {
            "kendall_tau": float(tau.mean()),
            "kendall_tau_low": low_high[0],
            "kendall_tau_high": low_high[1],
            "tau_by_task": dict(zip(tasks, tau.round(3).tolist(), strict=True)),
            "correlation_of_differences": float(np.corrcoef(*differences)[0, 1]),
            "same_best": float(np.mean(picked == tuned.argmax(axis=1))),
            "points_lost_by_its_pick": float(100 * (tuned.max(axis=1) - tuned[np.arange(len(tasks)), picked]).mean()),
        },
        "points_lost_by_a_random_pick": float(100 * (tuned.max(axis=1) - tuned.mean(axis=1)).mean()),
        "accuracy": {
            name: {"fine_tuned": float(a), "linear": float(b)}
            for name, a, b in zip(NAMES, tuned.mean(axis=0), linear.mean(axis=0), strict=True)
        },
    }


def main() -> None:
    """Fine-tune all cells, compare."""
    arguments = parser(__doc__)
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--rate", type=float, default=2e-4)
    arguments.add_argument("--tasks", nargs="*", default=list(CHOSEN))
    args = arguments.parse_args()
    cells = []
    for task in tqdm(args.tasks, desc="fine-tuning", unit="task"):
        for name in NAMES:
            path = args.cache / f"{args.epochs}-{args.rate:g}" / f"{name.replace('/', '--')}-{task}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, fine_tune(name, task, epochs=args.epochs, rate=args.rate))
            cells.append(json.loads(path.read_text(encoding="utf-8")))
    document = {"epochs": args.epochs, "rate": args.rate, "batch": BATCH, "agreement": agreement(cells)}
    if args.tasks == list(CHOSEN):
        write("fine_tune", document | {"cells": cells, "versions": library_versions()})
    print(json.dumps(document["agreement"], indent=1))


if __name__ == "__main__":
    main()
