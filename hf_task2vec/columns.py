"""Which column holds the images and which the labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .column_types import (
    describe_columns,
    dtype,
    element,
    is_class_label,
    is_discrete,
    is_encoded,
    is_float,
    is_image,
    type_name,
)
from .errors import ColumnError
from .images import looks_like_image
from .other_tasks import (
    MASK_NAMES,
    detection_column,
    detection_error,
    is_images_and_masks,
    mask_column,
    segmentation_error,
)

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

IMAGE_NAMES = ("image", "img")
CLASS_LABEL_NAMES = ("label", "labels", "target", "class")
LABEL_NAMES = (*CLASS_LABEL_NAMES, "targets", "classes", "category", "categories", "class_name", "label_name", "y")
_MOST_NAMED = 4  # columns spelt out in the code of a message


def find_image_column(features: Mapping[str, Any], requested: str | None, first_value: Callable[[str], Any]) -> str:
    """Return the name of the image column.

    Columns of the type `datasets.Image` come first. Without one, binary and ``{bytes, path}`` columns count whose
    first value starts like an image file. Of several, the one named ``image`` or ``img`` is taken, or the only one that
    is no mask by its name.

    Parameters
    ----------
    features
        The dataset's ``features``.
    requested
        The user's ``image_column``, checked against the columns.
    first_value
        Returns the first value of a column that is not null, or None.

    Raises
    ------
    ColumnError
        If there is no such column or more than one and no such name.
    """
    if requested is not None:
        _require(features, requested, "image_column")
        if not (is_image(features[requested]) or is_encoded(features[requested])):
            raise ColumnError(
                f"column {requested!r} is of type {type_name(features[requested])} and holds no images; columns "
                f"found: {describe_columns(features)}. For file paths, cast it first: "
                f"dataset.cast_column({requested!r}, datasets.Image())"
            )
        return requested
    found = [name for name, feature in features.items() if is_image(feature)]
    if not found:
        found = [
            name
            for name, feature in features.items()
            if is_encoded(feature) and looks_like_image(_start(first_value(name)))
        ]
    if not found:
        raise ColumnError(
            f"no image column; columns found: {describe_columns(features)}. Pass image_column=… for a column of image "
            "bytes, or cast a column of file paths: dataset.cast_column(name, datasets.Image())"
        )
    if len(found) == 1:
        logger.info("images are read from column %r", found[0])
        return found[0]
    for name in IMAGE_NAMES:
        if name in found:
            logger.info("images are read from column %r; other image columns: %s", name, sorted(set(found) - {name}))
            return name
    if len(pictures := [name for name in found if name.lower() not in MASK_NAMES]) == 1:
        logger.info("images are read from column %r; masks by their names: %s", pictures[0], set(found) - set(pictures))
        return pictures[0]
    raise ColumnError(f"several image columns: {', '.join(found)}; pass image_column=… to choose one of them")


def find_label_column(
    features: Mapping[str, Any],
    requested: str | None,
    image_column: str,
    values: Callable[[str], pa.ChunkedArray | None],
) -> str:
    """Return the name of the label column.

    In this order: the only `ClassLabel` column (of several, the one named as in `CLASS_LABEL_NAMES`); in the same way
    the ``List(ClassLabel)`` columns; a bool, integer, string, float or list column named as in `LABEL_NAMES`; the only
    bool, integer or string column whose values repeat (at least two, and no more than half as many as rows); the only
    column of lists of these whose elements repeat.

    Beside a column of boxes only the first rule and names of columns with one class an image are trusted, and beside
    masks no guess by repetition.

    Parameters
    ----------
    features
        The dataset's ``features``.
    requested
        The user's ``label_column``, checked against the columns and types.
    image_column
        The column of the images.
    values
        Returns a column's values for the last rule, or None where they cannot be read beforehand (a stream); the rule
        then asks only that the column is the only one.

    Raises
    ------
    ColumnError
        If there is no label column, several, or the columns are those of another task (detection, segmentation).
    """
    if requested is not None:
        _require(features, requested, "label_column")
        if requested == image_column:
            raise ColumnError(f"image_column and label_column are both {requested!r}")
        _check_label_type(features, requested)
        return requested
    others = {name: feature for name, feature in features.items() if name != image_column}
    boxes, mask = detection_column(others), mask_column(others)
    name = _by_class_label(features, [name for name, feature in others.items() if is_class_label(feature)])
    if name is not None and is_images_and_masks(features[name].names):
        raise ColumnError(
            f"the classes are the folders {' and '.join(map(repr, features[name].names))}, which looks like "
            "segmentation (pictures and their masks) and is not supported yet. What would work: one subfolder of "
            'images a class, or a metadata.jsonl beside the images with lines {"file_name": "…", "labels": ["…"]}'
        )
    if name is None and boxes is not None:
        name = _by_name({name: feature for name, feature in others.items() if is_discrete(feature)})
        if name is None:
            raise detection_error(features, boxes)
    if name is None:
        lists = [name for name, feature in others.items() if is_class_label(element(feature))]
        name = _by_class_label(features, lists) or _by_name(others)
    if name is None and mask is not None:
        raise segmentation_error(features, mask)
    name = name or _by_repetition(features, others, values) or _only_list(features, others, values)
    if name is None:
        raise ColumnError(
            f"no label column; columns found: {describe_columns(features)}. Pass label_column=… for a column of "
            "classes (ClassLabel, int, string, bool, or a list of these for several labels an image); floats are no "
            "classes, bin them first"
        )
    logger.info("labels are read from column %r (%s)", name, type_name(features[name]))
    return name


def _by_class_label(features: Mapping[str, Any], found: list[str]) -> str | None:
    if len(found) <= 1:
        return found[0] if found else None
    named = [name for name in found if name in CLASS_LABEL_NAMES]
    if len(named) != 1:
        raise _several(features, found)
    return named[0]


def _by_name(others: Mapping[str, Any]) -> str | None:
    by_lower = {name.lower(): name for name in others}
    found = (by_lower[lower] for lower in LABEL_NAMES if lower in by_lower)
    return next((name for name in found if _is_label(others[name])), None)


def _is_label(feature: Any) -> bool:
    return any(is_discrete(kind) or is_float(kind) for kind in (feature, element(feature)))


def _by_repetition(
    features: Mapping[str, Any], others: Mapping[str, Any], values: Callable[[str], pa.ChunkedArray | None]
) -> str | None:
    found = [name for name, feature in others.items() if is_discrete(feature) and _repeats(values(name))]
    if len(found) > 1:
        raise _several(features, found, [name for name in found if _is_flag(features[name], values(name))])
    return found[0] if found else None


def _only_list(
    features: Mapping[str, Any], others: Mapping[str, Any], values: Callable[[str], pa.ChunkedArray | None]
) -> str | None:
    found = [name for name, x in others.items() if is_discrete(element(x)) and _repeats(_elements(values(name)))]
    if len(found) > 1:
        raise _several(features, found)
    return found[0] if found else None


def _elements(column: pa.ChunkedArray | None) -> pa.ChunkedArray | None:
    if column is None:
        return None
    import pyarrow.compute as pc

    return pc.list_flatten(column)


def _is_flag(feature: Any, column: pa.ChunkedArray | None) -> bool:
    if dtype(feature) == "bool":
        return True
    if column is None or not dtype(feature).startswith(("int", "uint")):
        return False
    import pyarrow.compute as pc

    return set(pc.unique(column).to_pylist()) <= {0, 1, None}


def _repeats(column: pa.ChunkedArray | None) -> bool:
    if column is None:
        return True
    import pyarrow.compute as pc

    distinct = int(pc.count_distinct(column).as_py())
    return 2 <= distinct <= (len(column) - int(column.null_count)) // 2


def _several(features: Mapping[str, Any], found: list[str], flags: Sequence[str] = ()) -> ColumnError:
    together = ""
    if len(flags) > 1:
        names = str(list(flags)) if len(flags) <= _MOST_NAMED else f"{list(flags[:_MOST_NAMED])!r} + […]"
        together = (
            f". For all {len(flags)} flags as several labels an image, make a column of lists: dataset = dataset.map("
            f'lambda row: {{"labels": [name for name in {names} if row[name]]}}) and label_column="labels"; in a '
            'folder, a metadata.jsonl with lines {"file_name": "…", "labels": ["…"]}'
        )
    return ColumnError(
        f"several label columns: {', '.join(found)}; pass label_column=… to choose one{together} "
        f"(columns found: {describe_columns(features)})"
    )


def _check_label_type(features: Mapping[str, Any], name: str) -> None:
    feature = features[name]
    if is_image(feature) or is_image(element(feature)):
        raise segmentation_error(features, name)
    if detection_column({name: feature}) is not None:
        raise detection_error(features, name)
    if not _is_label(feature):
        raise ColumnError(
            f"label column {name!r} is of type {type_name(feature)}, which holds no classes. What would work: "
            f"ClassLabel, int, string, bool, or a list of these; columns found: {describe_columns(features)}"
        )


def _require(features: Mapping[str, Any], name: str, argument: str) -> None:
    if name not in features:
        raise ColumnError(f"{argument}={name!r} is not a column; columns found: {describe_columns(features)}")


def _start(value: Any) -> bytes:
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return bytes(data[:16]) if data else b""
