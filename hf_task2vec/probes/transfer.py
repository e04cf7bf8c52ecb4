"""Measure how well a checkpoint's frozen features solve a task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from hf_task2vec.errors import LabelError, ProbeError, Task2VecError
from hf_task2vec.probes.batches import ImageBatches, default_batch_size, lay_out
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.scores import Score, mean_average_precision, ridge_leave_one_out, ridge_predictions
from hf_task2vec.tasks import bar

if TYPE_CHECKING:
    from torch import Tensor

    from hf_task2vec.tasks import Task

logger = logging.getLogger(__name__)


def extract_features(
    probe: Probe, task: Task, *, batch_size: int | None = None, progress: bool = False
) -> NDArray[np.float32]:
    """Return the pooled features of all images of a task, shape (N, d)."""
    batch_size = batch_size if batch_size is not None else default_batch_size(probe.device)
    lay_out(probe.module, probe.device)
    batches = ImageBatches(task.images, probe.transform, batch_size=batch_size, device=probe.device)
    parts: list[Tensor] = []
    if progress:
        logger.debug("features by %s", probe.name)
    with bar(probe.name, "img", len(task), shown=progress) as counter:
        for images, _ in batches:
            parts.append(probe.features(images))
            counter.update(len(images))
        # Fetched at the end: a copy waits until the device has computed it, and the device then for the host.
        features: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return features


def linear_probe(
    checkpoint: str | Probe,
    task: Task,
    *,
    batch_size: int | None = None,
    device: str | None = None,
    token: str | None = None,
    progress: bool = False,
) -> Score:
    """Measure how well a linear probe on a checkpoint's frozen features solves a task.

    Parameters
    ----------
    checkpoint
        Hub id, local folder, or a probe.
    task
        Every image is used, each judged by a classifier that has not seen it. With one label an image the score is the
        share that is classified rightly, with several the mean average precision of the labels (mAP).
    batch_size, device, progress
        As in :func:`~hf_task2vec.embedding.embed.embed_task`.
    token
        Hub token for gated and private checkpoints.

    Returns
    -------
    Score
        ``value``, ``std_error`` and ``n``, the number of images.

    Raises
    ------
    LabelError
        The task is multi-label, and no label tells some images of the sample from others.
    ProbeError, HubError
        The checkpoint cannot be loaded, fails on the images or runs out of memory, or gives features that are not
        finite.
    """
    check_measurable(task)
    probe = checkpoint if isinstance(checkpoint, Probe) else Probe.from_pretrained(checkpoint, token=token)
    try:
        if device is not None:
            probe.to(device)
        batch_size = batch_size if batch_size is not None else default_batch_size(probe.device)
        features = extract_features(probe, task, batch_size=batch_size, progress=progress)
    except Task2VecError:
        raise
    # A foreign network may raise anything; whatever it is, this checkpoint cannot be measured, and others can.
    except Exception as error:
        raise ProbeError(
            f"{probe.name!r} fails on the images of {task.dataset!r} (batch_size={batch_size}, device {probe.device}): "
            f"{type(error).__name__}: {error}"
        ) from error
    return score_features(features, task.labels)


def check_measurable(task: Task) -> None:
    """Raise LabelError if no label of a task tells some images of its sample from others."""
    if task.labels.ndim == 2 and np.isin(task.labels.sum(axis=0), (0, len(task.labels))).all():
        raise LabelError(
            f"in the sample of {len(task.labels)} images every label is carried by all or by none, so there is nothing "
            "to tell apart; draw more images (max_samples=…)"
        )


def score_features(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Score:
    """Score features, shape (N, d), by labels of shape (N,), or (N, C) with several an image."""
    x = finite(features)
    if labels.ndim == 1:
        return Score.of_share(float(ridge_leave_one_out(x, labels).mean()), len(x))
    return mean_average_precision(labels > 0, ridge_predictions(x, labels.astype(np.float64)))


def finite(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return features in float64, or raise ProbeError if some are not finite."""
    if not np.isfinite(features).all():
        raise ProbeError("the checkpoint's features are not finite; check its weights and the images' preprocessing")
    return np.asarray(features, dtype=np.float64)
