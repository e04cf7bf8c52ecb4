"""What kind of images a task holds, told from the embeddings of tasks of known kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.metric.task_space import TaskFeatures

Array = NDArray[np.float64]

# Chosen so that embedded tasks, left out with their near duplicates, tell theirs well (logarithmic loss over tasks and
# over kinds).
_RIDGE, _SHARPNESS = 0.2, 10.0


@dataclass(frozen=True, eq=False)
class KindTeller:
    """Tells the kind of a task by kernel ridge regression on indicators of the kinds.

    See Rasmussen and Williams 2006, section 6.5.

    Tasks of a common kind weigh less, so that a kind counts as the square root of its tasks: what the index holds most
    of is not what users ask about most.

    Attributes
    ----------
    known
        The n embedded tasks of known kind.
    common
        Shape (kinds,): how common each kind is among them, by weight.
    says
        Shape (n, kinds): what each says for the kinds.
    """

    known: TaskFeatures
    common: Array
    says: Array

    @classmethod
    def of(cls, tasks: TaskFeatures) -> KindTeller | None:
        """Learn from some tasks; None if no embedded one is of known kind."""
        known = tasks.take(np.flatnonzero(tasks.embedded & tasks.kinds.any(axis=1)))
        if not len(known.names):
            return None
        weight = 1.0 / np.sqrt(known.kinds @ known.kinds.sum(axis=0))
        weight = weight / weight.mean()
        common = (weight @ known.kinds) / weight.sum()
        ridge = np.diag(_RIDGE / weight)
        return cls(known, common, np.linalg.solve(_alike(known, known) + ridge, known.kinds - common))

    def __call__(self, task: TaskFeatures) -> Array:
        """Return the probabilities of the kinds of one embedded task, shape (kinds,)."""
        told = self.common * np.exp(_SHARPNESS * (_alike(task, self.known) @ self.says)[0])
        return np.asarray(told / told.sum())


def _alike(a: TaskFeatures, b: TaskFeatures) -> Array:
    """Mean correlation of the tasks' Fisher profiles and of their moments, shape (n, m)."""
    return np.asarray((a.profiles @ b.profiles.T + a.moments @ b.moments.T) / 2.0)
