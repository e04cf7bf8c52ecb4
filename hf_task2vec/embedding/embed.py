"""Make a task embedding: images, features, head, Fisher information; in one process or several."""

from __future__ import annotations

import functools
import importlib.metadata
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_task2vec.embedding.computing import Computing
from hf_task2vec.embedding.descriptors import describe_task
from hf_task2vec.embedding.distance import log_correlation
from hf_task2vec.embedding.task_embedding import TaskEmbedding, embedding_config
from hf_task2vec.errors import DistributedError, EmbeddingError, check_count
from hf_task2vec.fisher import (
    ROUNDS,
    SAMPLINGS,
    FisherSums,
    Head,
    diagonal_fisher,
    fit_head,
    gather,
    stratified_folds,
    variational_fisher,
)
from hf_task2vec.probes import ImageBatches, IntermediateReader, Probe, default_batch_size, lay_out
from hf_task2vec.tasks import bar, say

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState
    from tqdm import tqdm

    from hf_task2vec.tasks import Task

ESTIMATORS = ("fisher", "variational")


def embed_task(
    task: Task,
    probe: Probe | None = None,
    *,
    estimator: str = "fisher",
    label_sampling: str = "sketch",
    batch_size: int | None = None,
    seed: int = 0,
    device: str | None = None,
    accelerator: Accelerator | PartialState | None = None,
    progress: bool = False,
) -> TaskEmbedding:
    """Embed a task: fit a head on the probe's features, then average its Fisher information per filter.

    The method of Achille et al. 2019 (arXiv 1902.03545), section 2, with exact per-example squares.

    Parameters
    ----------
    task
        The sample to embed.
    probe
        Probe network; None takes :meth:`Probe.default`, whose weights are installed with this package.
    estimator
        ``"fisher"``, or ``"variational"``: the Fisher information averaged over the noise that the filters bear, at
        nine times the cost (see :func:`~hf_task2vec.fisher.variational.variational_fisher`).
    label_sampling, seed
        See :func:`~hf_task2vec.fisher.diagonal.diagonal_fisher`.
    batch_size
        Images per forward and backward pass; None takes what suits the device. It changes memory and speed, not the
        result beyond rounding.
    device
        Torch device such as ``"cuda"``; None leaves the probe where it is, or takes the accelerator's.
    accelerator
        Share the images, batch by batch, among the processes of an `accelerate.Accelerator`; every process calls this
        function with the same task and gets the same embedding as one alone. No image is counted twice.
    progress
        Show a progress bar on stderr (of the main process).

    Returns
    -------
    TaskEmbedding

    Raises
    ------
    FisherError
        The probe's outputs are not finite, or the same for all images.
    EmbeddingError
        An argument is out of range.
    DistributedError
        The processes were given different tasks, probes or settings.
    """
    _check_process()
    config = _checked_config(label_sampling, seed, estimator)
    computing = Computing(device, batch_size, progress=progress)
    probe = _placed(Probe.default() if probe is None else probe, computing, accelerator)
    with _shared(task, probe, config, computing, accelerator) as images:
        features, *intermediate = images.features()
        head = images.head(features)
        sums = images.fisher(head, features, **config)
    return TaskEmbedding(
        values=sums.mean().astype(np.float32)[None],
        layer_names=tuple(layer.name for layer in probe.layers),
        layer_sizes=np.array([layer.n_filters for layer in probe.layers], dtype=np.int64),
        feature_mean=features.mean(axis=0, keepdims=True).astype(np.float32),
        feature_var=features.var(axis=0, keepdims=True).astype(np.float32),
        probe=probe.config,
        tasks=(task.describe(),),
        task_descriptors=({**describe_task(task, features, intermediate), "noise": split_half_distance(sums)},),
        config=config,
        versions=library_versions(),
    )


@dataclass(frozen=True)
class _Images:
    """The images of a task that this process passes through the probe; what they give is gathered from all."""

    task: Task
    probe: Probe
    batches: ImageBatches
    positions: NDArray[np.int64]
    """Which images of the task `batches` holds."""
    accelerator: Accelerator | PartialState | None
    bar: tqdm[Any]

    def __iter__(self) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        for batch, at in self.batches:
            yield batch, self.positions[at]
            self.bar.update(len(batch))

    def features(self) -> list[NDArray[np.float64]]:
        """Features of all images, and their intermediate ones at each depth, shapes (N, ·), in every process."""
        reader = IntermediateReader(self.probe)
        ids, parts = [], []
        for batch, positions in self:
            ids.append(positions)
            parts.append(reader.read(batch))
        # Fetched at the end: a copy waits until the device has computed it, and the device then for the host.
        mine = [torch.cat(table).cpu().numpy() for table in zip(*parts, strict=True)]
        gathered = [part for part in gather((ids, mine), self.accelerator) if part[0]]
        order = np.concatenate([positions for part_ids, _ in gathered for positions in part_ids])
        tables = (np.concatenate(rows) for rows in zip(*(tables for _, tables in gathered), strict=True))
        found = []
        for rows in tables:
            table = np.empty((len(self.task), rows.shape[1]))
            table[order] = rows
            found.append(table)
        return found

    def head(self, features: NDArray[np.float64]) -> Head:
        """The head of the main process, in every process."""
        self.bar.set_description("head")
        alone = self.accelerator is None or self.accelerator.is_main_process
        head = fit_head(features, self.task.labels, self.task.num_classes) if alone else None
        head = gather(head, self.accelerator)[0]
        assert head is not None
        return head

    def fisher(
        self, head: Head, features: NDArray[np.float64], label_sampling: str, seed: int, estimator: str = "fisher"
    ) -> FisherSums:
        """Sums over all images, in every process."""
        self.bar.set_description("Fisher")
        halves = stratified_folds(self.task.labels, 2, seed=0)

        def fisher_of(network: Probe) -> FisherSums:
            known = features if network is self.probe else None  # other weights give other features
            part = diagonal_fisher(
                network, self, head=head, label_sampling=label_sampling, seed=seed, halves=halves, features=known
            )
            return functools.reduce(operator.add, gather(part, self.accelerator))

        return fisher_of(self.probe) if estimator == "fisher" else variational_fisher(self.probe, fisher_of, seed=seed)


@contextmanager
def _shared(
    task: Task,
    probe: Probe,
    config: dict[str, Any],
    computing: Computing,
    accelerator: Accelerator | PartialState | None,
) -> Iterator[_Images]:
    """Share the images among the processes, and show a bar over all passes."""
    rank, count = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    _check_same(task, probe, config, accelerator)
    if rank == 0:
        what = "embedding %s: %d images, %d classes, probe %s on %s, %d process(es)"
        say(what, task.dataset, len(task), task.num_classes, probe.name, probe.device, count)
    batch_size = computing.batch_size or default_batch_size(probe.device)
    # Whole batches are shared: each then holds the same images, and gives the same rounding errors, as in one process.
    # The head would amplify others.
    mine = np.flatnonzero(np.arange(len(task)) // batch_size % count == rank)
    batches = ImageBatches(
        task.images.take(mine), probe.transform, batch_size=batch_size, device=probe.device, keep=True
    )
    lay_out(probe.module, probe.device)
    total = len(mine) * (2 if "estimator" not in config else 2 + 2 * ROUNDS)
    with bar("features", "img", total, shown=computing.progress and rank == 0) as counter:
        yield _Images(task, probe, batches, mine, accelerator, counter)


_computing: list[int] = []  # the process in which this package first computed


def _check_process() -> None:
    """Raise where PyTorch would wait for ever for threads of the parent, which a fork does not copy."""
    _computing[:] = _computing or [os.getpid()]
    if _computing[0] != os.getpid() and torch.get_num_threads() > 1:
        raise EmbeddingError(
            "this process was forked from one that had embedded a task already, whose PyTorch threads it lacks. What "
            'would work: multiprocessing.get_context("spawn"), loading and using hf_task2vec in the workers only '
            "(gunicorn without --preload), or torch.set_num_threads(1) before the first embedding"
        )


def _checked_config(label_sampling: str, seed: int, estimator: str) -> dict[str, Any]:
    if estimator not in ESTIMATORS:
        raise EmbeddingError(f"estimator={estimator!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    if label_sampling not in SAMPLINGS:
        raise EmbeddingError(f"label_sampling={label_sampling!r} is unknown; choose one of {', '.join(SAMPLINGS)}")
    check_count(EmbeddingError, 0, seed=seed)
    return embedding_config(label_sampling, seed, estimator)


def _placed(probe: Probe, computing: Computing, accelerator: Accelerator | PartialState | None) -> Probe:
    device = computing.device if accelerator is None else computing.device or accelerator.device
    return probe if device is None else probe.to(device)


def _check_same(
    task: Task, probe: Probe, config: dict[str, Any], accelerator: Accelerator | PartialState | None
) -> None:
    """Images are shared by their position in the sample, so all processes must have drawn the same one."""
    if accelerator is not None and accelerator.num_processes > 1:
        jobs = gather({"task": task.fingerprint, "probe": probe.weights_hash, "settings": config}, accelerator)
        for what in ("task", "probe", "settings"):
            if any(job[what] != jobs[0][what] for job in jobs):
                raise DistributedError(f"the processes were given different {what}: {[job[what] for job in jobs]}")


def split_half_distance(sums: FisherSums) -> float:
    """Log-correlation distance between the estimates by two halves of the images, divided by two; 1 if one is empty."""
    if sums.counts.min() == 0:
        return 1.0
    sizes = np.array([layer.n_filters for layer in sums.layers], dtype=np.int64)
    first, second = sums.halves()
    return float(log_correlation(first[None], second[None], sizes)[0, 0]) / 2


def library_versions() -> dict[str, str]:
    """Versions of the libraries that an embedding's values depend on."""
    import hf_task2vec

    names = ("torch", "timm", "transformers", "datasets", "pillow", "numpy")
    return {"hf_task2vec": hf_task2vec.__version__} | {name: importlib.metadata.version(name) for name in names}
