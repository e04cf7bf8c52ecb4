"""What to try: the few candidates whose best is expected to be best, and the best within a size."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.metric import Prediction

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

#: Budgets of size, in parameters.
SIZES = (100e6, 30e6, 10e6)
#: Of a ranking these many are looked at, and of those within each size; the rest have next to no chance of being best.
LOOKED_AT, _OF_A_SIZE = 256, 16
# From so many on, the last of a short list has at most one of these parts of the first one's size, where that can be.
_WITH_SMALLER, _PARTS = 3, (0.1, 0.25)
# Joint draws of results; the second half mirrors the first, so that their means are exact.
_DRAWS = 2048
# Among those that add at least this share of the most that any could add, the smallest is taken.
_SHARES = (0.5, 0.7, 0.85, 1.0)


def looked_at(size: Array) -> Rows:
    """Positions in a ranking, of which `size` gives the parameters, of those that a short list is drawn from."""
    within = [np.flatnonzero(size <= most)[:_OF_A_SIZE] for most in SIZES]
    return np.unique(np.concatenate([np.arange(min(LOOKED_AT, len(size))), *within]))


@dataclass(frozen=True, eq=False)
class Contenders:
    """Those of a ranking that may be best, in numbers: how good each is expected to be, and with whom it fails.

    Attributes
    ----------
    position
        Shape (n,): their positions in the ranking, best first; the first is 0.
    mean, covariance
        Of their results, shapes (n,) and (n, n), in logits of the score (or in the score itself).
    probing
        Shapes (n, n): covariances of their results with linear probes of them, and of these with one another.
    size
        Shape (n,): parameters; infinite where unknown.
    known
        Shape (n,): size and licence are known.
    family
        Shape (n,): codes of architecture family and objective together.
    twin
        Shape (n,): codes of family and all facts together.
    away
        Shape (n,): encoders made for another domain than this task most likely is of, and experts expected to be no
        better than what they were fine-tuned from. None of them is chosen: their prediction is a guess so wide that
        chance alone would recommend them.
    """

    position: Rows
    mean: Array
    covariance: Array
    probing: tuple[Array, Array]
    size: Array
    known: NDArray[np.bool_]
    family: Rows
    twin: Rows
    away: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        rows: Rows,
        position: Rows | None = None,
        size: Array | None = None,
        known: NDArray[np.bool_] | None = None,
    ) -> Contenders:
        """Take those at `rows` of a prediction; without a posterior each is of a family of its own."""
        position = np.arange(len(rows)) if position is None else position
        size = np.full(len(rows), np.inf) if size is None else size
        known = np.isfinite(size) if known is None else known
        posterior = prediction.posterior
        family, twin, away = rows, rows, np.zeros(len(rows), dtype=bool)
        if posterior is not None:
            bases = prediction.bases(rows)
            features, heirs = posterior.candidates.take(bases), prediction.heirs
            family, away = features.family, posterior.away[bases]
            if heirs is not None:  # experts are a kind of their own, and none is tried that is no better than its base
                tuned, better = heirs.tuned[rows], heirs.gain[rows] > 0.0
                family, away = np.where(tuned & better, -1 - family, family), away | (tuned & ~better)
            facts = np.column_stack([np.unique(family, return_inverse=True)[1], features.numbers])
            twin = np.unique(facts, axis=0, return_inverse=True)[1].reshape(-1)
        mean = prediction.mean[rows]
        return cls(
            position, mean, prediction.covariance(rows), prediction.probing(rows), size, known, family, twin, away
        )

    @classmethod
    def independent(cls, table: pd.DataFrame) -> Contenders:
        """Take the rows of a ranking that was made without a posterior: each fails by itself, within its own `std`."""
        size = 1e6 * table["params_m"].to_numpy(np.float64, na_value=np.inf)
        position = looked_at(size)
        rows = table.iloc[position]
        known = (rows["params_m"].notna() & rows["license"].notna()).to_numpy()
        spread = np.diag(rows["std"].to_numpy(np.float64) ** 2)
        mean, away = rows["score"].to_numpy(np.float64), np.zeros(len(rows), dtype=bool)
        return cls(position, mean, spread, (spread, spread), size[position], known, position, position, away)

    def __len__(self) -> int:
        return len(self.mean)

    @cached_property
    def between(self) -> Array:
        """Shape (n, n): variances of the differences of two results."""
        variance = np.diag(self.covariance)
        return np.asarray(np.maximum(variance[:, None] + variance - 2.0 * self.covariance, 0.0))

    @cached_property
    def as_good(self) -> NDArray[np.bool_]:
        """Shape (n, n): which two differ by no more than the standard deviation of that."""
        return np.asarray((self.mean[:, None] - self.mean) ** 2 <= self.between)

    @cached_property
    def alike(self) -> NDArray[np.bool_]:
        """Shape (n, n): which two are twins, or of one family and as good."""
        siblings = self.family[:, None] == self.family
        return np.asarray((self.twin[:, None] == self.twin) | siblings & self.as_good)

    @cached_property
    def draws(self) -> NDArray[np.float32]:
        """Shape (n, draws): results drawn from the joint posterior, always the same ones."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        half = root @ np.random.default_rng(0).standard_normal((len(self), _DRAWS // 2))
        return (self.mean[:, None] + np.concatenate([half, -half], axis=1)).astype(np.float32)

    def expected_maximum(self, chosen: Collection[int]) -> float:
        """Expected result of the best of some."""
        return float(self.draws[list(chosen)].max(axis=0).mean(dtype=np.float64))

    def after_probing(self, chosen: Sequence[int]) -> float:
        """Expected result of the one that is best of some by linear probes of them."""
        cross, frozen = (part[np.ix_(chosen, chosen)] for part in self.probing)
        values, vectors = np.linalg.eigh(cross @ np.linalg.pinv(frozen, hermitian=True) @ cross.T)
        noise = np.random.default_rng(0).standard_normal((len(chosen), _DRAWS // 2))
        moves = (vectors * np.sqrt(np.maximum(values, 0.0))) @ noise
        return float((self.mean[chosen][:, None] + np.concatenate([moves, -moves], axis=1)).max(axis=0).mean())

    def choose(self, k: int) -> list[int]:
        """The first and at most `k` - 1 more: each adds most to the expected maximum, or nearly so and is smaller.

        No two are alike, and the last is much smaller than the first where that can be. The list is expected to hold no
        worse a best than the first `k`; where only siblings of theirs could do that, than the first `k` unlike.
        """
        plain, unlike = ([i for i in rows if not (i and self.away[i])][:k] for rows in (range(len(self)), self.unlike))
        parts = (*_PARTS, 1.0) if k >= _WITH_SMALLER else (1.0,)
        least = min(map(self.expected_maximum, (plain, unlike)))
        for part, share in product(parts, _SHARES):
            chosen, added = [0], None
            while len(chosen) < k:
                most = part * self.size[0] if len(chosen) == k - 1 and part < 1.0 else np.inf
                if (added := self.next(chosen, share, most)) is None:
                    break
                chosen.append(added)
            if (added is not None or part == 1.0) and self.expected_maximum(chosen) >= least:
                return chosen
        return unlike

    def next(self, chosen: Sequence[int], share: float = 1.0, most: float = np.inf) -> int | None:
        """The smallest of those that add at least `share` of the most to the best of `chosen`, if any is left.

        Like none of `chosen`; and where there is a limit to its size, within it and within the noise of the first.
        """
        fit = ~self.away & ~self.alike[list(chosen)].any(axis=0)
        left = np.flatnonzero(fit & (self.size <= most) & self.as_good[0] if most < np.inf else fit)
        if not len(left):
            return None
        best = self.draws[list(chosen)].max(axis=0)
        added = np.maximum(self.draws[left], best).mean(axis=1) - best.mean()
        enough = left[added >= share * added.max()]
        return int(enough[np.argmin(self.size[enough])])  # of the same or unknown sizes the best

    def best(self, among: NDArray[np.bool_]) -> int | None:
        """The best of some, if there is one: of those of known size and licence where one is as good as any."""
        rows = np.flatnonzero(among)
        if not len(rows):
            return None
        first = int(rows[np.argmax(self.mean[rows])])
        as_good = rows[self.as_good[first, rows]]
        known = as_good[self.known[as_good]]
        return int(known[np.argmax(self.mean[known])]) if len(known) else first

    @property
    def unlike(self) -> list[int]:
        """Those that are like none before."""
        return [i for i, _ in self.folded()]

    def folded(self, apart: Collection[int] = ()) -> list[tuple[int, int]]:
        """Those that are like none before, or of `apart`; and how many of the others are like each."""
        found: dict[int, int] = {}
        for i in range(len(self)):
            before = i if i in apart else next((j for j in found if self.alike[i, j]), i)
            found[before] = found.get(before, -1) + 1
        return list(found.items())
