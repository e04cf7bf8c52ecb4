"""Ways to tell whether one task contains another. Part of ``containment.py``.

Each is a function of :class:`Pairs` and two masks of ordered pairs, shape (n, n): those to learn from, and those to
choose the threshold (and, of networks, the epoch) on. It returns scores of all pairs, shape (n, n), and the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from benchmarks.relations.containment_score import (
    STATISTICS,
    Array,
    ContainmentModel,
    Mask,
    f1_threshold,
    pair_statistics,
)
from hf_task2vec import TaskEmbedding
from hf_task2vec.embedding.distance import DISTANCES, log_profile, pairwise

#: Pairs of different datasets that are learned from, as a share: each then stands for as many.
KEPT = 0.25
#: Networks: components of the inputs, epochs, pairs in a batch, sides of a learned box and its softness (Task2Box).
COMPONENTS, EPOCHS, BATCH, SIDES, SOFTNESS = 64, 12, 512, 5, 0.1


@dataclass(frozen=True, eq=False)
class Pairs:
    """n tasks, embedded twice from disjoint images; pair (i, j) is general task i with special task j.

    Attributes
    ----------
    general, special
        Their embeddings.
    contained
        Shape (n, n).
    same
        Shape (n, n): both of one dataset.
    statistics, swapped
        Shape (n, n, 12): of pairs as they are, and with the two halves of the images exchanged.
    """

    general: list[TaskEmbedding]
    special: list[TaskEmbedding]
    contained: Mask
    same: Mask
    statistics: Array
    swapped: Array

    @classmethod
    def of(cls, general: list[TaskEmbedding], special: list[TaskEmbedding], contained: Mask, same: Mask) -> Pairs:
        """Compute the statistics."""
        both = pair_statistics(general, special), pair_statistics(special, general)
        return cls(general, special, contained, same, *both)

    def thinned(self, *, seed: int = 0) -> tuple[Mask, Array]:
        """Return which pairs to learn from, and how many each stands for."""
        kept = self.same | (np.random.default_rng(seed).random(self.same.shape) < KEPT)
        return kept, np.where(self.same, 1.0, 1.0 / KEPT)


Method = Callable[[Pairs, Mask, Mask], tuple[Array, float]]


def untrained(scores: Callable[[Pairs], Array]) -> Method:
    """Return scores that learn no more than a threshold."""
    once = lru_cache(maxsize=1)(scores)

    def method(pairs: Pairs, train: Mask, valid: Mask) -> tuple[Array, float]:
        found, known = once(pairs), train | valid
        return found, f1_threshold(found[known], pairs.contained[known])

    return method


def minus_distance(pairs: Pairs, kind: str, *, from_general: bool = True) -> Array:
    """Return minus the distance from the general task to the special one, or the other way."""
    if from_general:
        return -pairwise(pairs.general, kind, to=pairs.special)
    return -pairwise(pairs.special, kind, to=pairs.general).T


def learned(without: tuple[str, ...] = ()) -> Method:
    """Return the model of statistics, with some of them held constant for an ablation.

    It learns from each pair twice, the second time with the halves of the images exchanged.
    """
    blind = [STATISTICS.index(name) for name in without]

    def method(pairs: Pairs, train: Mask, valid: Mask) -> tuple[Array, float]:
        kept, counts = pairs.thinned()
        used = (train | valid) & kept
        x = np.concatenate([_blinded(side, blind)[used] for side in (pairs.statistics, pairs.swapped)])
        model = ContainmentModel.fit(x, np.tile(pairs.contained[used], 2), np.tile(counts[used], 2))
        return model.probabilities(_blinded(pairs.statistics, blind)), model.threshold

    return method


def _blinded(statistics: Array, blind: list[int]) -> Array:
    found = statistics.copy()
    found[..., blind] = 0.0
    return found


def _inputs(pairs: Pairs, tasks: Mask) -> Array:
    """Principal components of the tasks' Fisher profiles and feature moments, and log classes, shape (2, n, p).

    Centre and components are those of `tasks`, shape (n,).
    """
    sides = [TaskEmbedding.stack(side) for side in (pairs.general, pairs.special)]
    parts = []
    for rows in (
        np.array([log_profile(side.values, side.layer_sizes) for side in sides]),
        np.array([np.hstack([side.feature_mean, 0.5 * np.log(side.feature_var + 1e-4)]) for side in sides], float),
    ):
        known = rows[:, tasks].reshape(-1, rows.shape[-1])
        rows = (rows - known.mean(axis=0)) / (known.std(axis=0) + 1e-6)
        _, _, axes = np.linalg.svd(rows[:, tasks].reshape(-1, rows.shape[-1]), full_matrices=False)
        found = rows @ axes[:COMPONENTS].T
        parts.append(found / found[:, tasks].std())
    classes = np.log([[[d["n_classes"]] for d in side.task_descriptors] for side in sides])
    return np.concatenate([*parts, classes], axis=-1)


class Concatenated(nn.Module):
    """Log-odds from the concatenated inputs of both tasks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = [nn.Linear(2 * width, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 32), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(32, 1))

    def forward(self, general: Tensor, special: Tensor) -> Tensor:
        """Return log-odds, shape (N,)."""
        found: Tensor = self.layers(torch.cat([general, special], dim=1))
        return found[:, 0]


class Boxes(nn.Module):
    """Log-odds from the share of the special task's box that lies in the general one's (Task2Box)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 2 * SIDES))

    def forward(self, general: Tensor, special: Tensor) -> Tensor:
        """Return log-odds, shape (N,)."""
        (low_a, high_a), (low_b, high_b) = self._box(general), self._box(special)
        shared = torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)
        log_share = (_log_side(shared) - _log_side(high_b - low_b)).sum(dim=1).clamp(max=-1e-4)
        return log_share - torch.log(-torch.expm1(log_share))

    def _box(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centre, side = self.layers(x).chunk(2, dim=1)
        half = nn.functional.softplus(side) / 2
        return centre - half, centre + half


def _log_side(side: Tensor) -> Tensor:
    return torch.log(SOFTNESS * nn.functional.softplus(side / SOFTNESS) + 1e-12)


def network(kind: type[Concatenated] | type[Boxes], *, seed: int = 0) -> Method:
    """Return a network trained with Adam; the epoch is the one of the largest F1 on the validation pairs."""

    def method(pairs: Pairs, train: Mask, valid: Mask) -> tuple[Array, float]:
        torch.manual_seed(seed)
        inputs = torch.tensor(_inputs(pairs, (train | train.T).any(axis=1)), dtype=torch.float32)
        kept, counts = pairs.thinned()
        at = torch.tensor(np.argwhere(train & kept))
        target = torch.tensor(pairs.contained[train & kept], dtype=torch.float32)
        weight = torch.tensor(counts[train & kept], dtype=torch.float32)
        model = kind(inputs.shape[-1])
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
        best: tuple[float, Array, float] = (-1.0, np.zeros_like(counts), 0.0)
        for _ in range(EPOCHS):
            model.train()
            for batch in torch.randperm(len(at)).split(BATCH):
                swap = torch.randint(2, (len(batch),))  # either half of the images may be the general task's
                i, j = at[batch].T
                logits = model(inputs[swap, i], inputs[1 - swap, j])
                loss = nn.functional.binary_cross_entropy_with_logits(logits, target[batch], weight[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            scores = _all_pairs(model, inputs)
            threshold = f1_threshold(scores[valid], pairs.contained[valid])
            f1 = float(f1_score(pairs.contained[valid], scores[valid] >= threshold))
            best = max(best, (f1, scores, threshold), key=lambda found: found[0])
        return best[1], best[2]

    return method


@torch.no_grad()
def _all_pairs(model: nn.Module, inputs: Tensor) -> Array:
    model.eval()
    general, special = inputs
    rows = [model(one.expand(len(special), -1), special).numpy() for one in general]
    return np.array(rows, dtype=np.float64)


METHODS: dict[str, Method] = {
    "learned score": learned(),
    "learned score, without numbers of classes": learned(("class_ratio",)),
    "learned score, without Fisher information": learned(("fisher_distance", "fisher_level")),
    "network on both embeddings": network(Concatenated),
    "network that learns boxes": network(Boxes),
    "numbers of classes": untrained(lambda pairs: pairs.statistics[..., STATISTICS.index("class_ratio")]),
    **{kind: untrained(partial(minus_distance, kind=kind)) for kind in DISTANCES},
    "asymmetric, special to general": untrained(partial(minus_distance, kind="asymmetric", from_general=False)),
}
