"""What a sweep will cost: the estimate before it starts, standard errors from half samples, the table of the docs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sweep_cost import MARKS, PAGE, RESULT, on_paper, table
from hf_task2vec.cells import Cell, CellResult, CellStore, describe, failed
from hf_task2vec.sweep_cost import ASSUMED_GMACS, Estimate, estimate
from hf_task2vec.sweep_inputs import Checkpoint, Failure, SweepTask, TaskSpec, load_probe_of
from hf_task2vec.sweep_measure import family_of, half_sample_errors


def cell(checkpoint: str, task: str = "a", *, max_samples: int | None = 100, kind: str = "measure") -> Cell:
    pinned = Checkpoint(checkpoint, {"id": checkpoint}, lambda: load_probe_of(checkpoint, None, None))
    spec = TaskSpec(dataset=f"org/{task}", task=task)
    return Cell(kind, SweepTask(spec, {"id": task}), pinned, {"max_samples": max_samples, "seed": 0})  # type: ignore[arg-type]


def finish(store: CellStore, done: Cell, n: int, extract: float, rest: float) -> None:
    seconds = {"extract": extract, "score": rest}
    document = describe(done) | {"status": "done", "sample": {"n": n}, "seconds": seconds}
    store.write(done, CellResult(document))


def the_estimate(tmp_path: Path, cells: list[Cell], pending: list[Cell], **options: object) -> Estimate:
    given = {"facts": {"org/big": {"gmacs": 10.0, "params_m": 50.0}}, "task_sizes": {}, "workers": 1, **options}
    return estimate(cells, CellStore(tmp_path), pending=pending, seconds_per_gmac=lambda: 0.01, **given)  # type: ignore[arg-type]


def test_times_come_from_earlier_cells_then_from_multiply_adds(tmp_path: Path) -> None:
    done, left = cell("org/timed"), [cell("org/timed", "b"), cell("org/big", "b"), cell("org/unknown", "b")]
    finish(CellStore(tmp_path), done, 50, extract=5.0, rest=2.0)
    found = the_estimate(tmp_path, [done, *left], left)
    # Two splits of at most 100 images, and two seconds a cell for the rest.
    expected = 200 * (0.1 + 0.01 * 10.0 + 0.01 * ASSUMED_GMACS) + 3 * 2.0
    assert found.hours == pytest.approx(expected / 3600)
    assert (found.cells, found.done, found.failed, found.left, found.images) == (4, 1, 0, 3, 600)
    assert (found.n_timed, found.n_known, found.n_assumed) == (1, 1, 1)
    assert found.download_gb == pytest.approx(0.2)
    assert the_estimate(tmp_path, [done, *left], left, workers=4).hours == pytest.approx(expected / 3600 / 4)
    text = str(found)
    assert "4 cells: 1 are measured, 0 failed, 3 are left. At most 600 image passes, about 54 s" in text
    assert "(checkpoints: 1 timed before, 1 by multiply-adds, 1 assumed); up to 0.2 GB of weights" in text


def test_sizes_of_tasks(tmp_path: Path) -> None:
    everything = [cell("org/big", max_samples=None)]
    assert the_estimate(tmp_path, everything, everything, task_sizes={"a": 321}).images == 321
    few = [cell("org/big", max_samples=100)]
    assert the_estimate(tmp_path, few, few, task_sizes={"a": 321}).images == 200
    measured = cell("org/small")
    finish(CellStore(tmp_path), measured, 77, extract=1.0, rest=0.0)
    assert the_estimate(tmp_path, [measured, *few], few, task_sizes={"a": 321}).images == 77
    embedded = [cell("org/big", kind="embed", max_samples=256)]  # forward and backward
    assert the_estimate(tmp_path, embedded, embedded).images == 3 * 256


def test_kept_features_cost_no_pass(tmp_path: Path) -> None:
    left = [cell("org/big")]
    path = CellStore(tmp_path).features_path(left[0])
    path.parent.mkdir(parents=True)
    path.touch()
    assert the_estimate(tmp_path, left, left).images == 0


def test_nothing_left(tmp_path: Path) -> None:
    done, bad = cell("org/big"), cell("org/bad")
    finish(CellStore(tmp_path), done, 10, extract=1.0, rest=1.0)
    CellStore(tmp_path).write(bad, failed(bad, Failure("ProbeError", "no such checkpoint")))
    found = the_estimate(tmp_path, [done, bad], [])
    assert (found.left, found.failed, found.hours) == (0, 1, 0.0)
    assert str(found) == "2 cells: 1 are measured, 1 failed; nothing is left to do"
    assert json.dumps(found.to_dict())


def test_half_samples_give_the_standard_error_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    n, repeats = 400, 200
    squares = []
    for _ in range(repeats):
        x, labels = rng.normal(0.0, 3.0, (n, 1)), np.arange(n) % 4
        found = half_sample_errors({"mean": lambda f, _: float(f.mean())}, x, labels)
        squares.append(found["mean"] ** 2)
    # Each square is the mean of five of about one degree of freedom: its relative deviation is at most sqrt(2).
    assert np.mean(squares) == pytest.approx(9.0 / n, rel=4 * np.sqrt(2 / repeats))


def test_half_samples_keep_the_classes_and_are_repeatable() -> None:
    labels = np.repeat(np.arange(5), 6)
    seen: list[tuple[int, ...]] = []

    def count(_: object, part: np.ndarray) -> float:
        seen.append(tuple(np.bincount(part, minlength=5)))
        return 0.0

    assert half_sample_errors({"count": count}, np.zeros((30, 2)), labels) == {"count": 0.0}
    assert set(seen) == {(3,) * 5}
    x = np.random.default_rng(1).normal(size=(30, 2))
    statistics = {"first": lambda f, _: float(f[:, 0].mean())}
    assert half_sample_errors(statistics, x, labels) == half_sample_errors(statistics, x, labels)


@pytest.mark.parametrize(
    ("library", "architecture", "family"),
    [
        ("timm", "vit_tiny_patch16_224", "vit"),
        ("timm", "resnet10t", "resnet"),
        ("timm", "mobilenetv3_small_100", "mobilenetv3"),
        ("timm", "no_such_network", None),
        ("transformers", "vit_mae", "vit_mae"),
        ("transformers", "Odd Type!", "odd_type_"),
    ],
)
def test_families(library: str, architecture: str, family: str | None) -> None:
    assert family_of(library, architecture) == family


def test_the_table_of_the_docs_is_that_of_the_raw_output() -> None:
    measured = json.loads(RESULT.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(MARKS[0])[2].partition(MARKS[1])[0].strip() == table(measured)
    assert measured["on_paper"] == pytest.approx(on_paper(measured))
