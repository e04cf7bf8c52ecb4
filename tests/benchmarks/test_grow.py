"""Whether a grown index may replace the old one."""

from __future__ import annotations

import pytest

from benchmarks.index.grow import compared, figures, is_worse
from hf_task2vec.metric import train
from tests.support.synthetic import measured_zoo

BEFORE = {"new checkpoint": {"lab a": 0.5, "lab b": 0.4}, "new task": {"a": 0.9}}


@pytest.mark.parametrize(
    ("after", "worse"),
    [
        ({"new checkpoint": {"lab a": 0.5, "lab b": 0.4, "cards c": -1.0}, "new task": {"a": 0.9}}, False),
        ({"new checkpoint": {"lab a": 0.48, "lab b": 0.42}, "new task": {"a": 0.9}}, False),
        ({"new checkpoint": {"lab a": 0.48, "lab b": 0.4}, "new task": {"a": 1.0}}, True),
        ({"new checkpoint": {"lab a": 0.9}, "new task": {"a": 0.8}}, True),
    ],
)
def test_only_what_both_know_is_compared(after: dict[str, dict[str, float]], worse: bool) -> None:
    assert is_worse(compared(BEFORE, after)) is worse


def test_an_index_is_as_good_as_itself() -> None:
    index = measured_zoo()
    new, _ = train(index, steps=2)
    assert "metric.json" in new.attachments
    assert not is_worse(compared(figures(new), figures(new)))
