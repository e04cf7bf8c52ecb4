"""Which column holds the images and which the labels.

The types of columns are told apart by the names that `datasets` itself writes them down with, so that nothing that
speaks of columns has to import it: `Feature` stands for any of them.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import ColumnError
from hf_task2vec.tasks.images import looks_like_image
from hf_task2vec.tasks.source import tell_splits
from hf_task2vec.tasks.text import listed

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

WEBDATASET_NAMES = ("jpg", "jpeg", "png", "webp")
"""Names of image columns that make one: each row has its image in the column of its format."""
IMAGE_NAMES = ("image", "img", *WEBDATASET_NAMES)
MASK_NAMES = ("mask", "masks", "segmentation", "segmentation_mask", "annotation", "seg", "label", "labels")
CLASS_LABEL_NAMES = ("label", "labels", "target", "class")
LABEL_NAMES = (
    *CLASS_LABEL_NAMES, "targets", "classes", "category", "categories", "class_name", "label_name", "y", "cls",
    "species", "diagnosis", "dx", "breed", "choice", "class_label", "class_id", "label_id", "category_id",
    "category_name", "tags", "attributes", "ground_truth", "gt", "disease", "finding", "finding_labels", "genus",
    "variety", "cultivar", "choices", "klasse", "kategorie", "etikett", "art",
    "clase", "categoria", "etiqueta", "classe", "espèce", "étiquette", "класс", "метка", "类别", "标签", "ラベル",
)  # fmt: skip
"""Names of label columns, the likeliest first."""
BOOKKEEPING = re.compile(
    r"__.*__|(.*[_ ])?(id|ids|uuid|guid|idx|index|key|url|uri|path|hash|date|datetime|time|timestamp|width|height|size)"
    r"|(.*[_ ])?file[_ ]?(name|path)?|(.*[_ ])?(at|on)|(image|img)[_ ]?name|unnamed.*|md5|sha\d+|split|subset|fold"
    r"|licen[cs]e",
    re.IGNORECASE,
)
"""Names of columns that tell rows apart rather than what they show."""
_DATE = r"^\d{4}[-/.]\d\d?[-/.]\d\d?|^\d\d?[-/.]\d\d?[-/.]\d{4}"
_FILE = r"(?i)\.(jpe?g|png|gif|webp|tiff?|bmp|avif|heic)$|^[a-z]+[0-9]*://"
_BOX_NAMES = ("bbox", "bboxes", "boxes", "bounding_box", "bounding_boxes")
_DETECTION_NAMES = ("objects", "annotations", "detections", *_BOX_NAMES)
_MASK_FOLDERS = tuple({image, mask} for image in ("image", "images") for mask in ("mask", "masks", "annotations"))
_BOXES, _MASKS = "boxes: object detection", "images as labels (masks): segmentation"
_MOST_SPLITS = 8  # different names of splits in a column
_MOST_NAMED = 8  # flags spelt out in a message


@dataclass(frozen=True)
class Feature:
    """The type of a column, by the names that `datasets` has for it."""

    _type: str
    dtype: str = ""
    names: tuple[str, ...] = ()
    feature: Any = None


def of_arrow(kind: pa.DataType) -> Any:
    """Return the type of an Arrow column that nothing else is known of."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return {field.name: of_arrow(field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return Feature("List", feature=of_arrow(kind.value_type))
    if pa.types.is_dictionary(kind):
        return of_arrow(kind.value_type)
    return Feature("Value", "float64" if kind == pa.float64() else str(kind).replace("double", "float64"))


def of_schema(schema: pa.Schema) -> dict[str, Any]:
    """Return the types of the columns of a file: as `datasets` wrote them down in it, else as Arrow has them."""
    try:
        known = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        known = {}
    return {field.name: declared(known.get(field.name)) or of_arrow(field.type) for field in schema}


def declared(known: Any) -> Any:
    """Return the type of a column as `datasets` wrote it down, None if it did not."""
    if isinstance(known, list) and known:
        return Feature("List", feature=declared(known[0]))
    if not isinstance(known, dict):
        return None
    kind = known.get("_type")
    if not isinstance(kind, str):
        return {name: declared(inner) for name, inner in known.items()}
    inner = declared(known["feature"]) if "feature" in known else None
    if kind == "Sequence" and isinstance(inner, Mapping):
        return {name: Feature("List", feature=each) for name, each in inner.items()}
    names = known.get("names") or map(str, range(known.get("num_classes") or 0))
    return Feature("List" if kind == "Sequence" else kind, known.get("dtype") or "", tuple(names), inner)


@dataclass(frozen=True)
class LabelChoice:
    """What the labels are read from."""

    columns: tuple[str, ...]  # one column, or several of flags
    by_name: bool = True  # whether its type or name says so, not only that its values repeat

    @property
    def name(self) -> str:
        """As `Task.label_column` has it."""
        return ",".join(self.columns)


def describe_columns(features: Mapping[str, Any]) -> str:
    """Return the columns and their types, for a message."""
    return listed((f"{name[:40]} ({type_name(feature)})" for name, feature in features.items()), longest=100) or "none"


def type_name(feature: Any) -> str:
    """Return a type as messages call it."""
    if isinstance(feature, Mapping):
        return "struct of " + ", ".join(feature)
    if (inner := element(feature)) is not None:
        return f"list of {type_name(inner)}"
    return _dtype(feature) or kind_of(feature)


def element(feature: Any) -> Any:
    """Return the type of the elements of a list feature, None for any other."""
    return feature.feature if kind_of(feature) in ("List", "LargeList") else None


def is_float(feature: Any) -> bool:
    """Return whether a cell is one floating-point or decimal number."""
    return _dtype(feature).startswith(("float", "decimal", "halffloat"))


def kind_of(feature: Any) -> str:
    """Return what `datasets` calls a type: ``"Image"``, ``"ClassLabel"``, ``"Value"`` …"""
    return str(getattr(feature, "_type", type(feature).__name__))


def _dtype(feature: Any) -> str:
    """Return the dtype of a plain value such as ``"int64"``, nothing for any other type."""
    return str(feature.dtype) if kind_of(feature) == "Value" else ""


def _is_discrete(feature: Any) -> bool:
    """Return whether a cell is one class: `ClassLabel`, integer, string or bool."""
    name = _dtype(feature)
    return kind_of(feature) == "ClassLabel" or name.startswith(("int", "uint", "bool")) or name.endswith("string")


def _is_label(feature: Any) -> bool:
    return any(_is_discrete(kind) or is_float(kind) for kind in (feature, element(feature)))


def _is_encoded(feature: Any) -> bool:
    """Return whether a cell is bytes, or a struct with bytes, that may be an image file."""
    return _dtype(feature.get("bytes") if isinstance(feature, Mapping) else feature).endswith("binary")


def find_image_column(features: Mapping[str, Any], requested: str | None, first_value: Callable[[str], Any]) -> str:
    """Return the name of the image column: of the type `datasets.Image`, else whose first value starts like an image.

    Of several, the first that is named as in `IMAGE_NAMES` is taken, or the only one that is no mask by its name.
    """
    if requested is not None:
        _check_there(features, requested, "image_column")
        if not (kind_of(features[requested]) == "Image" or _is_encoded(features[requested])):
            raise ColumnError(
                f"column {requested!r} is of type {type_name(features[requested])} and holds no images; columns "
                f"found: {describe_columns(features)}. For file paths, cast it first: "
                f"dataset.cast_column({requested!r}, datasets.Image())"
            )
        return requested
    found = [name for name, feature in features.items() if kind_of(feature) == "Image"] or [
        name for name, feature in features.items() if _is_encoded(feature) and _is_picture(first_value(name))
    ]
    if not found:
        raise ColumnError(
            f"no image column; columns found: {describe_columns(features)}. Pass image_column=… for a column of image "
            "bytes, or cast a column of file paths: dataset.cast_column(name, datasets.Image())"
        )
    named = [name for name in IMAGE_NAMES if name in found]
    no_masks = [name for name in found if name.lower() not in MASK_NAMES]
    likely = found if len(found) == 1 else named or no_masks
    if not named and len(likely) != 1:
        raise ColumnError(f"several image columns: {', '.join(found)}; pass image_column=… to choose one of them")
    others = [name for name in found if name != likely[0]]
    logger.info("images are read from column %r%s", likely[0], f"; other image columns: {others}" if others else "")
    return likely[0]


def find_label_column(
    features: Mapping[str, Any], requested: str | None, image_column: str, values: Callable[[str], pa.ChunkedArray]
) -> LabelChoice:
    """Return which column holds the labels, or which several columns of flags.

    By type (`ClassLabel`, or lists of it), else by name (`LABEL_NAMES`), else by what repeats in the `values`: flags of
    which every row has one, or beside which there is nothing; the only column of classes; the only one of lists of
    them. Bookkeeping (ids, files, addresses, dates) is never a label unless it is asked for. Beside boxes only a single
    class an image is trusted, and beside masks no guess by repetition.
    """
    if requested is not None:
        names = (requested,) if requested in features else tuple(map(str.strip, requested.split(",")))
        for each in names:
            _check_requested(features, each, image_column)
        return LabelChoice(names)
    others = {name: feature for name, feature in features.items() if name != image_column}
    boxes = _box_column(others)
    classes = [name for name, feature in others.items() if kind_of(feature) == "ClassLabel"]
    name = _by_class_label(features, classes)
    if name is not None and {folder.lower() for folder in features[name].names} in _MASK_FOLDERS:
        raise ColumnError(
            f"the classes are the folders {' and '.join(map(repr, features[name].names))}, which looks like "
            "segmentation (pictures and their masks) and is not supported. What would work: one subfolder of images a "
            "class"
        )
    if name is None and boxes is not None:
        name = _by_name({name: feature for name, feature in others.items() if _is_discrete(feature)})
        if name is None:
            raise _unsupported(features, boxes, _BOXES)
    if name is None:
        lists = [name for name, feature in others.items() if kind_of(element(feature)) == "ClassLabel"]
        name = _by_class_label(features, lists) or _by_name(others)
        if name is not None and _dtype(others[name]).startswith(("int", "uint")):  # names are better than their numbers
            twins = [f"{name}_{end}" for end in ("name", "text", "str")]
            name = next((twin for twin in twins if _dtype(others.get(twin)).endswith("string")), name)
    if name is not None:
        logger.info("labels are read from column %r (%s)", name, type_name(features[name]))
        return LabelChoice((name,))
    for name, feature in others.items():
        if kind_of(element(feature)) == "Image" or (kind_of(feature) == "Image" and name.lower() in MASK_NAMES):
            raise _unsupported(features, name, _MASKS)
    telling = {name: feature for name, feature in others.items() if not BOOKKEEPING.fullmatch(name)}
    return _by_values(features, telling, values)


def _by_class_label(features: Mapping[str, Any], found: list[str]) -> str | None:
    named = found if len(found) < 2 else [name for name in found if name in CLASS_LABEL_NAMES]
    if found and len(named) != 1:
        raise _several(features, found)
    return next(iter(named), None)


def _by_name(others: Mapping[str, Any]) -> str | None:
    by_plain = {  # "ClassName", "class_name", and "annotations.value.class name" of nested JSON
        re.sub(r"[\s_/-]+", "", name.lower().rpartition(".")[2]): name
        for name in reversed([*others])
        if name[:2] != "__"
    }
    found = (by_plain[plain] for name in LABEL_NAMES if (plain := name.replace("_", "")) in by_plain)
    return next((name for name in found if _is_label(others[name])), None)


def _by_values(
    features: Mapping[str, Any], others: Mapping[str, Any], values: Callable[[str], pa.ChunkedArray]
) -> LabelChoice:
    """Choose by what is in the columns: flags, else what repeats."""
    import pyarrow.compute as pc

    flags = {name: values(name) for name, kind in others.items() if _is_discrete(kind) or is_float(kind)}
    flags = {name: column for name, column in flags.items() if is_flag(column)}
    if len(flags) > 1:
        total: Any = sum((column.cast("float64").to_numpy() == 1).astype(int) for column in flags.values())
        if (total == 1).all() or (len(flags) > 2 and len(flags) == len(others)):
            return LabelChoice(tuple(flags))
    found = [name for name, kind in others.items() if _is_discrete(kind) and _repeats(values(name))]
    if not found:
        lists = [name for name, kind in others.items() if _is_discrete(element(kind))]
        found = [name for name in lists if _repeats(pc.list_flatten(values(name)))]
    if len(found) > 1:
        raise _several(features, found, [name for name in found if name in flags])
    if not found:
        raise ColumnError(
            f"no label column; columns found: {describe_columns(features)}. Pass label_column=… for a column of "
            "classes (ClassLabel, int, string, bool, or a list of these for several labels an image); floats are no "
            "classes, bin them first"
        )
    return LabelChoice((found[0],), by_name=False)


def is_flag(column: pa.ChunkedArray) -> bool:
    """Return whether the values are yes and no: booleans, 0 and 1, or -1 and 1."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_boolean(column.type):
        return True
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return False
    plain = column.cast("float32") if pa.types.is_float16(column.type) else column  # Arrow before 26 counts no others
    found = set(pc.unique(plain).to_pylist()) - {None}
    return len(found) == 2 and (found == {0, 1} or found == {-1, 1})


def _repeats(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    distinct = int(pc.count_distinct(column).as_py())
    if not 2 <= distinct <= (len(column) - int(column.null_count)) // 2:
        return False
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        found = pc.unique(column).drop_null()
        named = pc.match_substring_regex(found, f"{_DATE}|{_FILE}")
        return not (pc.all(named).as_py() or (distinct < _MOST_SPLITS and tell_splits(found.to_pylist())))
    return True


def _several(features: Mapping[str, Any], found: list[str], flags: Sequence[str] = ()) -> ColumnError:
    advice = ""
    if len(flags) > 1:
        names = ",".join(flags[:_MOST_NAMED]) + (",…" if len(flags) > _MOST_NAMED else "")
        advice = f', or all {len(flags)} flags as several labels an image: label_column="{names}"'
    return ColumnError(
        f"several label columns: {listed(found)}; pass label_column=… to choose one{advice} "
        f"(columns found: {describe_columns(features)})"
    )


def _check_requested(features: Mapping[str, Any], name: str, image_column: str) -> None:
    _check_there(features, name, "label_column")
    feature = features[name]
    if name == image_column:
        raise ColumnError(f"image_column and label_column are both {name!r}")
    if kind_of(feature) == "Image" or kind_of(element(feature)) == "Image":
        raise _unsupported(features, name, _MASKS)
    if _box_column({name: feature}) is not None:
        raise _unsupported(features, name, _BOXES)
    if not _is_label(feature):
        raise ColumnError(
            f"label column {name!r} is of type {type_name(feature)}, which holds no classes. What would work: "
            f"ClassLabel, int, string, bool, or a list of these; columns found: {describe_columns(features)}"
        )


def _check_there(features: Mapping[str, Any], name: str, argument: str) -> None:
    if name not in features:
        raise ColumnError(f"{argument}={name!r} is not a column; columns found: {describe_columns(features)}")


def _box_column(features: Mapping[str, Any]) -> str | None:
    for name, feature in features.items():
        inner = element(feature)
        fields = next((kind for kind in (feature, inner) if isinstance(kind, Mapping)), {})
        nested = bool(fields) or element(inner) is not None
        coordinates = inner is not None and name.lower() in _BOX_NAMES
        if coordinates or (nested and name.lower() in _DETECTION_NAMES) or {*map(str.lower, fields)} & {*_BOX_NAMES}:
            return name
    return None


def _unsupported(features: Mapping[str, Any], column: str, what: str) -> ColumnError:
    return ColumnError(
        f"column {column!r} holds {what} is not supported. What would work: label_column=… of a column with the "
        f"classes that occur in an image (a list for several). Columns found: {describe_columns(features)}"
    )


def _is_picture(value: Any) -> bool:
    """Return whether a first value starts like an image file, or names one."""
    if isinstance(value, Mapping) and value.get("bytes") is None:
        return str(mimetypes.guess_type(str(value.get("path")))[0]).startswith("image/")
    data = value["bytes"] if isinstance(value, Mapping) else value
    return bool(data) and looks_like_image(bytes(data[:16]))
