"""A learned, asymmetric score of two embeddings: does one task contain the other? Part of ``containment.py``.

A task contains another if it has all its classes and more: telling animals apart contains telling dogs apart. No
symmetric distance can say which of two tasks contains which, and Task2Vec's asymmetric one was made for transfer.
Daroya et al. (Task2Box, CVPR 2024, arXiv 2403.17173) let a network place a box for every task; the share of one box
that lies in another says whether the one task is part of the other. Here a task's box is given, not learned: intervals
of the probe's features about their means, which any task has, however unlike those learned from. Learned is how far to
trust a few statistics of two such boxes, by a logistic regression on them and their products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

from hf_task2vec import TaskEmbedding
from hf_task2vec.embedding.distance import log_profile

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: What a model sees of two tasks; see :func:`pair_statistics`.
STATISTICS = (
    "shift_by_general", "shift_by_special", "shift_of_sums", "spread_mean", "spread_deviation", "reach_90", "reach_99",
    "overlap", "within_ratio", "class_ratio", "fisher_distance", "fisher_level",
)  # fmt: skip
#: Half the side of a task's box, in standard deviations of each feature.
HALF_SIDE = 1.5
#: Weight of half the squared weights beside the mean loss.
L2 = 1e-3
# Shares of a task's mean variance, and of a squared shift, below which all is alike.
_VARIANCE_FLOOR, _SHIFT_FLOOR = 0.01, 1e-3
# Statistics farther from the training pairs' mean than this many standard deviations say no more.
_CLIP = 5.0


@dataclass(frozen=True, eq=False)
class _Stack:
    """n tasks as arrays: moments of their features, shape (n, d), and the rest, shape (n,) or (n, F)."""

    mean: Array
    var: Array
    noise: Array
    within: Array
    classes: Array
    profile: Array
    level: Array

    @classmethod
    def of(cls, embeddings: Sequence[TaskEmbedding]) -> _Stack:
        table = TaskEmbedding.stack(embeddings)
        keys = ("n_classes", "n_samples", "class_separation")
        classes, n, separation = np.array([[d[key] for key in keys] for d in table.task_descriptors]).T
        var = table.feature_var.astype(np.float64) * (n / np.maximum(n - 1, 1))[:, None]
        inside = 1.0 - np.clip(separation, 0.0, 0.95)
        values = table.values.astype(np.float64)
        profile = log_profile(values, table.layer_sizes)
        profile -= profile.mean(axis=1, keepdims=True)
        return cls(
            mean=table.feature_mean.astype(np.float64),
            var=var,
            # Samples are balanced, so only what varies within classes blurs their mean.
            noise=var * (inside / n)[:, None],
            within=np.log(np.maximum(var.sum(axis=1) * inside, 1e-300)),
            classes=np.log(np.maximum(classes, 1.0)),
            profile=profile / np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-12),
            level=np.log(np.maximum(values, 1e-12)).mean(axis=1),
        )


def pair_statistics(general: Sequence[TaskEmbedding], special: Sequence[TaskEmbedding]) -> Array:
    """Describe every pair of a general and a special task, shape (n, m, 12), in the order of `STATISTICS`.

    With means μ and variances v of the features of the general task (g) and the special one (s), and the squared shift
    ``δ² = max((μ_g − μ_s)² − sampling noise, 0)``:

    * ``shift_by_general``, ``shift_by_special``: log of the mean of δ²/v_g and of δ²/v_s;
    * ``shift_of_sums``: log of Σδ²/Σv_g;
    * ``spread_mean``, ``spread_deviation``: mean and standard deviation of log v_s/v_g;
    * ``reach_90``, ``reach_99``: percentiles of log (δ² + v_s)/v_g: how far the special task reaches from the middle of
      the general one. A part that makes up a share w of the whole keeps this below log 1/w;
    * ``overlap``: mean share of the special task's interval, μ_s ± 1.5 √v_s, that lies in the general one's;
    * ``within_ratio``: log ratio of the variances within classes, special over general;
    * ``class_ratio``: log ratio of the numbers of classes, general over special;
    * ``fisher_distance``: :func:`~hf_task2vec.embedding.distance.log_correlation`;
    * ``fisher_level``: mean over filters of the log ratio of Fisher values, special over general.
    """
    a, b = _Stack.of(general), _Stack.of(special)
    return np.array([_one_general(a, i, b) for i in range(len(general))])


def _one_general(a: _Stack, i: int, b: _Stack) -> Array:
    floor = _VARIANCE_FLOOR * (a.var[i].mean() + b.var.mean(axis=1, keepdims=True)) / 2
    floor = np.maximum(floor, np.finfo(np.float64).tiny)
    shift = np.maximum((a.mean[i] - b.mean) ** 2 - a.noise[i] - b.noise, 0.0)
    vg, vs = a.var[i] + floor, b.var + floor
    spread = np.log(vs / vg)
    reach = np.percentile(np.log((shift + vs) / vg), (90, 99), axis=1)
    side_g, side_s = HALF_SIDE * np.sqrt(vg), HALF_SIDE * np.sqrt(vs)
    upper = np.minimum(a.mean[i] + side_g, b.mean + side_s)
    shared = np.maximum(upper - np.maximum(a.mean[i] - side_g, b.mean - side_s), 0.0)
    return np.column_stack(
        [
            np.log(_SHIFT_FLOOR + (shift / vg).mean(axis=1)),
            np.log(_SHIFT_FLOOR + (shift / vs).mean(axis=1)),
            np.log(_SHIFT_FLOOR + shift.sum(axis=1) / vg.sum(axis=1)),
            spread.mean(axis=1),
            spread.std(axis=1),
            *reach,
            (shared / (2.0 * side_s)).mean(axis=1),
            b.within - a.within[i],
            a.classes[i] - b.classes,
            1.0 - b.profile @ a.profile[i],
            b.level - a.level[i],
        ]
    )


@dataclass(frozen=True, eq=False)
class ContainmentModel:
    """A logistic regression on statistics of two tasks and their products.

    Attributes
    ----------
    regression
        The fitted pipeline.
    threshold
        Probability from which a pair counts as containment: the one of largest F1 among the training pairs.
    """

    regression: Pipeline
    threshold: float

    @classmethod
    def fit(cls, statistics: Array, contained: Mask, counts: Array | None = None) -> ContainmentModel:
        """Learn from statistics, shape (N, 12), of pairs that stand for `counts` pairs each (default: one)."""
        counts = np.ones(len(contained)) if counts is None else np.asarray(counts, dtype=np.float64)
        regression = make_pipeline(
            StandardScaler(),
            FunctionTransformer(np.clip, kw_args={"a_min": -_CLIP, "a_max": _CLIP}),
            PolynomialFeatures(2, include_bias=False),
            StandardScaler(with_mean=False),  # one scale for the penalty
            LogisticRegression(C=1.0 / L2, tol=1e-6, max_iter=1000),
        )
        weighted = ("standardscaler-1", "standardscaler-2", "logisticregression")
        shares = counts / counts.sum()
        regression.fit(statistics, contained, **{f"{step}__sample_weight": shares for step in weighted})
        threshold = f1_threshold(regression.predict_proba(statistics)[:, 1], contained, counts)
        return cls(regression, threshold)

    def probabilities(self, statistics: Array) -> Array:
        """Return the probability of containment, shape (...), of statistics, shape (..., 12).

        The odds are those of the training pairs, of which few are containment: a probability says more by its rank and
        by `threshold` than by itself.
        """
        found: Array = self.regression.predict_proba(statistics.reshape(-1, statistics.shape[-1]))[:, 1]
        return found.reshape(statistics.shape[:-1])


def f1_threshold(scores: Array, contained: Mask, counts: Array | None = None) -> float:
    """Return the score from which to say "contained" for the largest F1, of N pairs that stand for `counts` pairs."""
    precision, recall, thresholds = precision_recall_curve(contained, scores, sample_weight=counts)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[f1[:-1].argmax()])
