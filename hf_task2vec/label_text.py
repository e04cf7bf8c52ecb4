"""Label columns that hold several labels in a form other than a list of classes: joined text, flags with marks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from .errors import LabelError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

SEPARATORS = ("|", ";", ",")


def split_joined(values: pa.Array) -> pa.Array | None:
    """Split text that joins several labels, as CSV files hold them: ``"cat|dog"``, ``"cat; dog"``, ``"cat,dog"``.

    Text counts as joined where, at one of `SEPARATORS`, the distinct values fall into parts that are fewer than the
    values, or as many, that come in varying numbers a value, and of which one at least occurs in several values. So
    ``"tench, Tinca tinca"`` and ``"tomato, healthy"`` stay names of classes.

    Parameters
    ----------
    values
        One cell a row, of any type.

    Returns
    -------
    pyarrow.Array or None
        Lists of labels (null where the cell is null or empty), or None for what is not joined text.

    Raises
    ------
    LabelError
        If the text is that of lists, such as ``"['cat', 'dog']"``.
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
    if separator is None:
        return None
    logger.warning(
        "labels such as %r are split at %r: several labels an image. If they are names of classes, cast the column to "
        "ClassLabel",
        next(value for value in distinct if separator in value),
        separator,
    )
    lists = [None if not cell else _parts(cell, separator) for cell in values.to_pylist()]
    return pa.array(lists, pa.list_(pa.string()))


def _joins(distinct: list[str], mark: str) -> bool:
    if not any(mark in value for value in distinct):
        return False
    parts = [_parts(value, mark) for value in distinct]
    counts: dict[str, int] = {}
    for label in (label for labels in parts for label in set(labels)):
        counts[label] = counts.get(label, 0) + 1
    varied = len({len(labels) for labels in parts}) > 1
    return varied and 2 <= len(counts) <= len(distinct) and max(counts.values()) > 1


def _parts(value: str, mark: str) -> list[str]:
    return [part for part in map(str.strip, value.split(mark)) if part]


def uncertain_flags(elements: pa.Array, parents: np.ndarray) -> str:
    """Say what is wrong with lists of flags that also hold nulls or -1, as some medical datasets do.

    Parameters
    ----------
    elements
        The elements of all lists, one list after the other.
    parents
        Shape (len(elements),): which list each belongs to.

    Returns
    -------
    str
        The message of an error; empty for lists of any other kind. Taken as class numbers, such flags would give
        classes ``-1``, ``0`` and ``1``.
    """
    import pyarrow as pa

    kind = elements.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)) or not len(elements):
        return ""
    _, lengths = np.unique(parents, return_counts=True)
    numbers = np.asarray(elements.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)
    marks = int(np.count_nonzero(np.isnan(numbers) | (numbers == -1.0)))
    one_length = lengths.min() == lengths.max() and lengths.max() >= 3
    flags = np.isin(numbers[~np.isnan(numbers)], (-1.0, 0.0, 1.0)).all() and (numbers == 0.0).any()
    if not (marks and one_length and flags):
        return ""
    return (
        f"lists of {lengths.max()} flags hold {marks} nulls or -1 beside 0 and 1 (labels not known?); say which they "
        "are: dataset.map(lambda row: {'labels': [int(flag == 1) for flag in row[column]]}) counts them as absent"
    )
