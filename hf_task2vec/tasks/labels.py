"""Labels: a column of classes in any of the usual types, as class numbers and names."""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hf_task2vec.errors import LabelError
from hf_task2vec.tasks.columns import element, is_float, kind_of
from hf_task2vec.tasks.text import listed, without_folders

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

LabelKind = Literal["single_label", "multi_label"]
SEPARATORS = ("|", ";", ",")
_TAGS = ("tags", "labels", "keywords", "attributes", "attribute_ids", "classes", "categories")
"""Names of columns whose blanks may join several labels."""
Warn = Callable[[str], object]


def score_name(label_kind: Any) -> str:
    """Return what the score of a ranking is called: ``"mAP"`` with several labels an image, else ``"accuracy"``."""
    return "mAP" if label_kind == "multi_label" else "accuracy"


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of all rows of a split, as (row, class) pairs: small where a multi-hot matrix would not be."""

    kind: LabelKind
    names: tuple[str, ...]  # of the C classes
    rows: np.ndarray  # (P,), int64, ascending: row of each pair
    classes: np.ndarray  # (P,), int64 in [0, C): class of each pair
    labelled: np.ndarray  # (n_rows,), bool: rows that have a label (of several labels, possibly an empty list)

    @cached_property
    def counts(self) -> np.ndarray:
        """Shape (C,), int64: labelled rows of each class."""
        return np.bincount(self.classes, minlength=len(self.names)).astype(np.int64)

    @property
    def n_unlabelled(self) -> int:
        """Rows without a label."""
        return int(np.count_nonzero(~self.labelled))

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the labels of `rows`, each of which must be labelled, as `task.Task.labels` holds them."""
        if self.kind == "single_label":
            return np.asarray(self.classes[np.searchsorted(self.rows, rows)], dtype=np.int64)
        hot = np.zeros((len(rows), len(self.names)), dtype=np.uint8)
        for position, row in enumerate(rows):
            first, last = np.searchsorted(self.rows, [row, row + 1])
            hot[position, self.classes[first:last]] = 1
        return hot

    def sampling_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs to balance a sample over; rows with an empty list count as one more class, C."""
        empty = np.setdiff1d(np.flatnonzero(self.labelled), self.rows)
        return np.concatenate([self.rows, empty]), np.concatenate([self.classes, np.full_like(empty, len(self.names))])


def read_labels(column: pa.ChunkedArray, feature: Any, name: str = "label", warn: Warn = logger.warning) -> Labels:
    """Read a whole label column of the type `feature`.

    A list column is multi-label: its elements are the classes of the row, or, in lists of one length made of zeros and
    ones (or booleans), the flags of classes ``"0"``, ``"1"``, …; with exactly one flag in every row that is its class.
    Text that joins several labels is multi-label too.

    A row has no label where the cell is null, the empty string, or below zero in a `ClassLabel` column. In a plain
    integer column **-1 is a class**: two classes coded -1 and 1 are common and nothing tells them from a mark.
    """
    values = _combined(column)
    inner = element(feature)
    if is_float(feature):
        values = _whole(values, name)
    if inner is not None:
        labels = _multi(values, inner, name)
    elif (lists := split_joined(values, name, warn)) is not None:
        labels = _multi(lists, None, name)
    else:
        codes, names = _encode(values, feature, warn)
        rows = np.flatnonzero(codes >= 0)
        labels = Labels("single_label", names, rows, codes[rows], codes >= 0)
    _check(labels, len(column), warn)
    return labels


def read_flags(columns: Mapping[str, pa.ChunkedArray], warn: Warn = logger.warning) -> Labels:
    """Read columns of yes and no (1 and 0, or 1 and -1), each a class: of one label where every row has exactly one."""
    flags = np.stack([np.asarray(_combined(column).cast("float64")) == 1 for column in columns.values()], axis=1)
    labelled = np.ones(len(flags), dtype=bool)
    rows, classes = (found.astype(np.int64) for found in np.nonzero(flags))
    one_hot = bool((flags.sum(axis=1) == 1).all())
    if not one_hot:
        warn(f"{len(columns)} columns of flags are read as several labels an image; label_column=… takes one of them")
    labels = Labels("single_label" if one_hot else "multi_label", tuple(columns), rows, classes, labelled)
    _check(labels, len(flags), warn)
    return labels


def _combined(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    values = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _whole(values: pa.Array, name: str) -> pa.Array:
    """Return floats as integers if they can be class numbers: whole, and repeated or missing in places."""
    import pyarrow as pa

    numbers = np.asarray(values.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)
    there = numbers[~np.isnan(numbers)]
    if not len(there) or not (there == np.floor(there)).all() or len(np.unique(there)) > max(2, len(there) // 2):
        raise _floats_error(name)
    return pa.array(np.nan_to_num(numbers).astype(np.int64), mask=np.isnan(numbers))


def _floats_error(name: str) -> LabelError:
    return LabelError(
        "the labels are floats, and a task needs classes. What would work: bin them, into four of equal size say: "
        f'edges = np.nanquantile(dataset["{name}"], [0.25, 0.5, 0.75]); dataset = dataset.map(lambda row: '
        f'{{"bin": int(np.searchsorted(edges, row["{name}"]))}}) and label_column="bin". If the numbers are class '
        f'numbers: dataset = dataset.cast_column("{name}", datasets.Value("int64"))'
    )


def _multi(values: pa.Array, feature: Any, name: str) -> Labels:
    """Read lists; `feature` is the type of their elements in ``dataset.features``, None for plain text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = values.cast(pa.large_list(values.type.value_type))
    labelled = np.asarray(values.is_valid())
    parents = np.asarray(pc.list_parent_indices(values)).astype(np.int64)
    elements = pc.list_flatten(values)
    flags = None if kind_of(feature) == "ClassLabel" else _flags(elements, parents, int(labelled.sum()))
    if flags is not None:
        positions, classes = np.nonzero(flags)
        rows = parents[:: flags.shape[1]][positions]
        names = tuple(map(str, range(flags.shape[1])))
        if (flags.sum(axis=1) == 1).all():
            return Labels("single_label", names, rows, classes.astype(np.int64), labelled)
    elif is_float(feature):
        raise _floats_error(name)
    else:
        codes, names = _encode(elements, feature)
        rows, classes = parents[codes >= 0], codes[codes >= 0]
    pairs = np.unique(np.stack([rows, classes], axis=1), axis=0).astype(np.int64)  # a label listed twice is one label
    return Labels("multi_label", names, pairs[:, 0], pairs[:, 1], labelled)


def _flags(elements: pa.Array, parents: np.ndarray, n_lists: int) -> np.ndarray | None:
    """Return multi-hot lists as zeros and ones, shape (lists, length); None if the lists are not multi-hot.

    Lists of class numbers 0 and 1 could look alike, but would not repeat a number.
    """
    import pyarrow as pa

    kind = elements.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)) or not len(elements):
        return None
    lengths = np.unique(parents, return_counts=True)[1]  # of the lists that are not empty
    length = int(lengths[0])
    if length < 2 or not (lengths == length).all():
        return None
    numbers = np.asarray(elements.cast(pa.float64()).fill_null(np.nan), dtype=np.float64).reshape(-1, length)
    unknown = np.isnan(numbers) | (numbers == -1.0)
    if not np.isin(numbers[~unknown], (0.0, 1.0)).all():
        return None
    if length >= 3 and unknown.any() and (numbers == 0.0).any():
        raise LabelError(
            f"lists of {length} flags hold {np.count_nonzero(unknown)} nulls or -1 beside 0 and 1 (labels not known?); "
            "say which they are: dataset.map(lambda row: {'labels': [int(flag == 1) for flag in row[column]]}) counts "
            "them as absent"
        )
    if unknown.any() or len(lengths) < n_lists:
        return None
    ordered = np.sort(numbers, axis=1)
    repeats = bool((ordered[:, 1:] == ordered[:, :-1]).any())
    return numbers if repeats or not pa.types.is_integer(kind) else None


def split_joined(values: pa.Array, name: str = "label", warn: Warn = logger.warning) -> pa.Array | None:
    """Split text that joins several labels, as CSV files hold them (``"cat|dog"``, ``"cat, dog"``); None for other.

    There the parts are no more than the distinct values, vary in number, and repeat: ``"tomato, healthy"`` is a name.
    Blanks join labels only in a column whose name says that there are several (``tags``).
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return None
    distinct = [value for value in pc.unique(values).to_pylist() if value]
    if len(distinct) > 1 and all(value.strip().startswith("[") and value.strip().endswith("]") for value in distinct):
        raise LabelError(
            f"the labels are text that looks like lists ({distinct[0][:60]!r}); make real lists of them: "
            "dataset.map(lambda row: {'labels': ast.literal_eval(row[column])}), or write a metadata.jsonl or Parquet "
            "file, which hold lists, in place of metadata.csv"
        )
    separator = next((mark for mark in SEPARATORS if _joins(distinct, mark)), None)
    if separator is None and name.lower() in _TAGS and any(len(value.split()) > 1 for value in distinct):
        counts = Counter(word for value in distinct for word in set(value.split()))
        if sum(times > 1 for times in counts.values()) >= max(1, len(counts) // 3):  # words that occur again
            separator = " "
    if separator is None:
        return None
    example = next(value for value in distinct if separator in value)
    warn(
        f"labels such as {example[:60]!r} are split at {separator!r}: several labels an image. If they are names of "
        "classes, cast the column to ClassLabel"
    )
    lists = [_parts(cell, separator) if cell else None for cell in values.to_pylist()]
    return pa.array(lists, pa.list_(pa.string()))


def _joins(distinct: list[str], mark: str) -> bool:
    if not any(mark in value for value in distinct):
        return False
    parts = [_parts(value, mark) for value in distinct]
    counts = Counter(label for labels in parts for label in set(labels))
    varied = len({len(labels) for labels in parts}) > 1
    return varied and 2 <= len(counts) <= len(distinct) and max(counts.values()) > 1


def _parts(value: str, mark: str) -> list[str]:
    return [part for part in map(str.strip, value.split(mark)) if part]


def _encode(values: pa.Array, feature: Any, warn: Warn = logger.warning) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class numbers, -1 where missing, and names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    named = is_text and not pc.all(pc.match_substring_regex(values, r"^-?\d+$")).as_py()
    declared = kind_of(feature) == "ClassLabel"
    if declared and not named:
        codes = np.asarray(pc.fill_null(values.cast(pa.int64()), -1)).astype(np.int64)
        if codes.max(initial=-1) >= len(feature.names):
            raise LabelError(
                f"class number {codes.max()} found, but the label column declares {len(feature.names)} names; "
                "correct the names: dataset.cast_column(column, datasets.ClassLabel(names=…))"
            )
        return np.maximum(codes, -1), tuple(without_folders(feature.names))
    distinct = sorted(value for value in pc.unique(values).to_pylist() if value not in (None, ""))
    n_found, n_values = len(distinct), len(values)
    if declared and {*distinct} <= {*feature.names}:  # a card that declares classes over their names
        distinct = [*feature.names]
    elif n_found > max(20, n_values // 2) and isinstance(distinct[0], int):
        warn(f"{n_found} distinct integers in {n_values} rows count as so many classes; if they measure, bin them")
    if n_found > 2 and distinct[:2] == [-1, 0]:
        warn("the label -1 counts as a class; if it marks rows without a label, replace it by null")
    found = pc.index_in(values, pa.array(distinct, type=values.type))
    return np.asarray(pc.fill_null(found, -1)).astype(np.int64), tuple(without_folders([*map(str, distinct)]))


def _check(labels: Labels, n_rows: int, warn: Warn) -> None:
    if not labels.labelled.any():
        raise LabelError(f"no row has a label: all {n_rows} labels are missing (null, NaN, empty, or -1)")
    if labels.n_unlabelled:
        warn(f"{labels.n_unlabelled} of {n_rows} rows have no label and are left out")
    groups: dict[str, list[str]] = defaultdict(list)  # what a person would call the same
    for name in labels.names:
        groups[" ".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    if alike := [listed(map(repr, found), 4) for found in groups.values() if len(found) > 1]:
        spelt = listed(alike, 3, 200)
        warn(f"classes differ only by blanks, case or Unicode form: {spelt}; make them one if they are one")
    if labels.kind == "single_label":
        present = np.flatnonzero(labels.counts)
        if len(present) == 1:
            raise LabelError(
                f"only one class, {labels.names[present[0]]!r}, in all {n_rows - labels.n_unlabelled} labelled rows; "
                "a task needs at least two. Another split or label_column=… may have more"
            )
    elif np.isin(labels.counts, (0, int(labels.labelled.sum()))).all():
        raise LabelError("every row has the same set of labels; a task needs labels that differ between rows")
    elif (np.bincount(labels.rows, minlength=len(labels.labelled))[labels.labelled] == 1).all():
        warn(
            "every row has a list of exactly one label and counts as multi-label all the same; a column with the label "
            "itself in place of the list makes an ordinary classification task"
        )
