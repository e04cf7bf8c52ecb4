"""Measure how well a checkpoint's frozen features solve a task."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hf_task2vec.average_precision import LabelScores
from hf_task2vec.batches import ImageBatches, default_batch_size
from hf_task2vec.devices import lay_out
from hf_task2vec.errors import LabelError, ProbeError, Task2VecError
from hf_task2vec.prediction import Measured
from hf_task2vec.probe import Probe
from hf_task2vec.transferability import (
    Predictions,
    h_score,
    knn_label_scores,
    knn_leave_one_out,
    logme,
    ridge_label_scores,
    ridge_leave_one_out,
)

if TYPE_CHECKING:
    from torch import Tensor

    from hf_task2vec.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Transfer:
    """What frozen features of one checkpoint reach on one task.

    Attributes
    ----------
    linear, knn
        Leave-one-out decisions of a linear probe and of five nearest neighbours: ``.accuracy``, ``.std_error`` and
        ``.correct`` for each example.
    logme, h_score
        Transferability scores without training (see `hf_task2vec.transferability`).
    n_samples, feature_dim
        N and d.
    seconds
        Wall time of extracting and of evaluating the features.
    """

    linear: Predictions
    knn: Predictions
    logme: float
    h_score: float
    n_samples: int
    feature_dim: int
    seconds: float

    @property
    def measured(self) -> Measured:
        """The linear probe's accuracy, as a prediction takes it in."""
        return Measured(self.linear.accuracy, self.n_samples)


@dataclass(frozen=True, eq=False)
class MultiLabelTransfer:
    """What frozen features of one checkpoint reach on one task with several labels an image.

    Attributes
    ----------
    linear, knn
        Leave-one-out scores of a linear probe and of five nearest neighbours for every label:
        ``.mean_average_precision``, ``.std_error``, and ``.average_precisions`` of each label.
    n_samples, feature_dim
        N and d.
    seconds
        Wall time of extracting and of evaluating the features.
    """

    linear: LabelScores
    knn: LabelScores
    n_samples: int
    feature_dim: int
    seconds: float

    @property
    def measured(self) -> Measured:
        """The linear probe's mAP, as a prediction takes it in."""
        return Measured.with_std_error(self.linear.mean_average_precision, self.linear.std_error)


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
    with tqdm(total=len(task), desc=probe.name, unit="img", disable=not progress, leave=False) as bar:
        for images, _ in batches:
            parts.append(probe.features(images))
            bar.update(len(images))
        # Fetched at the end: a copy waits until the device has computed it, and the device then for the host.
        features: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return features


def measure(
    checkpoint: str | Probe,
    task: Task,
    *,
    batch_size: int | None = None,
    device: str | None = None,
    token: str | None = None,
    progress: bool = False,
) -> Transfer | MultiLabelTransfer:
    """Extract a checkpoint's features on a task and evaluate them.

    Parameters
    ----------
    checkpoint
        Hub id, local folder, or a probe.
    task
        Every image is used, each judged by a classifier that has not seen it. With one label an image the result says
        how many are classified rightly, with several how well each label is found (mAP).
    batch_size, device, progress
        As in :func:`~hf_task2vec.embed.embed_task`.
    token
        Hub token for gated and private checkpoints.

    Returns
    -------
    Transfer or MultiLabelTransfer
        By the task's labels.

    Raises
    ------
    LabelError
        The task is multi-label and no label tells some images of the sample from others.
    ProbeError, HubError
        The checkpoint cannot be loaded, fails on the images or runs out of memory, or gives features that are not
        finite.
    """
    check_measurable(task)
    probe = checkpoint if isinstance(checkpoint, Probe) else Probe.from_pretrained(checkpoint, token=token)
    start = time.perf_counter()
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
    evaluate = measure_label_features if task.label_kind == "multi_label" else measure_features
    return evaluate(features, task.labels, start=start)


def check_measurable(task: Task) -> None:
    """Raise LabelError if checkpoints cannot be measured on a task: see :func:`measure`."""
    if task.label_kind == "multi_label":
        _check_labels_vary(task.labels)


def _check_labels_vary(labels: NDArray[np.int64]) -> None:
    if np.isin(labels.sum(axis=0), (0, len(labels))).all():
        raise LabelError(
            f"in the sample of {len(labels)} images every label is carried by all or by none, so there is nothing to "
            "tell apart; draw more images (max_samples=…)"
        )


def measure_label_features(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, start: float | None = None
) -> MultiLabelTransfer:
    """Evaluate features, shape (N, d), against labels of zeros and ones, shape (N, C); see :func:`measure`."""
    _check_labels_vary(labels)
    start = time.perf_counter() if start is None else start
    x = _checked(features)
    linear, knn = ridge_label_scores(x, labels), knn_label_scores(x, labels)
    return MultiLabelTransfer(linear, knn, len(x), x.shape[1], time.perf_counter() - start)


def _checked(features: NDArray[np.float32]) -> NDArray[np.float64]:
    if not np.isfinite(features).all():
        raise ProbeError("the checkpoint's features are not finite; check its weights and the images' preprocessing")
    return np.asarray(features, dtype=np.float64)


def measure_features(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, start: float | None = None
) -> Transfer:
    """Evaluate features, shape (N, d), against integer labels, shape (N,); see :func:`measure`."""
    if labels.ndim != 1:
        raise LabelError(f"labels of shape {labels.shape} are several an image; measure_label_features evaluates those")
    start = time.perf_counter() if start is None else start
    x = _checked(features)
    return Transfer(
        linear=ridge_leave_one_out(x, labels),
        knn=knn_leave_one_out(x, labels),
        logme=logme(x, labels),
        h_score=h_score(x, labels),
        n_samples=len(x),
        feature_dim=x.shape[1],
        seconds=time.perf_counter() - start,
    )
