"""Make a task embedding: images, features, head, Fisher information; in one process or several."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import logging
import operator
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from hf_task2vec.batches import ImageBatches, default_batch_size
from hf_task2vec.depth import DepthReader
from hf_task2vec.descriptors import describe_task
from hf_task2vec.devices import AUTOCASTS, lay_out, rows_on_host
from hf_task2vec.distance import log_correlation
from hf_task2vec.embedding import TaskEmbedding, embedding_config, sample_settings
from hf_task2vec.embedding_file import Unfinished
from hf_task2vec.errors import DistributedError, EmbeddingError
from hf_task2vec.fisher import FisherSums, diagonal_fisher
from hf_task2vec.head import Head, fit_head, stratified_folds
from hf_task2vec.probe import Probe
from hf_task2vec.processes import Processes
from hf_task2vec.seeds import SAMPLINGS
from hf_task2vec.variational import ROUNDS, variational_fisher

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hf_task2vec.task import Task

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]

ESTIMATORS = ("fisher", "variational")
# Images after which the noise is looked at, with a tolerance; each step is at most half as much again.
_STAGES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

# Images after which the Fisher sums are kept, without a tolerance.
_PART = 256


def embed_task(
    task: Task,
    probe: Probe | None = None,
    *,
    estimator: str = "fisher",
    label_sampling: str = "sketch",
    draws: int = 1,
    noise_tolerance: float | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | None = None,
    autocast: str | None = None,
    accelerator: Accelerator | None = None,
    keep: str | os.PathLike[str] | None = None,
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
        nine times the cost (see :func:`~hf_task2vec.variational.variational_fisher`).
    label_sampling, draws, seed
        See :func:`~hf_task2vec.fisher.diagonal_fisher`.
    noise_tolerance
        Stop averaging as soon as the embeddings of two halves of the images seen so far, divided by two, agree to
        within this log-correlation distance (0.05 is a good value); looked at after 64, 96, 128, 192, ... images. None
        uses all images. The head is fitted on all of them either way.
    batch_size
        Images per forward and backward pass; None takes what suits the device. It changes memory and speed, not the
        result beyond rounding.
    device
        Torch device such as ``"cuda"``; None leaves the probe where it is, or takes the accelerator's.
    autocast
        ``"bf16"`` runs the network of the Fisher information in bfloat16 (see
        :func:`~hf_task2vec.fisher.diagonal_fisher`); features, head and descriptors stay in full precision.
    accelerator
        Share the images, batch by batch, among the processes of an `accelerate.Accelerator`; every process calls this
        function with the same task and gets the same embedding as one alone. No image is counted twice.
    keep
        File for what is finished of the embedding: the features, and the Fisher sums after every 256 images. Should the
        work be interrupted, the same call goes on from there; the file is removed in the end. It must belong to this
        task, probe and settings alone, see :func:`~hf_task2vec.cache.unfinished_file`. Not used by several processes.
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
        Another process failed.
    """
    _check_arguments(
        estimator,
        label_sampling,
        noise_tolerance,
        autocast,
        draws=draws,
        batch_size=1 if batch_size is None else batch_size,
        seed=seed,
    )
    config = embedding_config(label_sampling, draws, seed, noise_tolerance, estimator, autocast)
    processes = Processes(accelerator)
    with processes.together():
        probe = probe if probe is not None else Probe.default()
        if device is not None or accelerator is not None:
            probe = probe.to(device if device is not None else accelerator.device)  # type: ignore[union-attr]
        _check_same(processes, task, probe, config)
        run = _Run(task, probe, processes, batch_size, progress)
        return run.embed(config, Unfinished(None if keep is None or processes.count > 1 else Path(keep)))


def _check_arguments(
    estimator: str, label_sampling: str, noise_tolerance: float | None, autocast: str | None, **counts: int
) -> None:
    if estimator not in ESTIMATORS:
        raise EmbeddingError(f"estimator={estimator!r} is unknown; choose one of {', '.join(ESTIMATORS)}")
    if estimator == "variational" and noise_tolerance is not None:
        raise EmbeddingError("noise_tolerance works with estimator='fisher' only; the variational one uses all images")
    if label_sampling not in SAMPLINGS:
        raise EmbeddingError(f"label_sampling={label_sampling!r} is unknown; choose one of {', '.join(SAMPLINGS)}")
    if autocast is not None and autocast not in AUTOCASTS:
        raise EmbeddingError(f"autocast={autocast!r} is unknown; choose {', '.join(AUTOCASTS)}, or None")
    sample_settings(None, noise_tolerance)
    for name, value in counts.items():
        least = 0 if name == "seed" else 1
        if value < least:
            raise EmbeddingError(f"{name}={value} must be at least {least}")


def _check_same(processes: Processes, task: Task, probe: Probe, config: dict[str, Any]) -> None:
    """Images are shared by their position in the sample, so all processes must have drawn the same one."""
    if processes.count > 1:
        jobs = processes.gather({"task": task.fingerprint, "probe": probe.weights_hash, "settings": config})
        for what in ("task", "probe", "settings"):
            if any(job[what] != jobs[0][what] for job in jobs):
                raise DistributedError(f"the processes were given different {what}: {[job[what] for job in jobs]}")


def _show(bar: Any, stage: str) -> None:
    bar.set_description(stage)
    logger.debug(stage, extra={"stage": ""})


class _Run:
    """One embedding in the making, in one of the processes that share it."""

    def __init__(self, task: Task, probe: Probe, processes: Processes, batch_size: int | None, progress: bool) -> None:
        self.task, self.probe, self.processes = task, probe, processes
        batch_size = batch_size if batch_size is not None else default_batch_size(probe.device)
        # Whole batches are shared: each then holds the same images, and gives the same rounding errors, as in one
        # process. The head would amplify others.
        batches = [range(i, min(i + batch_size, len(task))) for i in range(0, len(task), batch_size)]
        self.mine = np.array([i for batch in processes.share(batches) for i in batch], dtype=np.int64)
        self.batches = ImageBatches(
            task.images.take(self.mine), probe.transform, batch_size=batch_size, device=probe.device, keep=True
        )
        lay_out(probe.module, probe.device)
        self.show = progress and processes.is_main

    def embed(self, config: dict[str, Any], unfinished: Unfinished) -> TaskEmbedding:
        """Run the passes, or what is left of them."""
        task, probe = self.task, self.probe
        if self.processes.is_main:
            what = "embedding %s: %d images, %d classes, probe %s on %s, %d process(es)"
            names = (task.dataset, len(task), task.num_classes, probe.name, probe.device, self.processes.count)
            logger.info(what, *names)
        n_filters = sum(layer.n_filters for layer in probe.layers)
        unfinished.check(features=(len(task), None), widths=(None,), sums=(2, n_filters), counts=(2,))
        logger.debug("features", extra={"stage": ""})  # the bar takes its place
        passes = 2 if config.get("estimator") is None else 2 + 2 * ROUNDS
        with tqdm(
            total=passes * len(self.mine), desc="features", unit="img", disable=not self.show, leave=False
        ) as bar:
            if {"features", "widths"} <= unfinished.parts.keys():
                found, widths = unfinished.parts["features"], unfinished.parts["widths"]
                bar.update(len(found))
            else:
                found, widths = self._features(bar)
                unfinished.keep(features=found, widths=widths)
            z, *depths = np.split(found, np.cumsum(widths)[:-1], axis=1)
            z = np.ascontiguousarray(z)
            _show(bar, "head")
            head = self.processes.of_main(lambda: fit_head(z, task.labels, task.num_classes))
            _show(bar, "Fisher")
            sums = self._fisher(head, z, config, bar, unfinished)
        logger.debug("describing the task", extra={"stage": "describing the task"})
        embedding = TaskEmbedding(
            values=sums.mean().astype(np.float32),
            layer_names=tuple(layer.name for layer in probe.layers),
            layer_sizes=np.array([layer.n_filters for layer in probe.layers], dtype=np.int64),
            feature_mean=z.mean(axis=0).astype(np.float32),
            feature_var=z.var(axis=0).astype(np.float32),
            probe=probe.config,
            task=task.describe(),
            descriptors={
                **describe_task(task, z, depths),
                "n_fisher": float(sums.counts.sum()),
                "noise": noise_of(sums),
            },
            config=config,
            versions=library_versions(),
        )
        unfinished.discard()
        return embedding

    def _features(self, bar: Any) -> tuple[Array, NDArray[np.int64]]:
        """Features and activations at `DEPTHS` side by side (N, ·), in every process, and how wide each is."""
        reader = DepthReader(self.probe)
        widths: list[int] = []

        def parts() -> Iterator[Tensor]:
            for images, _ in self.batches:
                tables = reader.read(images)
                widths[:] = [table.shape[1] for table in tables]
                yield torch.cat(tables, dim=1)
                bar.update(len(images))

        gathered = [part for part in self.processes.gather((self.mine, rows_on_host(parts()), widths)) if len(part[0])]
        found = np.empty((len(self.task), sum(gathered[0][2])))
        for positions, rows, _ in gathered:
            found[positions] = rows
        return found, np.array(gathered[0][2], dtype=np.int64)

    def _fisher(self, head: Head, z: Array, config: dict[str, Any], bar: Any, unfinished: Unfinished) -> FisherSums:
        """Fisher sums over all images, or over as many as the tolerance asks for, in every process."""
        n, tolerance = len(self.task), config.get("noise_tolerance")
        halves = stratified_folds(self.task.labels, 2, seed=0)
        settings = {name: config[name] for name in ("label_sampling", "draws", "seed", "autocast") if name in config}

        def sums(start: int, end: int, weights: Mapping[str, Tensor] | None = None) -> FisherSums:
            images = self._between(start, end, bar)
            part = diagonal_fisher(
                self.probe,
                images,
                head=head,
                labels=self.task.labels,
                halves=halves,
                weights=weights,
                features=None if weights else z,  # other weights give other features
                **settings,
            )
            return functools.reduce(operator.add, self.processes.gather(part))

        if config.get("estimator") == "variational":
            return variational_fisher(self.probe, lambda weights: sums(0, n, weights), seed=config["seed"])
        stages = range(_PART, n, _PART) if tolerance is None else [stage for stage in _STAGES if stage < n]
        total: FisherSums | None = None
        done = 0
        if {"sums", "counts"} <= unfinished.parts.keys():
            total = FisherSums(self.probe.layers, unfinished.parts["sums"], unfinished.parts["counts"])
            done = int(total.counts.sum())
            bar.update(done)
            if tolerance is not None and noise_of(total) <= tolerance:
                return total
        for start, end in itertools.pairwise([done, *(stage for stage in stages if stage > done), n]):
            part = sums(start, end)
            total = part if total is None else total + part
            if end < n:
                unfinished.keep(sums=total.sums, counts=total.counts)
            if tolerance is not None and noise_of(total) <= tolerance:
                break
        assert total is not None
        return total

    def _between(self, start: int, end: int, bar: Any) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
        first, last = np.searchsorted(self.mine, [start, end])
        for images, positions in self.batches.between(int(first), int(last)):
            yield images, self.mine[positions]
            bar.update(len(images))


def noise_of(sums: FisherSums) -> float:
    """Noise of an estimate: log-correlation distance between its two halves, divided by two; 1 with an empty half."""
    if sums.counts.min() == 0:
        return 1.0
    sizes = np.array([layer.n_filters for layer in sums.layers], dtype=np.int64)
    return log_correlation(*sums.halves(), sizes) / 2


def library_versions() -> dict[str, str]:
    """Versions of the libraries that an embedding's values depend on."""
    import hf_task2vec

    names = ("torch", "timm", "transformers", "datasets", "pillow", "numpy")
    return {"hf_task2vec": hf_task2vec.__version__} | {name: importlib.metadata.version(name) for name in names}
