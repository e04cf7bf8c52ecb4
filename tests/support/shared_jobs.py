"""Run embeddings shared among forked processes; a script, because forking is safe only before any computation.

    python -m tests.support.shared_jobs FOLDER '{"2": [{"name": "few", "count": 5}]}'

Jobs are listed by number of processes. Process R of W writes ``FOLDER/NAME.W.R.npz`` and ``.json`` for each of its
jobs, and its standard error to ``FOLDER/W.R.log``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import datasets  # noqa: F401 (once for all, before the processes are forked)
import numpy as np
import scipy.optimize  # noqa: F401
import torch
from accelerate import Accelerator, debug_launcher

from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.errors import DistributedError
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task
from tests.support.synthetic import dataset, tiny_probe, to_tensor


def embed_and_write(job: dict[str, Any], folder: Path, label: str, accelerator: Accelerator | None) -> None:
    rank = accelerator.process_index if accelerator is not None else 0
    calls = []

    def transform(image: Any) -> torch.Tensor:
        calls.append(1)
        return to_tensor(image)

    plain = tiny_probe()
    probe = Probe.wrap(plain.module, transform=transform, feature_dim=16, input_size=(3, 16, 16), name="tiny")
    seed = rank if job.get("other_sample") else 0
    task = Task.from_dataset(dataset(job["count"]), max_samples=job.get("samples"), seed=seed)
    path = folder / f"{job['name']}.{label}.{rank}.json"
    try:
        embedding = embed_task(task, probe, accelerator=accelerator, batch_size=job.get("batch_size", 4), progress=True)
    except DistributedError as error:  # in every process alike
        path.write_text(json.dumps({"error": f"DistributedError: {error}"}))
        return
    path.write_text(json.dumps({"descriptors": embedding.descriptors, "calls": len(calls)}))
    arrays = {name: getattr(embedding, name) for name in ("values", "feature_mean", "feature_var")}
    np.savez(path.with_suffix(".npz"), **arrays)


def work(jobs: list[dict[str, Any]], folder: Path, label: str) -> None:
    """Do the jobs in one of several processes."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    log = os.open(folder / f"{label}.{accelerator.process_index}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
    logging.getLogger("hf_task2vec.tasks.progress").setLevel(logging.INFO)
    for job in jobs:
        embed_and_write(job, folder, label, accelerator)


if __name__ == "__main__":
    target, worlds = Path(sys.argv[1]), json.loads(sys.argv[2])
    for label, jobs in worlds.items():
        if label != "1":
            debug_launcher(work, (jobs, target, label), num_processes=int(label))
    for job in worlds.get("1", ()):
        embed_and_write(job, target, "1", None)
