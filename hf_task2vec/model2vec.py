"""Model2Vec: embed checkpoints where tasks lie that they are best for (Achille et al. 2019, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.baselines import Baseline, looked_up
from hf_task2vec.distance import ALPHA, log_profile
from hf_task2vec.observations import CheckpointFeatures
from hf_task2vec.task_space import TaskFeatures

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]

# Distances over this many filters, drawn once, are those over all of them to within a few per cent.
_FILTERS = 1024
_STEPS, _LEARNING_RATE, _SHARPNESS, _WEIGHT_DECAY = 60, 0.1, 30.0, 1e-3


@dataclass(frozen=True, eq=False)
class Model2Vec(Baseline):
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
        last = np.full(len(candidates.ids), -float(distance.max()) - 1.0)
        return looked_up(candidates, scored, -distance, missing=last)

    def _log_relative(self, values: NDArray[np.float32]) -> Tensor:
        """Logarithms of per-layer relative values of some filters, shape (n, F), float32."""
        import torch

        filters = np.sort(np.random.default_rng(0).permutation(values.shape[1])[:_FILTERS])
        relative = log_profile(values.astype(np.float64), self.space.layer_sizes)[:, filters]
        return torch.from_numpy(relative.astype(np.float32))

    @cached_property
    def _points(self) -> tuple[CheckpointFeatures, Tensor]:
        """The C checkpoints with scores on embedded tasks, and the logarithms of their points, shape (C, F)."""
        import torch

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
    """Minimise the cross-entropy of the best checkpoint of each task by Adam (Kingma and Ba 2015), shape (C, F)."""
    import torch

    bias, first, second = (torch.zeros_like(start) for _ in range(3))
    # Written out, because the first use of `torch.optim` imports torch's compiler, which takes far longer than this.
    for step in range(1, _STEPS + 1):
        bias.requires_grad_()
        logits = (-_SHARPNESS * _distances(start + bias, tasks)).masked_fill(absent, -torch.inf)
        loss = torch.nn.functional.cross_entropy(logits, best) + _WEIGHT_DECAY * bias.square().sum(dim=1).mean()
        (gradient,) = torch.autograd.grad(loss, bias)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        scale = (second / (1.0 - 0.999**step)).sqrt() + 1e-8
        bias = bias.detach() - _LEARNING_RATE * first / (1.0 - 0.9**step) / scale
    return bias


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
