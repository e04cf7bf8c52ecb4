"""Labels: a column of classes or numbers in any of the usual types, as class numbers and names, or as targets."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .columns import element, is_class_label, is_float
from .errors import LabelError
from .label_text import split_joined, uncertain_flags
from .targets import check_targets, read_numbers, read_vectors

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

LabelKind = Literal["single_label", "multi_label", "regression"]


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of all rows of a split, as (row, class) pairs.

    Pairs stay small where a multi-hot matrix of a large split would not. In a regression, where there is nothing to
    balance, every labelled row is a pair with class 0.
    """

    kind: LabelKind
    names: tuple[str, ...]
    """Names of the C classes, or of the C targets of a regression."""
    rows: np.ndarray
    """Shape (P,), int64, ascending: row of each pair."""
    classes: np.ndarray
    """Shape (P,), int64 in [0, C): class of each pair."""
    labelled: np.ndarray
    """Shape (n_rows,), bool: rows that have a label (in multi-label tasks possibly an empty list)."""
    targets: np.ndarray | None = None
    """``regression`` only: shape (P, C), float64, the targets of each of `rows`."""

    @cached_property
    def counts(self) -> np.ndarray:
        """Shape (C,), int64: labelled rows of each class; of each target, the rows that have it."""
        if self.kind == "regression":
            return np.full(len(self.names), len(self.rows), dtype=np.int64)
        return np.bincount(self.classes, minlength=len(self.names)).astype(np.int64)

    @property
    def n_unlabelled(self) -> int:
        """Rows without a label."""
        return int(np.count_nonzero(~self.labelled))

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the labels of `rows`, each of which must be labelled.

        Returns
        -------
        numpy.ndarray
            ``single_label``: shape (N,), int64 class numbers. ``multi_label``: shape (N, C), uint8 zeros and ones.
            ``regression``: shape (N, C), float64.
        """
        if self.targets is not None:
            return np.asarray(self.targets[np.searchsorted(self.rows, rows)], dtype=np.float64)
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


def is_missing(value: Any, feature: Any) -> bool:
    """Return whether one cell says that the row has no label.

    That is null; -1 (or below) in a `ClassLabel` column, where it cannot be a class; the empty string; NaN. In a plain
    integer column **-1 is a class**: two classes coded -1 and 1 are common and nothing tells them from a mark.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return True
    return is_class_label(feature) and bool(value < 0)


def balanced_over(value: Any, feature: Any) -> list[Any]:
    """Return what a balanced sample counts of one cell that is not missing: its classes; of numbers nothing."""
    if is_float(feature) or is_float(element(feature)):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def read_labels(column: pa.ChunkedArray, feature: Any) -> Labels:
    """Read a label column.

    Parameters
    ----------
    column
        The whole column, one value a row.
    feature
        Its type in ``dataset.features``; `columns.find_label_column` has checked that it holds classes.

    Returns
    -------
    Labels
        `ClassLabel` names are kept, also those of classes without a row. For integers, strings and booleans the names
        are the distinct values, sorted, as text. A list column is multi-label: its elements are the classes of the
        row, or, in lists of one length made of zeros and ones (or booleans), the flags of classes ``"0"``, ``"1"``, ….
        Text that joins several labels (``"cat|dog"``; see `label_text.split_joined`) is multi-label too. Floats, and
        lists of floats that are no flags, are the targets of a regression.

    Raises
    ------
    LabelError
        If no row has a label, all rows have the same, a class number is out of range, or targets are not finite or
        of several lengths.
    """
    import pyarrow as pa

    values = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # pyarrow before 23 does not combine an empty one
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], column.type)
    inner = element(feature)
    if is_float(feature):
        labels = _regression(read_numbers(values), len(values))
    elif inner is not None:
        labels = _multi(values, inner)
    elif (lists := split_joined(values)) is not None:
        labels = _multi(lists, None)
    else:
        labels = _single(values, feature)
    _check(labels, n_rows=len(column))
    return labels


def _regression(found: tuple[np.ndarray, np.ndarray, tuple[str, ...]], n_rows: int) -> Labels:
    targets, rows, names = found
    labelled = np.zeros(n_rows, dtype=bool)
    labelled[rows] = True
    return Labels("regression", names, rows, np.zeros_like(rows), labelled, targets)


def _single(values: pa.Array, feature: Any) -> Labels:
    codes, names = _encode(values, feature)
    labelled = codes >= 0
    rows = np.flatnonzero(labelled)
    return Labels("single_label", names, rows, codes[rows], labelled)


def _multi(values: pa.Array, feature: Any) -> Labels:
    """Read lists; `feature` is the type of their elements in ``dataset.features``, None for plain text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = values.cast(pa.large_list(values.type.value_type))
    labelled = np.asarray(values.is_valid())
    parents = np.asarray(pc.list_parent_indices(values)).astype(np.int64)
    elements = pc.list_flatten(values)
    n_flags = _n_flags(elements, parents, int(labelled.sum()))
    if not is_class_label(feature) and (mark := uncertain_flags(elements, parents)):
        raise LabelError(mark)
    if not n_flags and is_float(feature):
        return _regression(read_vectors(elements, parents), len(values))
    if n_flags:
        flags = np.asarray(elements.cast(pa.uint8())).reshape(-1, n_flags)
        positions, classes = np.nonzero(flags)
        rows = parents[::n_flags][positions]
        names = tuple(map(str, range(n_flags)))
    else:
        codes, names = _encode(elements, feature)
        rows, classes = parents[codes >= 0], codes[codes >= 0]
    pairs = np.unique(np.stack([rows, classes], axis=1), axis=0).astype(np.int64)  # a label listed twice is one label
    return Labels("multi_label", names, pairs[:, 0], pairs[:, 1], labelled)


def _n_flags(elements: pa.Array, parents: np.ndarray, n_lists: int) -> int:
    """Return the length of multi-hot lists, 0 if the lists are not multi-hot.

    Lists of class numbers 0 and 1 could look alike, but would not repeat a number.
    """
    import pyarrow as pa

    if n_lists == 0 or elements.null_count or len(elements) == 0 or len(elements) % n_lists:
        return 0
    kind = elements.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return 0
    length = len(elements) // n_lists
    numbers = np.asarray(elements.cast(pa.float64()))
    same_length = bool((np.unique(parents, return_counts=True)[1] == length).all())
    if length < 2 or not same_length or not np.isin(numbers, (0, 1)).all():
        return 0
    first = numbers.reshape(n_lists, length)
    repeats = bool((np.sort(first, axis=1)[:, 1:] == np.sort(first, axis=1)[:, :-1]).any())
    return length if repeats or not pa.types.is_integer(kind) else 0


def _encode(values: pa.Array, feature: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class numbers, -1 where missing, and names."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_class_label(feature):
        codes = np.asarray(pc.fill_null(values.cast(pa.int64()), -1)).astype(np.int64)
        if codes.max(initial=-1) >= len(feature.names):
            raise LabelError(
                f"class number {codes.max()} found, but the label column declares {len(feature.names)} names; "
                "correct the names: dataset.cast_column(column, datasets.ClassLabel(names=…))"
            )
        return np.maximum(codes, -1), tuple(feature.names)
    distinct = sorted(value for value in pc.unique(values).to_pylist() if not is_missing(value, feature))
    _warn_of_numbers(distinct, len(values))
    found = pc.index_in(values, pa.array(distinct, type=values.type))
    return np.asarray(pc.fill_null(found, -1)).astype(np.int64), tuple(map(str, distinct))


def _warn_of_numbers(distinct: list[Any], n_values: int) -> None:
    if len(distinct) > max(20, n_values // 2) and isinstance(distinct[0], int):
        logger.warning(
            "%d distinct integers in %d rows count as so many classes; if they are quantities, cast them to float64, "
            "which makes the task a regression",
            len(distinct),
            n_values,
        )
    if len(distinct) > 2 and distinct[0] == -1 and distinct[1] == 0:
        logger.warning("the label -1 counts as a class; if it marks rows without a label, replace it by null")


def _check(labels: Labels, n_rows: int) -> None:
    if not labels.labelled.any():
        raise LabelError(f"no row has a label: all {n_rows} labels are missing (null, NaN, empty, or -1)")
    if labels.n_unlabelled:
        logger.warning("%d of %d rows have no label and are left out", labels.n_unlabelled, n_rows)
    if labels.kind == "single_label":
        present = np.flatnonzero(labels.counts)
        if len(present) == 1:
            raise LabelError(
                f"only one class, {labels.names[present[0]]!r}, in all {n_rows - labels.n_unlabelled} labelled rows; "
                "a task needs at least two. Another split or label_column=… may have more"
            )
    elif labels.targets is not None:
        check_targets(labels.targets, labels.names)
    elif np.isin(labels.counts, (0, int(labels.labelled.sum()))).all():
        raise LabelError("every row has the same set of labels; a task needs labels that differ between rows")
    elif (np.bincount(labels.rows, minlength=len(labels.labelled))[labels.labelled] == 1).all():
        logger.warning(
            "every row has a list of exactly one label and counts as multi-label all the same; a column with the label "
            "itself in place of the list makes an ordinary classification task"
        )
