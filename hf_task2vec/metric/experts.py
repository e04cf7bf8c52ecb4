"""By how much a fine-tuned checkpoint is better than the one that it was fine-tuned from, on another task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """The gain of an expert over its base, in logits of the accuracy, as a line in one number.

    That number says how much nearer the task lies to what the expert was fine-tuned on than to what the base was
    trained on. Similarity of two tasks is one minus their distance (``log_correlation``).

    Attributes
    ----------
    intercept, slope
        Of the line: what fine-tuning on something else costs, and what nearness brings.
    deviation
        Standard deviation of a gain about the line.
    usual
        Similarity of a task to the training set of the base, where none of that is embedded.
    near
        Similarity that the task must have for a gain: below, the base may be far too, but that makes no expert.
    """

    intercept: float
    slope: float
    deviation: float
    usual: float
    near: float

    @classmethod
    def fit(cls, nearness: Array, of_base: Array, gain: Array, near: float) -> Gain:
        """Fit the line by least squares to pairs of an expert and a task, shapes (n,)."""
        x = nearness - of_base
        slope, intercept = np.polyfit(x, gain, 1)
        deviation = np.sqrt(np.mean((gain - intercept - slope * x) ** 2))
        return cls(float(intercept), float(slope), float(deviation), float(np.mean(of_base)), near)

    def expected(self, nearness: float, of_base: float | None = None) -> float:
        """Return the expected gain; `of_base` is None where nothing of what the base was trained on is embedded."""
        gain = self.intercept + self.slope * (nearness - (self.usual if of_base is None else of_base))
        return gain if nearness >= self.near else min(gain, 0.0)


#: Fitted to 14 experts and 46 tasks, measured by linear probes (``python -m benchmarks.selection.expert_gain``).
EXPERT_GAIN = Gain(intercept=-0.053, slope=0.469, deviation=0.193, usual=0.625, near=0.755)
