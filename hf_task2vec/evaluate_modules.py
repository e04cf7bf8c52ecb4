"""The measures of a ranking as `evaluate.Metric` modules, usable without the Hub.

>>> from hf_task2vec.evaluate_modules import RegretAtK
>>> RegretAtK().compute(predictions=[0.9, 0.1], references=[0.7, 0.8], k=1)  # doctest: +SKIP
{'regret_at_1': 0.1}

``predictions`` are predicted and ``references`` obtained scores of the same checkpoints on one task. Give several tasks
as lists of such lists, of any length each: the result is then the mean over tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import numpy as np

from hf_task2vec import measures

_CITATION = """\
@inproceedings{achille2019task2vec,
  title={Task2Vec: Task Embedding for Meta-Learning},
  author={Achille, Alessandro and Lam, Michael and Tewari, Rahul and Ravichandran, Avinash and Maji, Subhransu and
          Fowlkes, Charless and Soatto, Stefano and Perona, Pietro},
  booktitle={ICCV}, year={2019}}
"""
_INPUTS = """
Args:
    predictions: predicted scores of the checkpoints of one task, or a list of such lists, one per task.
    references: scores that they obtained, in the same order.
"""


class _RankingMeasure(evaluate.Metric):
    """Shared by the modules: scores of one task, or lists of scores of several."""

    description: str

    def _info(self) -> evaluate.MetricInfo:
        one = datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("float64")})
        several = datasets.Features(
            {name: datasets.List(datasets.Value("float64")) for name in ("predictions", "references")}
        )
        return evaluate.MetricInfo(
            description=self.description,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[one, several],
            reference_urls=["https://arxiv.org/abs/1902.03545"],
        )


def _tasks(values: Any) -> list[np.ndarray]:
    """Split scores by task."""
    nested = len(values) > 0 and np.ndim(values[0]) > 0
    return [np.asarray(part, dtype=np.float64) for part in (values if nested else [values])]


def _mean(measure: Callable[[Any, Any], float], predictions: Any, references: Any) -> float:
    pairs = zip(_tasks(predictions), _tasks(references), strict=True)
    return float(np.mean([measure(predicted, obtained) for predicted, obtained in pairs]))


class RegretAtK(_RankingMeasure):
    """Best score less the best among the `k` predicted to be best; ``regret_at_{k}``. 0 is best."""

    description = "Best obtained score less the best one among the k checkpoints predicted to be best."

    def _compute(self, predictions: Any, references: Any, k: int = 1) -> dict[str, float]:
        return {f"regret_at_{k}": _mean(lambda p, y: measures.regret_at_k(p, y, k), predictions, references)}


class WeightedKendallTau(_RankingMeasure):
    """Rank correlation that weighs the top most; ``weighted_kendall_tau`` in [-1, 1]. 1 is best."""

    description = "Weighted Kendall rank correlation of predicted and obtained scores (Vigna 2015)."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"weighted_kendall_tau": _mean(measures.weighted_kendall_tau, predictions, references)}


class RelativeErrorIncrease(_RankingMeasure):
    """Mean error of the picks over the mean error of the best, less 1; ``relative_error_increase``. 0 is best.

    References must be accuracies in [0, 1].
    """

    description = "Mean error of the picked checkpoints relative to that of the best ones (Achille et al. 2019)."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        pairs = list(zip(_tasks(predictions), _tasks(references), strict=True))
        picked = [measures.accuracy_of_pick(predicted, obtained) for predicted, obtained in pairs]
        best = [float(np.max(obtained)) for _, obtained in pairs]
        return {"relative_error_increase": measures.relative_error_increase(picked, best)}
