"""Which column holds the images and which the labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import ColumnError, LabelError
from .images import looks_like_image

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

IMAGE_NAMES = ("image", "img")
CLASS_LABEL_NAMES = ("label", "labels", "target", "class")
LABEL_NAMES = (*CLASS_LABEL_NAMES, "targets", "classes", "category", "categories", "class_name", "label_name", "y")
_MASK_NAMES = ("mask", "masks", "segmentation", "segmentation_mask", "annotation", "seg", "label", "labels")
_DETECTION_NAMES = ("objects", "bbox", "bboxes", "boxes", "annotations")


def describe_columns(features: Mapping[str, Any]) -> str:
    """Return the columns and their types as one line for a message."""
    return ", ".join(f"{name} ({_type_name(feature)})" for name, feature in features.items()) or "none"


def find_image_column(features: Mapping[str, Any], requested: str | None, first_value: Callable[[str], Any]) -> str:
    """Return the name of the image column.

    Columns of the type `datasets.Image` come first. Without one, binary and ``{bytes, path}`` columns count whose
    first value starts like an image file. Of several, the one named ``image`` or ``img`` is taken.

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
        if not (_is_image(features[requested]) or _is_encoded(features[requested])):
            raise ColumnError(
                f"column {requested!r} is of type {_type_name(features[requested])} and holds no images; columns "
                f"found: {describe_columns(features)}. For file paths, cast it first: "
                f"dataset.cast_column({requested!r}, datasets.Image())"
            )
        return requested
    found = [name for name, feature in features.items() if _is_image(feature)]
    if not found:
        found = [
            name
            for name, feature in features.items()
            if _is_encoded(feature) and looks_like_image(_start(first_value(name)))
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
    raise ColumnError(f"several image columns: {', '.join(found)}; pass image_column=… to choose one of them")


def find_label_column(
    features: Mapping[str, Any],
    requested: str | None,
    image_column: str,
    values: Callable[[str], pa.ChunkedArray | None],
) -> str:
    """Return the name of the label column.

    In this order: the only `ClassLabel` column (of several, the one named as in `CLASS_LABEL_NAMES`); in the same way
    the ``List(ClassLabel)`` columns; a bool, integer, string or list column named as in `LABEL_NAMES`; the only bool,
    integer or string column whose values repeat (at least two, and no more than half as many as rows).

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
    LabelError
        If the column's type holds no classes (regression targets).
    """
    if requested is not None:
        _require(features, requested, "label_column")
        if requested == image_column:
            raise ColumnError(f"image_column and label_column are both {requested!r}")
        _check_label_type(features, requested)
        return requested
    others = {name: feature for name, feature in features.items() if name != image_column}
    name = (
        _by_class_label(features, [name for name, feature in others.items() if is_class_label(feature)])
        or _by_class_label(features, [name for name, feature in others.items() if is_class_label(element(feature))])
        or _by_name(features, others)
        or _by_repetition(features, others, values)
    )
    if name is None:
        raise _no_label_column(features, others)
    logger.info("labels are read from column %r (%s)", name, _type_name(features[name]))
    return name


def is_class_label(feature: Any) -> bool:
    """Return whether `feature` is a `datasets.ClassLabel`."""
    return getattr(feature, "_type", None) == "ClassLabel"


def element(feature: Any) -> Any:
    """Return the type of the elements of a list feature, None for any other."""
    return feature.feature if getattr(feature, "_type", None) in ("List", "LargeList") else None


def _by_class_label(features: Mapping[str, Any], found: list[str]) -> str | None:
    if len(found) <= 1:
        return found[0] if found else None
    named = [name for name in found if name in CLASS_LABEL_NAMES]
    if len(named) != 1:
        raise _several(features, found)
    return named[0]


def _by_name(features: Mapping[str, Any], others: Mapping[str, Any]) -> str | None:
    by_lower = {name.lower(): name for name in others}
    for lower in LABEL_NAMES:
        if lower in by_lower:
            name = by_lower[lower]
            if _is_discrete(others[name]) or _is_discrete(element(others[name])) or _is_float(others[name]):
                _check_label_type(features, name)
                return name
    return None


def _by_repetition(
    features: Mapping[str, Any], others: Mapping[str, Any], values: Callable[[str], pa.ChunkedArray | None]
) -> str | None:
    found = [name for name, feature in others.items() if _is_discrete(feature) and _repeats(values(name))]
    if len(found) > 1:
        raise _several(features, found)
    return found[0] if found else None


def _repeats(column: pa.ChunkedArray | None) -> bool:
    if column is None:
        return True
    import pyarrow.compute as pc

    distinct = int(pc.count_distinct(column).as_py())
    return 2 <= distinct <= (len(column) - int(column.null_count)) // 2


def _several(features: Mapping[str, Any], found: list[str]) -> ColumnError:
    return ColumnError(
        f"several label columns: {', '.join(found)}; pass label_column=… to choose one "
        f"(columns found: {describe_columns(features)})"
    )


def _no_label_column(features: Mapping[str, Any], others: Mapping[str, Any]) -> ColumnError:
    found = f"columns found: {describe_columns(features)}"
    if any(name in _DETECTION_NAMES for name in others):
        return ColumnError(
            f"this looks like object detection, which is not supported; {found}. What would work: a column with one "
            "class (or a list of classes) an image, made with dataset.map(…), and label_column=…"
        )
    if any(name.lower() in _MASK_NAMES and _is_image(feature) for name, feature in others.items()):
        return ColumnError(
            f"this looks like segmentation (masks as labels), which is not supported; {found}. What would work: a "
            "column with one class an image, and label_column=…"
        )
    return ColumnError(
        f"no label column; {found}. Pass label_column=… for a column of classes (ClassLabel, int, string, bool, or a "
        "list of these for several labels an image)"
    )


def _check_label_type(features: Mapping[str, Any], name: str) -> None:
    feature = features[name]
    if _is_discrete(feature) or _is_discrete(element(feature)):
        return
    kind = _type_name(feature)
    if _is_float(feature):
        raise LabelError(
            f"label column {name!r} holds {kind} values: regression is not supported. If they are class numbers, cast "
            f'them: dataset.cast_column({name!r}, datasets.Value("int64")); else bin them into classes'
        )
    if _is_image(feature):
        raise ColumnError(
            f"label column {name!r} holds images: segmentation masks are not supported. "
            f"What would work: a column with one class an image; columns found: {describe_columns(features)}"
        )
    raise ColumnError(
        f"label column {name!r} is of type {kind}, which holds no classes (detection boxes and nested columns are not "
        f"supported). What would work: ClassLabel, int, string, bool, or a list of these; columns found: "
        f"{describe_columns(features)}"
    )


def _require(features: Mapping[str, Any], name: str, argument: str) -> None:
    if name not in features:
        raise ColumnError(f"{argument}={name!r} is not a column; columns found: {describe_columns(features)}")


def _dtype(feature: Any) -> str:
    return str(getattr(feature, "dtype", "")) if getattr(feature, "_type", None) == "Value" else ""


def _is_discrete(feature: Any) -> bool:
    dtype = _dtype(feature)
    return is_class_label(feature) or dtype.startswith(("int", "uint", "bool")) or dtype.endswith("string")


def _is_float(feature: Any) -> bool:
    return _dtype(feature).startswith(("float", "decimal"))


def _is_image(feature: Any) -> bool:
    return getattr(feature, "_type", None) == "Image"


def _is_encoded(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return _dtype(feature.get("bytes")).endswith("binary")
    return _dtype(feature).endswith("binary")


def _start(value: Any) -> bytes:
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return bytes(data[:16]) if data else b""


def _type_name(feature: Any) -> str:
    if isinstance(feature, Mapping):
        return "struct of " + ", ".join(feature)
    inner = element(feature)
    if inner is not None:
        return f"list of {_type_name(inner)}"
    return _dtype(feature) or str(getattr(feature, "_type", type(feature).__name__))
