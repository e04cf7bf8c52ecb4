from __future__ import annotations

import io
import logging
from typing import Any

import pyarrow as pa
import pytest
from datasets import ClassLabel, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_task2vec.errors import ColumnError
from hf_task2vec.tasks.columns import find_image_column, find_label_column

CLASSES = ClassLabel(names=["a", "b"])
INT, STRING, BOOL, FLOAT = Value("int64"), Value("string"), Value("bool"), Value("float32")
STRUCT = {"bytes": Value("binary"), "path": Value("string")}


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (1, 1)).save(stream, "PNG")
    return stream.getvalue()


def image_column(features: dict[str, Any], requested: str | None = None, **first: Any) -> str:
    return find_image_column(Features(features), requested, first.get)


def label_column(features: dict[str, Any], requested: str | None = None, **values: list[Any]) -> str:
    columns = {name: pa.chunked_array([pa.array(cells)]) for name, cells in values.items()}
    return find_label_column(Features({"image": ImageFeature(), **features}), requested, "image", columns.get).name


def test_image_column_by_type_whatever_its_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hf_task2vec")
    assert image_column({"id": INT, "scan": ImageFeature()}) == "scan"
    assert image_column({"scan": ImageFeature(decode=False)}) == "scan"
    assert "images are read from column 'scan'" in caplog.text


def test_image_column_by_the_first_bytes() -> None:
    assert image_column({"raw": Value("binary"), "id": INT}, raw=png()) == "raw"
    assert image_column({"pic": STRUCT, "sound": STRUCT}, pic={"bytes": png()}, sound={"bytes": b"RIFFWAVE"}) == "pic"
    with pytest.raises(ColumnError, match=r"no image column; columns found: raw \(binary\), id \(int64\)"):
        image_column({"raw": Value("binary"), "id": INT}, raw=b"no image")
    with pytest.raises(ColumnError, match="no image column"):
        image_column({"raw": Value("binary")}, raw=None)


def test_several_image_columns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hf_task2vec")
    assert image_column({"mask": ImageFeature(), "image": ImageFeature()}) == "image"
    assert "other image columns: ['mask']" in caplog.text
    with pytest.raises(ColumnError, match="several image columns: left, right; pass image_column="):
        image_column({"left": ImageFeature(), "right": ImageFeature()})
    assert image_column({"left": ImageFeature(), "right": ImageFeature()}, "right") == "right"


def test_image_column_requested_by_name_is_checked() -> None:
    with pytest.raises(ColumnError, match=r"image_column='pic' is not a column; columns found: path \(string\)"):
        image_column({"path": STRING}, "pic")
    with pytest.raises(ColumnError, match=r"'path' is of type string .*cast_column\('path', datasets.Image\(\)\)"):
        image_column({"path": STRING}, "path")
    assert image_column({"raw": Value("binary")}, "raw") == "raw"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"id": INT, "species": CLASSES}, "species"),
        ({"coarse": CLASSES, "label": CLASSES}, "label"),
        ({"coarse": CLASSES, "target": CLASSES, "label": INT}, "target"),
        ({"label": INT, "species": CLASSES}, "species"),
        ({"tags": List(CLASSES), "label": STRING}, "tags"),
        ({"split": STRING, "Label": STRING}, "Label"),
        ({"labels": List(STRING), "id": INT}, "labels"),
        ({"y": BOOL}, "y"),
        ({"id": INT, "category": INT}, "category"),
    ],
)
def test_label_column_by_type_and_name(features: dict[str, Any], expected: str) -> None:
    assert label_column(features, id=[1, 2, 3, 4]) == expected


def test_label_column_by_values_that_repeat() -> None:
    kinds, ids, constant = ["cat", "dog", "cat", "dog"], [1, 2, 3, 4], [7, 7, 7, 7]
    assert label_column({"id": INT, "animal": STRING, "c": INT}, id=ids, animal=kinds, c=constant) == "animal"
    with pytest.raises(ColumnError, match=r"several label columns: animal, sex; pass label_column="):
        label_column({"animal": STRING, "sex": STRING}, animal=kinds, sex=kinds)
    with pytest.raises(ColumnError, match=r"no label column; columns found: image \(Image\), id \(int64\)"):
        label_column({"id": INT}, id=ids)


def test_label_column_of_lists_that_repeat() -> None:
    labels, captions = [["a", "b"], ["b"], [], ["a"]], [["one"], ["two"], ["three"], ["four"]]
    assert label_column({"tags": List(STRING), "captions": List(STRING)}, tags=labels, captions=captions) == "tags"
    with pytest.raises(ColumnError, match="no label column"):
        label_column({"captions": List(STRING)}, captions=captions)
    with pytest.raises(ColumnError, match="several label columns: one, two"):
        label_column({"one": List(STRING), "two": List(INT)}, one=labels, two=[[1], [1], [2], [2]])


def test_several_class_label_columns() -> None:
    features = {"fine_label": CLASSES, "coarse_label": CLASSES}
    with pytest.raises(ColumnError, match="several label columns: fine_label, coarse_label; pass label_column="):
        label_column(features)
    assert label_column(features, "coarse_label") == "coarse_label"
    with pytest.raises(ColumnError, match="several label columns: label, class"):
        label_column({"label": CLASSES, "class": CLASSES})


def test_label_column_requested_by_name_is_checked() -> None:
    with pytest.raises(ColumnError, match=r"label_column='x' is not a column; columns found: image \(Image\)"):
        label_column({}, "x")
    with pytest.raises(ColumnError, match="image_column and label_column are both 'image'"):
        label_column({}, "image")
    assert label_column({"id": INT, "label": CLASSES}, "id") == "id"


BOX, OBJECTS = List(FLOAT), {"bbox": List(List(FLOAT)), "category": List(CLASSES)}


@pytest.mark.parametrize(
    ("features", "column"),
    [
        ({"image_id": INT, "objects": OBJECTS}, "objects"),
        ({"objects": List({"BBox": BOX, "category": CLASSES})}, "objects"),
        ({"bboxes": List(BOX), "category": List(CLASSES)}, "bboxes"),
    ],
)
def test_detection_is_refused(features: dict[str, Any], column: str) -> None:
    for requested in (None, column):
        with pytest.raises(ColumnError, match=f"'{column}' holds boxes: object detection is not.*label_column=… of a"):
            label_column(features, requested, image_id=[1, 2])


def test_boxes_beside_classes_do_no_harm() -> None:
    assert label_column({"bbox": BOX, "label": INT}) == "label"
    assert label_column({"objects": List(STRING)}, objects=[["a"], ["b"], ["a"], ["b"]]) == "objects"


def test_segmentation_is_refused() -> None:
    masks = {"mask": ImageFeature(), "instances": List(ImageFeature()), "annotation": ImageFeature()}
    for name, feature in masks.items():
        for requested in (None, name):
            with pytest.raises(ColumnError, match=rf"'{name}' holds images as labels \(masks\): segmentation is not"):
                label_column({name: feature}, requested)
    with pytest.raises(ColumnError, match="folders 'images' and 'masks', which looks like segmentation"):
        label_column({"label": ClassLabel(names=["images", "masks"])})
    assert label_column({"label": ClassLabel(names=["edges", "images", "masks"])}) == "label"
    assert image_column({"pixel_values": ImageFeature(), "label": ImageFeature()}) == "pixel_values"
