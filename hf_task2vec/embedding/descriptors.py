"""Label-sensitive numbers that describe a task beside its Fisher vector."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.probes import (
    average_precisions,
    mean_average_precision,
    ridge_leave_one_out,
    ridge_predictions,
)
from hf_task2vec.tasks import say

if TYPE_CHECKING:
    from hf_task2vec.tasks import Task


def describe_task(
    task: Task, features: NDArray[np.float64], intermediate: Sequence[NDArray[np.float64]]
) -> dict[str, float]:
    """Label-sensitive descriptors of a task, which the Fisher vector itself hardly encodes.

    Parameters
    ----------
    task
        The sample.
    features
        The probe's features, shape (N, d).
    intermediate
        Its activations at a third and at two thirds of its depth, shapes (N, ·); see `probes.intermediate`.

    Returns
    -------
    dict
        ``n_classes``; ``n_samples`` (images used) and ``n_rows`` (images in the split); ``class_balance`` (entropy of
        the class frequencies over its maximum, 1 = balanced); ``linear_probe_accuracy`` (leave-one-out accuracy of a
        linear probe, as the index measures checkpoints; with several labels an image, that of telling those with a
        label from those without, half of it each, mean over labels) and ``linear_probe_accuracy_gain`` (what of the
        way from the largest class's share to 1 it covers);
        ``class_separation`` (share of the features' variance between classes, corrected for its expectation under
        random labels); ``early_accuracy_gain`` and ``mid_accuracy_gain`` (as ``linear_probe_accuracy_gain``, of linear
        probes on `intermediate`); with several labels an image, gains are those of the average precision over the share
        of images with a label, the mean over labels; ``median_side_px`` and ``grey_share`` of the images.

        Of a multi-label task also ``probe_map`` and ``probe_map_std_error``: the mean average precision of a linear
        probe, leave-one-out, as :func:`~hf_task2vec.probes.transfer.linear_probe` measures it.
    """
    say("describing the task")
    counts = {"n_samples": float(len(task)), "n_rows": float(task.n_rows)}
    return counts | _classes(task, features, intermediate) | _images(task)


def _classes(
    task: Task, features: NDArray[np.float64], intermediate: Sequence[NDArray[np.float64]]
) -> dict[str, float]:
    labels = task.labels
    counts = np.asarray(task.class_counts, dtype=np.float64)
    frequencies = counts[counts > 0] / counts.sum()
    entropy = float(-(frequencies * np.log(frequencies)).sum())
    early, mid = (_gain(x, labels) for x in intermediate)
    return {
        "n_classes": float(task.num_classes),
        "class_balance": float(entropy / np.log(len(frequencies))) if len(frequencies) > 1 else 1.0,
        **_probe(features, labels),
        "class_separation": class_separation(features, labels),
        "early_accuracy_gain": early,
        "mid_accuracy_gain": mid,
    }


def _probe(features: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    if labels.ndim == 1:
        accuracy = float(ridge_leave_one_out(features, labels).mean())
        return {"linear_probe_accuracy": accuracy, "linear_probe_accuracy_gain": _over_chance(accuracy, labels)}
    predictions = ridge_predictions(features, labels.astype(np.float64))
    facts = {
        "linear_probe_accuracy": _balanced_accuracy(labels > 0, predictions),
        "linear_probe_accuracy_gain": _label_gain(labels > 0, predictions),
    }
    if (labels != labels[0]).any():  # else no label varies in the sample: there is nothing to rank
        score = mean_average_precision(labels > 0, predictions)
        facts |= {"probe_map": score.value, "probe_map_std_error": score.std_error}
    return facts


def _gain(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """What of the way from chance to perfection a linear probe covers."""
    if labels.ndim == 2:
        return _label_gain(labels > 0, ridge_predictions(features, labels.astype(np.float64)))
    return _over_chance(float(ridge_leave_one_out(features, labels).mean()), labels)


def _balanced_accuracy(present: NDArray[np.bool_], predictions: NDArray[np.float64]) -> float:
    """Mean over labels of the accuracy balanced between present and absent; a label's share is its threshold."""
    from sklearn.metrics import balanced_accuracy_score

    share = present.mean(axis=0)
    varied = np.flatnonzero((share > 0) & (share < 1))
    scores = [balanced_accuracy_score(present[:, c], predictions[:, c] > share[c]) for c in varied]
    return float(np.mean(scores)) if scores else 0.5


def _over_chance(accuracy: float, labels: NDArray[np.int64]) -> float:
    chance = float(np.bincount(labels).max() / len(labels))
    return (accuracy - chance) / max(1.0 - chance, 1e-9)


def _label_gain(present: NDArray[np.bool_], predictions: NDArray[np.float64]) -> float:
    """The same by average precision, whose chance is the share of examples with the label; mean over labels."""
    found = average_precisions(present, predictions)
    varied = ~np.isnan(found)
    chance = present.mean(axis=0)[varied]
    return float(np.mean((found[varied] - chance) / (1.0 - chance))) if varied.any() else 0.0


def _images(task: Task) -> dict[str, float]:
    with ThreadPoolExecutor(thread_name_prefix="hf_task2vec-facts") as pool:  # images may still have to be decoded
        sides, grey = zip(*pool.map(lambda i: _image_facts(task.images[i]), range(len(task))), strict=True)
    return {"median_side_px": float(np.median(sides)), "grey_share": float(np.mean(grey))}


def class_separation(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Share of the features' variance that lies between classes, minus what random labels would give (ω²).

    Of several labels an example, shape (N, C), what a linear combination of them explains; of one-hot labels this is
    the same.
    """
    n = len(labels)
    centred = features - features.mean(axis=0)
    total = float(np.sum(centred**2))
    between, k = (_between_classes if labels.ndim == 1 else _explained_by_labels)(centred, labels)
    if total == 0.0 or k < 2 or n <= k:
        return 0.0
    within_mean = (total - between) / (n - k)
    return (between - (k - 1) * within_mean) / (total + within_mean)


def _between_classes(centred: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, int]:
    """Sum of squares of the class means, and the number of classes."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), centred.shape[1]))
    np.add.at(sums, inverse, centred)
    return float(np.sum(sums**2 / counts[:, None])), len(counts)


def _explained_by_labels(centred: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, int]:
    """The same for labels of shape (N, C): sum of squares in the span of the labels, and its dimension plus one."""
    u, s, _ = np.linalg.svd(labels - labels.mean(axis=0), full_matrices=False)
    basis = u[:, s > 1e-9 * np.sqrt(len(labels))]
    return float(np.sum((basis.T @ centred) ** 2)), basis.shape[1] + 1


def _image_facts(image: Any) -> tuple[float, float]:
    """Geometric mean of the sides in px, and 1 if all three channels are equal (checked on a thumbnail)."""
    small = np.asarray(image.resize((16, 16)), dtype=np.int16)
    return float(np.sqrt(image.width * image.height)), float(np.ptp(small, axis=2).max() <= 4)
