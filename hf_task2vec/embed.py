"""Make a task embedding: images, features, head, Fisher information."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from hf_task2vec.batches import ImageBatches
from hf_task2vec.distance import log_correlation
from hf_task2vec.embedding import TaskEmbedding, embedding_config
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.fisher import FisherSums, diagonal_fisher
from hf_task2vec.head import cross_validated_accuracy, fit_head, stratified_folds
from hf_task2vec.probe import Probe
from hf_task2vec.seeds import SAMPLINGS
from hf_task2vec.transferability import ridge_leave_one_out

if TYPE_CHECKING:
    from hf_task2vec.task import Task

logger = logging.getLogger(__name__)


def embed_task(
    task: Task,
    probe: Probe | None = None,
    *,
    label_sampling: str = "sketch",
    draws: int = 1,
    batch_size: int = 16,
    seed: int = 0,
    device: str | None = None,
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
    label_sampling, draws, seed
        See :func:`~hf_task2vec.fisher.diagonal_fisher`.
    batch_size
        Images per forward and backward pass. It changes memory and speed, not the result beyond rounding.
    device
        Torch device such as ``"cuda"``; None leaves the probe where it is.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    TaskEmbedding

    Raises
    ------
    FisherError
        The probe's outputs are not finite, or the same for all images.
    EmbeddingError
        An argument is out of range.
    """
    _check_arguments(label_sampling, draws=draws, batch_size=batch_size, seed=seed)
    probe = probe if probe is not None else Probe.default()
    if device is not None:
        probe = probe.to(device)
    config = embedding_config(label_sampling, draws, seed)
    return _compute(task, probe, config, batch_size=batch_size, progress=progress)


def _check_arguments(label_sampling: str, **counts: int) -> None:
    if label_sampling not in SAMPLINGS:
        raise EmbeddingError(f"label_sampling={label_sampling!r} is unknown; choose one of {', '.join(SAMPLINGS)}")
    for name, value in counts.items():
        least = 0 if name == "seed" else 1
        if value < least:
            raise EmbeddingError(f"{name}={value} must be at least {least}")


def _compute(task: Task, probe: Probe, config: dict[str, Any], *, batch_size: int, progress: bool) -> TaskEmbedding:
    device = probe.device
    batches = ImageBatches(task.images, probe.transform, batch_size=batch_size, device=device, keep=True)
    logger.info(
        "embedding %s: %d images, %d classes, probe %s on %s",
        task.dataset,
        len(task),
        task.num_classes,
        probe.name,
        device,
    )
    with tqdm(total=2 * len(task), desc="features", unit="img", disable=not progress, leave=False) as bar:
        features = []
        for images, _ in batches:
            features.append(probe.features(images).cpu().numpy().astype(np.float64))
            bar.update(len(images))
        z = np.concatenate(features)
        head = fit_head(z, task.labels, task.num_classes)
        bar.set_description("Fisher")
        sums = diagonal_fisher(
            probe,
            _counted(batches, bar),
            head=head,
            halves=stratified_folds(task.labels, 2, seed=0),
            **config,
        )
    return TaskEmbedding(
        values=sums.mean().astype(np.float32),
        layer_names=tuple(layer.name for layer in probe.layers),
        layer_sizes=np.array([layer.n_filters for layer in probe.layers], dtype=np.int64),
        feature_mean=z.mean(axis=0).astype(np.float32),
        feature_var=z.var(axis=0).astype(np.float32),
        probe=probe.config,
        task=task.describe(),
        descriptors=describe_task(task, z, sums),
        config=config,
        versions=library_versions(),
    )


def _counted(batches: ImageBatches, bar: Any) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
    for images, ids in batches:
        yield images, ids
        bar.update(len(images))


def describe_task(task: Task, features: NDArray[np.float64], sums: FisherSums) -> dict[str, float]:
    """Label-sensitive descriptors of a task, which the Fisher vector itself hardly encodes.

    Parameters
    ----------
    task
        The sample.
    features
        The probe's features, shape (N, d).
    sums
        The Fisher sums, whose halves tell the noise of the estimate.

    Returns
    -------
    dict
        ``n_classes``; ``n_samples`` (images used) and ``n_rows`` (images in the split); ``class_balance`` (entropy of
        the class frequencies over its maximum, 1 = balanced); ``probe_accuracy`` (leave-one-out accuracy of a
        linear probe, as the index measures checkpoints; for multi-label tasks see
        :func:`~hf_task2vec.head.cross_validated_accuracy`) and ``probe_accuracy_gain`` (what of the way from the
        largest class's share to 1 it covers);
        ``class_separation`` (share of the features' variance between classes, corrected for its expectation under
        random labels); ``median_side_px`` and ``grey_share`` of the images; ``noise`` (log-correlation distance
        between the two half-sample embeddings, halved).
    """
    labels = task.labels
    counts = np.asarray(task.class_counts, dtype=np.float64)
    frequencies = counts[counts > 0] / counts.sum()
    entropy = float(-(frequencies * np.log(frequencies)).sum())
    if labels.ndim == 1:
        accuracy = ridge_leave_one_out(features, labels).accuracy
    else:
        accuracy = cross_validated_accuracy(features, labels, task.num_classes)
    chance = 0.5 if labels.ndim == 2 else float(np.bincount(labels).max() / len(labels))
    sides, grey = zip(*(_image_facts(task.images[i]) for i in range(len(task))), strict=True)
    sizes = np.array([layer.n_filters for layer in sums.layers], dtype=np.int64)
    noise = log_correlation(*sums.halves(), sizes) / 2 if sums.counts.min() > 0 else 1.0
    return {
        "n_classes": float(task.num_classes),
        "n_samples": float(len(task)),
        "n_rows": float(task.n_rows),
        "class_balance": float(entropy / np.log(len(frequencies))) if len(frequencies) > 1 else 1.0,
        "probe_accuracy": accuracy,
        "probe_accuracy_gain": (accuracy - chance) / max(1.0 - chance, 1e-9),
        "class_separation": class_separation(features, labels),
        "median_side_px": float(np.median(sides)),
        "grey_share": float(np.mean(grey)),
        "noise": float(noise),
    }


def class_separation(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Share of the features' variance that lies between classes, minus what random labels would give (ω²).

    For multi-label tasks, the mean over labels.
    """
    if labels.ndim == 2:
        shares = [class_separation(features, labels[:, j].astype(np.int64)) for j in range(labels.shape[1])]
        return float(np.mean(shares))
    n = len(labels)
    centred = features - features.mean(axis=0)
    total = float(np.sum(centred**2))
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    k = len(classes)
    if total == 0.0 or k < 2 or n <= k:
        return 0.0
    sums = np.zeros((k, features.shape[1]))
    np.add.at(sums, inverse, centred)
    between = float(np.sum(sums**2 / counts[:, None]))
    within_mean = (total - between) / (n - k)
    return (between - (k - 1) * within_mean) / (total + within_mean)


def _image_facts(image: Any) -> tuple[float, float]:
    """Geometric mean of the sides in px, and 1 if all three channels are equal (checked on a thumbnail)."""
    small = np.asarray(image.resize((16, 16)), dtype=np.int16)
    return float(np.sqrt(image.width * image.height)), float(np.ptp(small, axis=2).max() <= 4)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that an embedding's values depend on."""
    import hf_task2vec

    names = ("torch", "timm", "transformers", "datasets", "pillow", "numpy")
    return {"hf_task2vec": hf_task2vec.__version__} | {name: importlib.metadata.version(name) for name in names}
