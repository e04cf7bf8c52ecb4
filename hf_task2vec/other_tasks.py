"""Columns of detection and segmentation: recognised, so that the error can say what would work instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .column_types import describe_columns, element, fields_of, is_class_label, is_discrete, is_image
from .errors import ColumnError

MASK_NAMES = ("mask", "masks", "segmentation", "segmentation_mask", "annotation", "seg", "label", "labels")
_BOX_NAMES = ("bbox", "bboxes", "boxes", "bounding_box", "bounding_boxes")
_DETECTION_NAMES = ("objects", "annotations", "detections", *_BOX_NAMES)
_CLASS_FIELDS = ("category", "categories", "label", "labels", "class", "classes", "class_name", "name", "category_id")
_IMAGE_FOLDERS = {"image", "images", "img", "imgs", "input", "inputs"}
_MASK_FOLDERS = {"mask", "masks", "annotation", "annotations", "segmentation", "segmentations", "label", "labels"}


def detection_column(features: Mapping[str, Any]) -> str | None:
    """Return the column that holds the boxes of object detection, None if there is none."""
    for name, feature in features.items():
        if any(field.lower() in _BOX_NAMES for field in fields_of(feature)):
            return name
    for name, feature in features.items():
        numbers = element(feature) is not None and name.lower() in _BOX_NAMES  # coordinates, not classes
        if numbers or (name.lower() in _DETECTION_NAMES and _is_nested(feature)):
            return name
    return None


def _is_nested(feature: Any) -> bool:
    inner = element(feature)
    return bool(fields_of(feature)) or (inner is not None and element(inner) is not None)


def detection_error(features: Mapping[str, Any], column: str) -> ColumnError:
    """Return the error of a dataset whose boxes are in `column`, with the line that makes a usable one of it."""
    return ColumnError(
        f"column {column!r} holds boxes: object detection is not supported yet. What would work: the classes of an "
        f"image's objects as several labels an image, {_image_level(features, column)}; or one image a box, with its "
        f"class as label: image.crop((left, top, right, bottom)). Columns found: {describe_columns(features)}"
    )


def _image_level(features: Mapping[str, Any], column: str) -> str:
    """Say how to get labels of the whole image from what stands beside the boxes."""
    fields = fields_of(features[column])
    by_lower = {field.lower(): field for field in fields}
    field = next((by_lower[name] for name in _CLASS_FIELDS if name in by_lower), None)
    if field is not None and element(features[column]) is None:
        return f'dataset = dataset.flatten() and label_column="{column}.{field}"'
    if field is not None:
        code = f'dataset = dataset.map(lambda row: {{"labels": [box["{field}"] for box in row["{column}"]]}})'
        if is_class_label(fields[field]):
            code += (
                f'.cast_column("labels", datasets.List(dataset.features["{column}"].feature["{field}"]))'
                " (the cast keeps their names)"
            )
        return f'{code} and label_column="labels"'
    beside = [name for name, feature in features.items() if name != column and is_discrete(element(feature))]
    if beside:
        named = [name for name in beside if name.lower() in _CLASS_FIELDS]
        return f'label_column="{(named or beside)[0]}"'
    return 'a column of lists made with dataset.map(…), and label_column="…"'


def mask_column(features: Mapping[str, Any]) -> str | None:
    """Return the column of pictures that is a mask by its name, or of lists of pictures; None if there is none.

    Parameters
    ----------
    features
        All columns but the one of the images.
    """
    for name, feature in features.items():
        if is_image(element(feature)) or (is_image(feature) and name.lower() in MASK_NAMES):
            return name
    return None


def segmentation_error(features: Mapping[str, Any], column: str) -> ColumnError:
    """Return the error of a dataset whose masks are in `column`."""
    several = element(features[column]) is not None
    code = (
        ""
        if several
        else ": of masks whose pixels are class numbers, dataset = dataset.map(lambda row: "
        f'{{"labels": np.unique(row["{column}"]).tolist()}}) and label_column="labels"'
    )
    return ColumnError(
        f"column {column!r} holds images as labels (masks): segmentation is not supported yet. What would work: the "
        f"classes that occur in an image as several labels{code}; or a column with one class an image. Columns found: "
        f"{describe_columns(features)}"
    )


def is_images_and_masks(names: Sequence[str]) -> bool:
    """Return whether class names are those of two folders ``images`` and ``masks``, which `datasets` takes for classes.

    A third name, such as ``edges``, makes them classes again.
    """
    lower = {name.lower() for name in names}
    return len(lower) == 2 and len(lower & _IMAGE_FOLDERS) == 1 and len(lower & _MASK_FOLDERS) == 1


def annotation_files(folder: Path) -> str:
    """Say which annotations of detection or segmentation lie in a folder of images, nothing if there are none."""
    patterns = {
        "COCO": ("*coco*.json", "*/*coco*.json", "instances_*.json", "annotations/*.json", "annotations.json"),
        "Pascal VOC": ("Annotations/*.xml", "*/Annotations/*.xml", "annotations/*.xml", "*.xml", "*/*.xml"),
        "YOLO": ("labels/*.txt", "labels/*/*.txt", "*/labels/*.txt"),
    }
    for form, globs in patterns.items():
        for pattern in globs:
            if found := min(folder.glob(pattern), default=None):
                return (
                    f"{found.relative_to(folder).as_posix()!r} looks like annotations in the form of {form}: detection "
                    "and segmentation are not supported yet. What would work: a folder of the images alone with a "
                    'metadata.jsonl of one line an image, {"file_name": "…", "labels": ["cat", "dog"]} (the classes of '
                    "its objects), or the boxes cropped into one subfolder a class"
                )
    return ""
