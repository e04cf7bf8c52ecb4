"""Alternatives to the trained metric, with its interface: what it has to beat.

All of them predict standings (logits of accuracy, less those of the average checkpoint on the same task) as the mean
standing of ``hf_task2vec.metric.ranking_metric.Static`` or another task-blind prior, plus what the task adds.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_task2vec.embedding.distance import ALPHA, asymmetric, log_profile, symmetric
from hf_task2vec.metric.observations import CheckpointFeatures
from hf_task2vec.metric.static import METRICS, Static
from hf_task2vec.metric.task_space import TaskFeatures

Array = NDArray[np.float64]

# Distances over this many filters, drawn once, are those over all of them to within a few per cent.
_FILTERS = 1024
_STEPS, _LEARNING_RATE, _SHARPNESS, _WEIGHT_DECAY = 60, 0.1, 30.0, 1e-3


class ShareOfWins(Static):
    """How often a checkpoint is the best of a group of comparable scores, as a share of its groups."""

    name: ClassVar[str] = "share_of_wins"

    def prior(self, candidates: CheckpointFeatures) -> Array:
        """Shares in [0, 1], shape (n,); 0 without a score."""
        data, n = self.data, len(self.data.checkpoints.ids)
        best = np.full(int(data.group.max(initial=-1)) + 1, -np.inf)
        np.maximum.at(best, data.group, data.y)
        wins = np.bincount(data.checkpoint, data.y >= best[data.group], minlength=n)
        share = wins / np.maximum(np.bincount(data.checkpoint, minlength=n), 1)
        return looked_up(candidates, data.checkpoints, share)


class BestImageNet(Static):
    """The published ImageNet-1k accuracy, whatever the task; checkpoints without one come last."""

    name: ClassVar[str] = "best_imagenet"

    def prior(self, candidates: CheckpointFeatures) -> Array:
        """Logits of the accuracy in units of two, shape (n,)."""
        top1, unknown = candidates.facts(["in1k_logit"])[:, 0], candidates.facts(["no_classifier"])[:, 0] > 0
        lowest = float(top1[~unknown].min()) if (~unknown).any() else 0.0
        return 0.5 * np.where(unknown, lowest - 1.0, top1)


class RidgeOnDescriptors(Static):
    """Mean standing plus, for each checkpoint, a ridge regression on the task's descriptors alone."""

    name: ClassVar[str] = "ridge_on_descriptors"

    def residual(self, task: TaskFeatures, candidates: CheckpointFeatures) -> Array:
        """Regression of what is left by the mean standing, shape (n,)."""
        data = self.data
        rows = data.tasks.embedded[data.task]
        known = data.tasks.descriptors[data.tasks.embedded]
        centre, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-6)
        x = (data.tasks.descriptors - centre) / scale
        query = (task.descriptors[0] - centre) / scale
        _, left = self.fit
        found = np.zeros(len(data.checkpoints.ids))
        for c in np.unique(data.checkpoint[rows]):
            own = rows & (data.checkpoint == c)
            design = x[data.task[own]]
            # As much shrinkage as there are descriptors: a handful of scores then moves little.
            gram = design.T @ design + x.shape[1] * np.eye(x.shape[1])
            found[c] = query @ np.linalg.solve(gram, design.T @ left[own])
        return looked_up(candidates, data.checkpoints, found)


class NearestSymmetric(Static):
    """Of each candidate, its standing on the nearest task (by the symmetric distance) that it has a score on.

    Candidates without a score on an embedded task have their mean standing.
    """

    name: ClassVar[str] = "nearest_symmetric"

    def distances(self, task: TaskFeatures) -> Array:
        """Distances from the T known tasks to the task, shape (T,); infinite for those without an embedding."""
        known = self.data.tasks
        found = np.full(len(known.names), np.inf)
        found[known.embedded] = self._distances(known.values[known.embedded].astype(np.float64), task.values)[:, 0]
        return found

    def _distances(self, sources: Array, target: Array) -> Array:
        return symmetric(sources, target)

    def residual(self, task: TaskFeatures, candidates: CheckpointFeatures) -> Array:
        """What the nearest task adds to the mean standing, shape (n,); 0 for candidates without a score."""
        data = self.data
        distance = self.distances(task)[data.task]
        _, left = self.fit
        found = np.zeros(len(data.checkpoints.ids))
        for c in np.unique(data.checkpoint[np.isfinite(distance)]):
            own = data.checkpoint == c
            nearest = own & (distance == distance[own].min())
            found[c] = left[nearest].mean()
        return looked_up(candidates, data.checkpoints, found)


class NearestAsymmetric(NearestSymmetric):
    """The same by the asymmetric distance: of two equally near tasks the more complex one counts."""

    name: ClassVar[str] = "nearest_asymmetric"

    def _distances(self, sources: Array, target: Array) -> Array:
        return asymmetric(sources, target, self.space.layer_sizes)


class Model2Vec(Static):
    """Checkpoints as points among the tasks, learned so that the nearest one is the best on each known task.

    A checkpoint's point is ``F · exp(b)``: the mean embedding F of the tasks that it is best on (of all tasks if there
    is none) and a learned bias b, found by minimising the cross-entropy of the best checkpoint under a softmax of the
    asymmetric distances. Standings are distances with the sign changed. Deterministic.
    """

    name: ClassVar[str] = "model2vec"

    def prior(self, candidates: CheckpointFeatures) -> Array:
        """All alike: the prediction is the distance alone."""
        return np.zeros(len(candidates.ids))

    def residual(self, task: TaskFeatures, candidates: CheckpointFeatures) -> Array:
        """Minus the distance to the task, shape (n,); checkpoints without a point come last."""
        if not self.data.tasks.embedded[self.data.task].any():
            return np.zeros(len(candidates.ids))
        scored, points = self._points
        distance = _distances(points, self._log_relative(task.values))[0].double().numpy()
        return looked_up(candidates, scored, -distance, float(-distance.max() - 1.0))

    def _log_relative(self, values: NDArray[np.float32]) -> Tensor:
        """Logarithms of per-layer relative values of some filters, shape (n, F), float32."""
        filters = np.sort(np.random.default_rng(0).permutation(values.shape[1])[:_FILTERS])
        relative = log_profile(values.astype(np.float64), self.space.layer_sizes)[:, filters]
        return torch.from_numpy(relative.astype(np.float32))

    @cached_property
    def _points(self) -> tuple[CheckpointFeatures, Tensor]:
        """The C checkpoints with scores on embedded tasks, and the logarithms of their points, shape (C, F)."""
        data = self.data
        used = data.tasks.embedded[data.task]
        columns, column = np.unique(data.checkpoint[used], return_inverse=True)
        _, first, group = np.unique(data.group[used], return_index=True, return_inverse=True)
        y = np.full((len(first), len(columns)), -np.inf)
        y[group, column] = data.y[used]
        tasks = self._log_relative(data.tasks.values[data.task[used][first]])
        best, absent = torch.from_numpy(y.argmax(axis=1)), torch.from_numpy(np.isneginf(y))
        wins = torch.nn.functional.one_hot(best, len(columns)).T.float()
        wins[wins.sum(dim=1) == 0] = 1.0  # best on none: the mean of all tasks
        start = (wins @ tasks.exp() / wins.sum(dim=1, keepdim=True)).log()
        points = start + _learned_bias(start, tasks, best, absent)
        return data.checkpoints.take(columns), points


def _learned_bias(start: Tensor, tasks: Tensor, best: Tensor, absent: Tensor) -> Tensor:
    """Minimise the cross-entropy of the best checkpoint of each task, shape (C, F)."""
    bias = torch.zeros_like(start, requires_grad=True)
    optimiser = torch.optim.Adam([bias], lr=_LEARNING_RATE)
    for _ in range(_STEPS):
        logits = (-_SHARPNESS * _distances(start + bias, tasks)).masked_fill(absent, -torch.inf)
        loss = torch.nn.functional.cross_entropy(logits, best) + _WEIGHT_DECAY * bias.square().sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return bias.detach()


def _distances(points: Tensor, tasks: Tensor) -> Tensor:
    """Asymmetric distances from points (C, F) to tasks (T, F), all in logarithms, shape (T, C)."""
    # The trivial embedding is each layer's mean: relative to that, 1 everywhere.
    return _symmetric(tasks[:, None] - points[None]) - ALPHA * _symmetric(points)


def _symmetric(log_ratio: Tensor) -> Tensor:
    """Cosine distance of ``a/(a+b)`` and ``b/(a+b)`` along the last axis, from the logarithms of ``a/b``.

    With ``s = a/(a+b)`` the other is ``1 − s``, so two sums are all it takes.
    """
    share = log_ratio.sigmoid()
    total, squares, n = share.sum(dim=-1), share.square().sum(dim=-1), share.shape[-1]
    return 1.0 - (total - squares) / (squares * (n - 2.0 * total + squares)).sqrt()


def looked_up(candidates: CheckpointFeatures, scored: CheckpointFeatures, values: Array, missing: float = 0.0) -> Array:
    """The entry of `values`, shape (C,), of each candidate; `missing` if it has no score."""
    by_id = dict(zip(scored.ids, values, strict=True))
    return np.array([by_id.get(name, missing) for name in candidates.ids], dtype=np.float64)


_OTHERS = (ShareOfWins, BestImageNet, NearestSymmetric, NearestAsymmetric, Model2Vec, RidgeOnDescriptors)
#: All by name, those of the package first.
ALL_METRICS = {**METRICS, **{metric.name: metric for metric in _OTHERS}}
#: Rules that do not look at the task.
TARGET_BLIND = ("static", "share_of_wins", "best_imagenet")
