"""Numbers as labels: read, sampled, embedded with the Gaussian Fisher information; refused with advice elsewhere."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import Features, List, Value
from PIL import Image
from synthetic import embedding as made_up
from synthetic import pictures, tiny_probe, zoo

from hf_task2vec import selection
from hf_task2vec.distance import pairwise
from hf_task2vec.embed import embed_task
from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.errors import ColumnError, LabelError
from hf_task2vec.fisher import diagonal_fisher
from hf_task2vec.head import fit_head
from hf_task2vec.probe import Probe
from hf_task2vec.selection import select_backbone
from hf_task2vec.targets import check_classes
from hf_task2vec.task import Task
from hf_task2vec.transfer import measure
from hf_task2vec.transferability import ridge_r2

COUNT = 30
#: The selection refuses a regression before it embeds once the change to it is in.
refuses_early = pytest.mark.skipif(
    not hasattr(selection, "check_classes"), reason="the selection does not yet refuse a regression by itself"
)


def brightness() -> np.ndarray:
    return np.array([picture.mean() for picture in pictures(COUNT, COUNT)])


def data(values: Any, kind: Any = None, column: str = "brightness") -> datasets.Dataset:
    cells = [Image.fromarray(picture) for picture in pictures(COUNT, COUNT)]
    features = Features({"image": datasets.Image(), column: kind or Value("float64")})
    return datasets.Dataset.from_dict({"image": cells, column: list(values)}, features=features)


@pytest.fixture(scope="module")
def probe() -> Probe:
    return tiny_probe()


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_a_float_column_is_a_regression(kind: str) -> None:
    task = Task.from_dataset(data(brightness(), Value(kind)), max_samples=None)
    assert (task.label_kind, task.label_column, task.label_names) == ("regression", "brightness", ("value",))
    assert task.labels.dtype == np.float64
    assert task.labels[:, 0] == pytest.approx(brightness()[task.indices], rel=1e-3)
    assert repr(task).endswith("1 targets, regression)")
    facts = task.describe()
    assert facts["sample_counts"] == facts["class_counts"] == [COUNT]
    assert facts["target_mean"] == pytest.approx([brightness().mean()], rel=1e-3)
    assert json.dumps(facts, allow_nan=False)


def test_vectors_are_several_targets() -> None:
    vectors = np.stack([brightness(), brightness() ** 2], axis=1)
    task = Task.from_dataset(data(vectors.tolist(), List(Value("float32"))), label_column="brightness")
    assert task.labels.shape == (COUNT, 2)
    assert task.label_names == ("0", "1")
    with pytest.raises(LabelError, match="lists of numbers of several lengths"):
        Task.from_dataset(data([[1.5]] * 9 + [[1.5, 2.0]] * 21, List(Value("float32")), "labels"))


def test_rows_without_a_number_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    values = brightness().tolist()
    values[3], values[5] = float("nan"), None
    task = Task.from_dataset(data(values), max_samples=None)
    assert task.n_unlabelled == 2
    assert not {3, 5} & set(task.indices.tolist())
    assert "2 of 30 rows have no label" in caplog.text
    vectors = [[1.5, value] for value in values]
    assert Task.from_dataset(data([[v, v] for _, v in vectors], List(Value("float64")), "labels")).n_unlabelled == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([2.5] * COUNT, "the target is 2.5 in all 30 labelled rows; a regression needs targets that differ"),
        ([float("inf"), *range(COUNT - 1)], "some targets are infinite"),
        ([None] * COUNT, "no row has a label"),
    ],
)
def test_targets_that_are_none(values: list[Any], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        Task.from_dataset(data(values))


def test_floats_that_look_like_classes_and_integers_that_do_not(caplog: pytest.LogCaptureFixture) -> None:
    assert Task.from_dataset(data([float(i % 3) for i in range(COUNT)])).label_kind == "regression"
    assert "3 distinct whole values and are taken as targets of a regression; if they are classes, cast" in caplog.text
    caplog.clear()
    assert Task.from_dataset(data(range(COUNT), Value("int64"), "age"), label_column="age").num_classes == COUNT
    assert "30 distinct integers in 30 rows count as so many classes; if they are quantities, cast" in caplog.text


def test_which_column() -> None:
    two = data(brightness()).add_column("contrast", brightness()[::-1].tolist())
    with pytest.raises(ColumnError, match=r"no label column; .*or of numbers \(float, for a regression\)"):
        Task.from_dataset(two)
    assert Task.from_dataset(two, label_column="contrast").label_column == "contrast"
    classes = two.add_column("label", [i % 3 for i in range(COUNT)])
    assert Task.from_dataset(classes).label_kind == "single_label"


def test_the_sample_is_random_and_nested_and_streams(tmp_path: Path) -> None:
    small, large = (Task.from_dataset(data(brightness()), max_samples=n, seed=3) for n in (8, 16))
    assert small.indices.tolist() == large.indices[:8].tolist()
    assert small.fingerprint != Task.from_dataset(data(brightness() + 1.0), max_samples=8, seed=3).fingerprint
    stream = data(brightness()).to_iterable_dataset()
    drawn = [Task.from_dataset(stream, max_samples=4, seed=seed).indices.tolist() for seed in range(12)]
    assert len({row for rows in drawn for row in rows}) > COUNT / 2, "rows from everywhere, not only the last ones"


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # `datasets` leaves metadata.csv to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_with_metadata(tmp_path: Path) -> None:
    for i, picture in enumerate(pictures(COUNT, COUNT)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    rows = [f"{i}.png,{value:.3f}" for i, value in enumerate(brightness())]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,brightness", *rows]))
    assert Task.from_dataset(tmp_path).label_kind == "regression"
    gc.collect()


# ---------------------------------------------------------------------- embedding


def test_embedding(probe: Probe) -> None:
    task = Task.from_dataset(data(brightness()), max_samples=None)
    found = embed_task(task, probe, label_sampling="exact")
    head = fit_head(_features(probe, task), task.labels, 1)
    assert head.likelihood == "gaussian"
    batches = [(_images(task), np.arange(COUNT))]
    expected = diagonal_fisher(probe, batches, head=head, label_sampling="exact").mean()
    assert found.values == pytest.approx(expected, rel=1e-3)
    facts = found.descriptors
    assert facts["n_targets"] == 1.0
    assert "n_classes" not in facts
    assert facts["probe_r2"] > 0.7
    shuffled = np.random.default_rng(0).permutation(brightness())
    control = embed_task(Task.from_dataset(data(shuffled), max_samples=None), probe)
    assert control.descriptors["probe_r2"] < 0.3
    assert json.dumps(found.describe(), allow_nan=False)


def _images(task: Task) -> Any:
    import torch
    from synthetic import to_tensor

    return torch.stack([to_tensor(task.images[i]) for i in range(len(task))])


def _features(probe: Probe, task: Task) -> np.ndarray:
    features: np.ndarray = probe.features(_images(task)).double().numpy()
    return features


def test_units_of_a_target_do_not_matter(probe: Probe) -> None:
    plain = np.stack([brightness(), brightness()[::-1]], axis=1)
    other = plain * [1000.0, -0.01] + [5.0, 300.0]
    tasks = [
        Task.from_dataset(data(v.tolist(), List(Value("float64")), "labels"), max_samples=None) for v in (plain, other)
    ]
    found = [embed_task(task, probe, label_sampling="exact") for task in tasks]
    assert found[0].values == pytest.approx(found[1].values, rel=1e-4)
    assert found[0].descriptors["probe_r2"] == pytest.approx(found[1].descriptors["probe_r2"], abs=1e-6)


def test_r2_is_leave_one_out_and_zero_without_information() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5))
    y = x[:, :1] + 0.5 * rng.normal(size=(400, 1))
    assert ridge_r2(x, y) == pytest.approx(0.8, abs=0.05)
    assert np.mean([ridge_r2(rng.normal(size=(80, 200)), y[:80]) for _ in range(10)]) == pytest.approx(0.0, abs=0.05)
    assert ridge_r2(x, np.concatenate([y, x[:, 1:2]], axis=1)) == pytest.approx((ridge_r2(x, y) + 1) / 2, abs=0.05)


def test_saved_loaded_and_compared(probe: Probe, tmp_path: Path) -> None:
    task = Task.from_dataset(data(brightness()), max_samples=None)
    embed_task(task, probe).save(tmp_path / "one")
    again = TaskEmbedding.load(tmp_path / "one")
    assert again.task["label_kind"] == "regression"
    other = made_up(5, weights_hash=probe.weights_hash)
    distances = pairwise([again, other], "log_correlation")
    assert 0 < distances[0, 1] <= 2


# ---------------------------------------------------------------------- refusals


def advised(message: str, dataset: datasets.Dataset) -> datasets.Dataset:
    """Run what a message recommends."""
    code = re.search(r"(edges = .*?); (dataset = .*?) and label_column=\"bin\"", message)
    assert code is not None, message
    names: dict[str, Any] = {"np": np, "dataset": dataset}
    exec(f"{code[1]}\n{code[2]}", names)
    result: datasets.Dataset = names["dataset"]
    return result


@pytest.mark.parametrize("several", [False, True])
def test_measuring_is_refused_with_advice_that_works(probe: Probe, several: bool) -> None:
    values = [[value, 1.0 / value] for value in brightness()] if several else brightness()
    dataset = data(values, List(Value("float64")) if several else Value("float64"), "labels")
    with pytest.raises(LabelError, match=r"the labels 'labels' of 'dataset' are numbers \(a regression\)") as error:
        measure(probe, Task.from_dataset(dataset))
    binned = Task.from_dataset(advised(str(error.value), dataset), label_column="bin", max_samples=None)
    assert binned.label_kind == "single_label"
    assert np.ptp(binned.class_counts) <= 1
    assert len(binned.class_counts) == 4


def test_classes_pass() -> None:
    check_classes("single_label", "label", "x")
    check_classes(None, None, "x")


@refuses_early
@pytest.mark.parametrize("refine", [0, 2])
def test_select_refuses_before_it_embeds(probe: Probe, monkeypatch: pytest.MonkeyPatch, refine: int) -> None:
    monkeypatch.setattr(selection, "cached_embedding", lambda *_, **__: pytest.fail("it was embedded"))
    index = zoo(weights_hash=probe.weights_hash)
    for dataset in (data(brightness()), Task.from_dataset(data(brightness()))):
        with pytest.raises(LabelError, match=r"numbers \(a regression\)\. Such a task can be embedded"):
            select_backbone(dataset, index=index, probe=probe, refine=refine)


@refuses_early
def test_select_refuses_an_embedding_of_numbers(probe: Probe) -> None:
    found = embed_task(Task.from_dataset(data(brightness())), probe)
    with pytest.raises(LabelError, match=r"'brightness' of 'dataset' are numbers \(a regression\)"):
        select_backbone(found, index=zoo(weights_hash=probe.weights_hash))
