"""The measures as modules of the `evaluate` library, offline."""

from __future__ import annotations

import numpy as np
import pytest

from hf_task2vec import measures
from hf_task2vec.errors import EvaluationError
from hf_task2vec.evaluate_modules import RegretAtK, RelativeErrorIncrease, WeightedKendallTau

PREDICTED = [[0.9, 0.8, 0.7], [0.1, 0.2, 0.3, 0.4]]
OBTAINED = [[0.6, 0.9, 0.5], [0.2, 0.4, 0.6, 0.5]]


def test_one_task() -> None:
    found = RegretAtK().compute(predictions=PREDICTED[0], references=OBTAINED[0])
    assert found == {"regret_at_1": pytest.approx(0.3)}
    assert RegretAtK().compute(predictions=PREDICTED[0], references=OBTAINED[0], k=2) == {"regret_at_2": 0.0}
    tau = WeightedKendallTau().compute(predictions=np.array(PREDICTED[0]), references=np.array(OBTAINED[0]))
    assert tau == {"weighted_kendall_tau": pytest.approx(measures.weighted_kendall_tau(PREDICTED[0], OBTAINED[0]))}
    increase = RelativeErrorIncrease().compute(predictions=PREDICTED[0], references=OBTAINED[0])
    assert increase == {"relative_error_increase": pytest.approx(0.4 / 0.1 - 1)}


def test_several_tasks_are_averaged() -> None:
    found = RegretAtK().compute(predictions=PREDICTED, references=OBTAINED)
    assert found == {"regret_at_1": pytest.approx((0.3 + 0.1) / 2)}
    expected = np.mean([measures.weighted_kendall_tau(p, y) for p, y in zip(PREDICTED, OBTAINED, strict=True)])
    tau = WeightedKendallTau().compute(predictions=PREDICTED, references=OBTAINED)
    assert tau == {"weighted_kendall_tau": pytest.approx(expected)}
    increase = RelativeErrorIncrease().compute(predictions=PREDICTED, references=OBTAINED)
    assert increase == {"relative_error_increase": pytest.approx((0.4 + 0.5) / (0.1 + 0.4) - 1)}


def test_batches() -> None:
    regret = RegretAtK()
    for start in (0, 2):
        regret.add_batch(predictions=PREDICTED[1][start : start + 2], references=OBTAINED[1][start : start + 2])
    assert regret.compute() == {"regret_at_1": pytest.approx(0.1)}  # of the four together
    for predicted, obtained in zip(PREDICTED, OBTAINED, strict=True):
        regret.add(prediction=predicted, reference=obtained)
    assert regret.compute(k=2) == {"regret_at_2": pytest.approx(0.0)}
    regret.add_batch(predictions=PREDICTED, references=OBTAINED)
    assert regret.compute() == {"regret_at_1": pytest.approx(0.2)}


@pytest.mark.parametrize("module", [RegretAtK, WeightedKendallTau, RelativeErrorIncrease])
def test_they_say_what_they_are(module: type) -> None:
    made = module()
    assert "Task2Vec" in made.citation
    assert "predictions: predicted scores" in made.inputs_description
    assert made.description


def test_mistakes() -> None:
    with pytest.raises(EvaluationError, match="must be finite"):
        RegretAtK().compute(predictions=[0.1, float("nan")], references=[0.1, 0.2])
    with pytest.raises(EvaluationError, match=r"must lie in \[0, 1\]"):
        RelativeErrorIncrease().compute(predictions=[1.0, 2.0], references=[80.0, 90.0])
    with pytest.raises(EvaluationError, match="k=0: give at least 1"):
        RegretAtK().compute(predictions=[0.1, 0.2], references=[0.1, 0.2], k=0)
