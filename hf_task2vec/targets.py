"""Labels that are numbers: the targets of a regression."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import LabelError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

#: More distinct whole numbers than this are no class numbers that were read as floats.
_MOST_CLASSES = 50


def read_numbers(values: pa.Array) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read a column of one number a row.

    Returns
    -------
    tuple
        The targets, shape (P, 1), float64; the rows that have one (neither null nor NaN), shape (P,), int64; the
        targets' names.

    Raises
    ------
    LabelError
        A target is infinite.
    """
    numbers = _as_float64(values)
    rows = np.flatnonzero(~np.isnan(numbers))
    targets = _finite(numbers[rows, None])
    distinct = np.unique(targets)
    if 2 <= len(distinct) <= min(len(rows) // 4, _MOST_CLASSES) and (distinct == np.rint(distinct)).all():
        logger.warning(
            "the labels are floats with %d distinct whole values and are taken as targets of a regression; if they are "
            "classes, cast them to int64",
            len(distinct),
        )
    return targets, rows.astype(np.int64), ("value",)


def read_vectors(elements: pa.Array, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read lists of numbers, of which a null or NaN in any place leaves the whole row without a label.

    Parameters
    ----------
    elements
        The elements of all lists, one list after the other.
    parents
        Shape (len(elements),), ascending: the row that each belongs to.

    Returns
    -------
    tuple
        As of `read_numbers`; targets of shape (P, C), named ``"0"``, ``"1"``, ….

    Raises
    ------
    LabelError
        The lists have several lengths, or a target is infinite.
    """
    found, lengths = np.unique(parents, return_counts=True)
    if len(np.unique(lengths)) != 1:
        raise LabelError(
            f"lists of numbers of several lengths ({lengths.min(initial=0)} to {lengths.max(initial=0)}): targets of a "
            "regression must be lists of one length; classes of an image are integers or strings"
        )
    targets = _as_float64(elements).reshape(len(found), -1)
    known = ~np.isnan(targets).any(axis=1)
    return _finite(targets[known]), found[known].astype(np.int64), tuple(map(str, range(targets.shape[1])))


def check_targets(targets: np.ndarray, names: tuple[str, ...]) -> None:
    """Raise LabelError if one of the targets, shape (P, C), is the same in all rows."""
    if (same := np.flatnonzero(np.ptp(targets, axis=0) == 0.0)).size:
        which = f" number {names[same[0]]}" if len(names) > 1 else ""
        raise LabelError(
            f"the target{which} is {targets[0, same[0]]:g} in all {len(targets)} labelled rows; a regression needs "
            "targets that differ. Another split or label_column=… may have some"
        )


def check_classes(label_kind: Any, label_column: Any, dataset: Any, n_targets: int = 1) -> None:
    """Raise LabelError for a regression: checkpoints are ranked and measured by how well they tell classes apart.

    Parameters
    ----------
    label_kind, label_column, dataset
        As in :class:`~hf_task2vec.task.Task`, or in the provenance of an embedding.
    n_targets
        Numbers an image; of several, the first is in the advice.
    """
    if label_kind == "regression":
        of_all, of_row = f'dataset["{label_column}"]', f'row["{label_column}"]'
        if n_targets > 1:
            of_all, of_row = f"np.array({of_all})[:, 0]", f"{of_row}[0]"
        raise LabelError(
            f"the labels {label_column!r} of {dataset!r} are numbers (a regression). Such a task can be embedded and "
            "compared with others, but checkpoints are ranked and measured by classes only. What would work: classes "
            f"made of the numbers, such as four of equal size: edges = np.nanquantile({of_all}, [0.25, 0.5, 0.75]); "
            f'dataset = dataset.map(lambda row: {{"bin": int(np.searchsorted(edges, {of_row}))}}) and '
            f'label_column="bin". If the numbers are class numbers: '
            f'dataset = dataset.cast_column("{label_column}", datasets.Value("int64"))'
        )


def score_name(label_kind: Any) -> str:
    """Return what the score of a ranking is called: ``"mAP"`` with several labels an image, else ``"accuracy"``."""
    return "mAP" if label_kind == "multi_label" else "accuracy"


def label_facts(labels: np.ndarray, num_classes: int) -> dict[str, list[float] | list[int]]:
    """Counts of the labels of a sample (see `task.Task.labels`) by class; of targets, also their mean and spread.

    Returns
    -------
    dict
        ``sample_counts``, length C; for a regression ``target_mean`` and ``target_std`` in the units of the dataset.
    """
    if labels.dtype.kind == "f":
        mean, std = labels.mean(axis=0).tolist(), labels.std(axis=0).tolist()
        return {"sample_counts": [len(labels)] * num_classes, "target_mean": mean, "target_std": std}
    drawn = np.bincount(labels, minlength=num_classes) if labels.ndim == 1 else labels.sum(axis=0)
    return {"sample_counts": [int(count) for count in drawn]}


def _as_float64(values: pa.Array) -> np.ndarray:
    import pyarrow as pa

    return np.asarray(values.cast(pa.float64()).fill_null(np.nan), dtype=np.float64)


def _finite(targets: np.ndarray) -> np.ndarray:
    if not np.isfinite(targets).all():
        raise LabelError("some targets are infinite; replace them by null, which leaves their rows out")
    return targets
