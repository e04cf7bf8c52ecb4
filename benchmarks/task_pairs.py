"""Statistics of two embeddings that tell whether one task may contain the other: what `relations` learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.distance import log_profile
from hf_task2vec.embedding import check_comparable
from hf_task2vec.errors import EmbeddingError

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding

Array = NDArray[np.float64]

#: What a model sees of two tasks; see :func:`pair_statistics`.
STATISTICS = (
    "shift_by_general", "shift_by_special", "shift_of_sums", "spread_mean", "spread_deviation", "reach_90", "reach_99",
    "overlap", "within_ratio", "class_ratio", "fisher_distance", "fisher_level",
)  # fmt: skip
#: Half the side of a task's box, in standard deviations of each feature.
HALF_SIDE = 1.5
# Shares of a task's mean variance, and of a squared shift, below which all is alike.
_VARIANCE_FLOOR, _SHIFT_FLOOR = 0.01, 1e-3
_READ = ("n_classes", "n_samples", "class_separation")


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
        for e in embeddings:
            if missing := [key for key in _READ if key not in e.descriptors]:
                raise EmbeddingError(
                    f"the embedding of {e.name!r} lacks the descriptors {', '.join(missing)}: it was made by an "
                    "earlier version; embed the task again"
                )
        described = np.array([[e.descriptors[key] for key in _READ] for e in embeddings], dtype=np.float64)
        classes, n, separation = described.T
        var = (
            np.concatenate([e.feature_var for e in embeddings]).astype(np.float64) * (n / np.maximum(n - 1, 1))[:, None]
        )
        inside = 1.0 - np.clip(separation, 0.0, 0.95)
        values = np.concatenate([e.values for e in embeddings]).astype(np.float64)
        profile = log_profile(values, embeddings[0].layer_sizes)
        profile -= profile.mean(axis=1, keepdims=True)
        profile /= np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-12)
        return cls(
            mean=np.concatenate([e.feature_mean for e in embeddings]).astype(np.float64),
            var=var,
            # Samples are balanced, so only what varies within classes blurs their mean.
            noise=var * (inside / n)[:, None],
            within=np.log(np.maximum(var.sum(axis=1) * inside, 1e-300)),
            classes=np.log(np.maximum(classes, 1.0)),
            profile=profile,
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
    * ``fisher_distance``: :func:`~hf_task2vec.distance.log_correlation`;
    * ``fisher_level``: mean over filters of the log ratio of Fisher values, special over general.

    Raises
    ------
    ProbeMismatchError
        The embeddings come from different probes.
    EmbeddingError
        There are none, or one lacks a descriptor.
    """
    if not general or not special:
        raise EmbeddingError("relations need at least one general and one special task, found an empty list")
    for other in (*general[1:], *special):
        check_comparable(general[0], other)
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
