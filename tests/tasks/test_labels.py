from __future__ import annotations

import logging
import re
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, List, Value
from PIL import Image

from hf_task2vec.errors import ColumnError, LabelError
from hf_task2vec.tasks.labels import Labels, read_labels
from hf_task2vec.tasks.task import Task
from tests.support.synthetic import pictures

ABC = ClassLabel(names=["a", "b", "c"])


def labels_of(values: list[Any], feature: Any, kind: pa.DataType | None = None) -> Labels:
    return read_labels(pa.chunked_array([pa.array(values[:2], kind), pa.array(values[2:], kind)]), feature)


def test_class_label_keeps_names_without_rows() -> None:
    labels = labels_of([2, 0, 2, 0], ABC, pa.int64())
    assert labels.kind == "single_label"
    assert labels.names == ("a", "b", "c")
    assert labels.counts.tolist() == [2, 0, 2]
    assert labels.of(np.array([3, 0])).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("values", "feature", "names", "expected"),
    [
        (["c", "a", "c", "a"], ABC, ("a", "b", "c"), [2, 0, 2, 0]),  # as a card may declare a column of names
        (["2", "0", "2", "0"], ABC, ("a", "b", "c"), [2, 0, 2, 0]),
        (["dog", "cat", "dog", "cat"], ABC, ("cat", "dog"), [1, 0, 1, 0]),
        ([10, 9, 10, 2], Value("int32"), ("2", "9", "10"), [2, 1, 2, 0]),
        (["dog", "cat", "dog", "cat"], Value("string"), ("cat", "dog"), [1, 0, 1, 0]),
        ([True, False, True, True], Value("bool"), ("False", "True"), [1, 0, 1, 1]),
        ([-1, 1, -1, 1], Value("int64"), ("-1", "1"), [0, 1, 0, 1]),
    ],
)
def test_names_of_plain_values(values: list[Any], feature: Any, names: tuple[str, ...], expected: list[int]) -> None:
    labels = labels_of(values, feature)
    assert labels.names == names
    assert labels.of(np.arange(4)).tolist() == expected
    assert labels.n_unlabelled == 0


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        ([0, None, 1, -1, 1], ABC),
        ([5, None, 6, None, 6], Value("int64")),
        (["x", "", "y", None, "y"], Value("string")),
    ],
)
def test_missing_labels_are_counted(values: list[Any], feature: Any, caplog: pytest.LogCaptureFixture) -> None:
    labels = labels_of(values, feature)
    assert labels.labelled.tolist() == [True, False, True, False, True]
    assert labels.n_unlabelled == 2
    assert labels.counts.sum() == 3
    assert labels.of(np.array([0, 2, 4])).tolist() == [0, 1, 1]
    assert "2 of 5 rows have no label and are left out" in caplog.text


def test_minus_one_among_plain_integers_is_a_class_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert labels_of([-1, 0, 1, -1], Value("int64")).names == ("-1", "0", "1")
    assert "replace it by null" in caplog.text


def test_no_labels_at_all() -> None:
    with pytest.raises(LabelError, match=r"no row has a label: all 3 labels are missing"):
        labels_of([-1, -1, None], ABC, pa.int64())


def test_class_number_beyond_the_names() -> None:
    with pytest.raises(LabelError, match="class number 3 found, but the label column declares 3 names"):
        labels_of([0, 1, 3], ABC)


@pytest.mark.parametrize(
    ("values", "feature", "names"),
    [
        ([[0, 2], [], [2, 2], None], List(ABC), ("a", "b", "c")),
        ([["x", "z"], [], ["z"], None], List(Value("string")), ("x", "z")),
        ([[3, 40], [], [40], None], List(Value("int64")), ("3", "40")),
    ],
)
def test_several_labels_a_row(values: list[Any], feature: Any, names: tuple[str, ...]) -> None:
    labels = labels_of(values, feature)
    last = len(names) - 1
    assert labels.kind == "multi_label"
    assert labels.names == names
    assert labels.labelled.tolist() == [True, True, True, False]
    hot = labels.of(np.array([0, 1, 2]))
    assert hot.dtype == np.uint8
    assert [row.nonzero()[0].tolist() for row in hot] == [[0, last], [], [last]]
    rows, classes = labels.sampling_pairs()
    assert (1, len(names)) in set(zip(rows.tolist(), classes.tolist(), strict=True)), "the empty list counts as a class"


@pytest.mark.parametrize("length", [-1, 3])
@pytest.mark.parametrize("kind", ["int64", "bool"])
def test_multi_hot_lists(length: int, kind: str) -> None:
    values = [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    column = pa.chunked_array([pa.array(values).cast(pa.list_(pa.int64(), length)).cast(pa.list_(pa.int64()))])
    if kind == "bool":
        column = pa.chunked_array([pa.array([[bool(v) for v in row] for row in values])])
    if length == 3:
        column = column.cast(pa.list_(column.type.value_type, 3))
    labels = read_labels(column, List(Value(kind), length=length))
    assert labels.names == ("0", "1", "2")
    assert labels.of(np.arange(3)).tolist() == values


def test_one_hot_lists_are_one_class() -> None:
    labels = labels_of([[1, 0, 0], [0, 0, 1], None, [0, 0, 1]], List(Value("int64")))
    assert (labels.kind, labels.names) == ("single_label", ("0", "1", "2"))
    assert labels.of(np.array([0, 1, 3])).tolist() == [0, 2, 2]


def test_pairs_of_classes_zero_and_one_are_not_multi_hot() -> None:
    labels = labels_of([[0, 1], [1, 0], [0, 1], [5]], List(Value("int64")))
    assert labels.names == ("0", "1", "5")


def test_lists_of_exactly_one_label_are_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    labels_of([["x"], ["y"]] * 4, List(Value("string")))
    assert "every row has a list of exactly one label" in caplog.text


def test_all_rows_with_the_same_label_set() -> None:
    with pytest.raises(LabelError, match="same set of labels"):
        labels_of([["a"], ["a"], ["a"]], List(Value("string")))


@pytest.mark.parametrize("kind", [Value("float16"), Value("float64"), List(Value("float32"))])
def test_floats_are_refused_with_a_line_that_bins_them(kind: Any) -> None:
    numbers = [picture.mean() for picture in pictures(24)]
    cells = [Image.fromarray(picture) for picture in pictures(24)]
    values = [[number, 2.5] for number in numbers] if isinstance(kind, List) else numbers
    features = datasets.Features({"image": datasets.Image(), "labels": kind})
    data = datasets.Dataset.from_dict({"image": cells, "labels": values}, features=features)
    with pytest.raises(LabelError, match="label column 'labels': the labels are floats, and a task needs") as error:
        Task.from_dataset(data)
    if not isinstance(kind, List):
        advice = re.search(r"(edges = .*?); (dataset = .*?) and label_column=\"bin\"", str(error.value))
        assert advice is not None
        names: dict[str, Any] = {"np": np, "dataset": data}
        exec(f"{advice[1]}\n{advice[2]}", names)
        binned = Task.from_dataset(names["dataset"], label_column="bin")
        assert binned.class_counts.tolist() == [6, 6, 6, 6]
    with pytest.raises(ColumnError, match=r"no label column; .*floats are no classes, bin them first"):
        Task.from_dataset(data.rename_column("labels", "brightness"))


def test_tags_are_split_at_blanks(caplog: pytest.LogCaptureFixture) -> None:
    values = pa.chunked_array([["red round", "green", "red long", "green round"]])
    labels = read_labels(values, Value("string"), name="tags")
    assert labels.names == ("green", "long", "red", "round")
    assert "are split at ' ': several labels an image" in caplog.text
    sentences = pa.chunked_array([["one two", "three", "four five", "six"]])  # no word occurs again
    assert read_labels(sentences, Value("string"), name="tags").names == ("four five", "one two", "six", "three")


def test_many_integers_count_as_classes_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    labels = read_labels(pa.chunked_array([[*range(40), 0, 1]]), Value("int64"))
    assert len(labels.names) == 40
    assert "40 distinct integers in 42 rows count as so many classes; if they measure, bin them" in caplog.text
