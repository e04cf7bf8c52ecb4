"""The model of what experts gain: the package has what the committed measurements give."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.common import ROOT, read
from benchmarks.selection.expert_gain import fitted, judged, pairs, predicted, unusual
from hf_task2vec.metric.experts import EXPERT_GAIN
from hf_task2vec.zoo.index import ZooIndex


def test_the_package_has_the_line_that_the_measured_experts_give() -> None:
    index = ZooIndex.load(ROOT / "zoo_index")
    rows = [row for row in pairs(index) if not row["same_images"]]
    assert asdict(fitted(rows, unusual(index))) == pytest.approx(read("expert_gain")["gain"], rel=1e-4)
    assert asdict(EXPERT_GAIN) == pytest.approx(read("expert_gain")["gain"], abs=6e-4)


def test_a_kind_of_tasks_is_judged_without_itself() -> None:
    """Where nearness helps on one kind only, it is not promised to the others."""
    rng = np.random.default_rng(0)
    rows = [
        {"task": f"{kind}{i // 4}", "kind": kind, "nearness": x, "of_base": 0.5, "gain": y, "points": 10.0 * y}
        for kind, helps in (("glyphs", True), ("medical", False))
        for i, x in enumerate(rng.uniform(0.76, 1.0, 40))
        if (y := (x - 0.8 if helps else -0.2) + rng.normal(0, 1e-3)) or True
    ]
    expected, deviation = predicted(rows, 0.75)
    own = np.array([row["kind"] == "glyphs" for row in rows])
    assert expected[own] == pytest.approx(-0.2, abs=5e-3)
    assert np.corrcoef(expected[~own], [row["nearness"] for row in rows if row["kind"] == "medical"])[0, 1] > 0.999
    found = judged(rows, expected, deviation, expected)
    assert found["over_base"]["model"]["points"] == pytest.approx(-1.0, abs=0.05), "half the tasks lose two points"
    assert (found["experts_taken"], found["taken_that_beat"], found["tasks"]) == (10, 0, 20)
