"""Datasets of detection and segmentation: the error names the column and what to do, and what it says works."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Features, List, Value
from PIL import Image
from synthetic import pictures

from hf_task2vec.errors import ColumnError, LabelError, TaskError
from hf_task2vec.task import Task

NAMES = ["cat", "dog", "bird"]
CLASSES = [[0, 1], [1], [], [2, 2], [0], [1, 2]] * 2
BOXES = [[[0.0, 0.0, 4.0, 3.0]] * len(found) for found in CLASSES]
BOX = List(Value("float32"))


def data(columns: dict[str, list[Any]], types: dict[str, Any]) -> datasets.Dataset:
    cells = [Image.fromarray(picture) for picture in pictures(len(CLASSES))]
    features = Features({"image": datasets.Image(), **types})
    return datasets.Dataset.from_dict({"image": cells, **columns}, features=features)


def coco_style() -> datasets.Dataset:
    """As in cppe-5: sizes and numbers beside a struct of lists."""
    n = len(CLASSES)
    objects = [{"bbox": b, "category": c} for b, c in zip(BOXES, CLASSES, strict=True)]
    return data(
        {"image_id": list(range(n)), "width": [20] * (n - 3) + [12] * 3, "objects": objects},
        {
            "image_id": Value("int64"),
            "width": Value("int32"),
            "objects": {"bbox": List(BOX), "category": List(ClassLabel(names=NAMES))},
        },
    )


def list_of_structs() -> datasets.Dataset:
    rows = [
        [{"bbox": b, "category": c} for b, c in zip(*both, strict=True)] for both in zip(BOXES, CLASSES, strict=True)
    ]
    return data({"objects": rows}, {"objects": List({"bbox": BOX, "category": ClassLabel(names=NAMES)})})


def flat() -> datasets.Dataset:
    return data(
        {"bboxes": BOXES, "category": CLASSES}, {"bboxes": List(BOX), "category": List(ClassLabel(names=NAMES))}
    )


def run(code: str, dataset: datasets.Dataset) -> tuple[datasets.Dataset, str]:
    """Run the statement that a message recommends; return the new dataset and the label column it names."""
    names: dict[str, Any] = {"dataset": dataset, "datasets": datasets, "np": np}
    advice = code.partition("What would work: ")[2]
    statement = re.search(r"(dataset = .*?)(?: \(the cast keeps their names\))? and label_column=", advice)
    if statement is not None:
        exec(statement[1], names)
    column = re.search(r'label_column="([\w.]+)"', advice)
    assert column is not None, code
    return names["dataset"], column[1]


@pytest.mark.parametrize("make", [coco_style, list_of_structs, flat])
def test_detection_says_what_to_do_and_that_works(make: Any) -> None:
    dataset = make()
    column = "bboxes" if make is flat else "objects"
    for requested in (None, column):
        with pytest.raises(TaskError, match=f"column '{column}' holds boxes: object detection is not supported yet"):
            Task.from_dataset(dataset, label_column=requested)
    with pytest.raises(ColumnError) as error:
        Task.from_dataset(dataset)
    usable, labels = run(str(error.value), dataset)
    task = Task.from_dataset(usable, label_column=labels, max_samples=None)
    assert task.label_kind == "multi_label"
    assert task.label_names == tuple(NAMES)
    for row, drawn in zip(task.indices, task.labels, strict=True):
        assert set(np.flatnonzero(drawn)) == set(CLASSES[row])


def test_boxes_beside_one_class_an_image_do_no_harm() -> None:
    n = len(CLASSES)
    one = data(
        {"bbox": [[0.0, 0.0, 4.0, 3.0]] * n, "label": [i % 3 for i in range(n)]},
        {"bbox": BOX, "label": Value("int64")},
    )
    assert Task.from_dataset(one).label_column == "label"
    with pytest.raises(ColumnError, match="column 'bbox' holds boxes"):
        Task.from_dataset(one, label_column="bbox")


def test_a_list_of_names_called_objects_is_no_detection() -> None:
    named = data({"objects": [[NAMES[c] for c in found] for found in CLASSES]}, {"objects": List(Value("string"))})
    task = Task.from_dataset(named)
    assert (task.label_kind, task.label_column) == ("multi_label", "objects")


# ---------------------------------------------------------------------- segmentation


def masks() -> list[Image.Image]:
    found = []
    for classes in CLASSES:
        mask = np.zeros((12, 20), dtype=np.uint8)
        for c in classes:
            mask[c : c + 3, : c + 2] = c + 1
        found.append(Image.fromarray(mask))
    return found


@pytest.mark.parametrize("column", ["mask", "annotation", "label"])
def test_segmentation_says_what_to_do_and_that_works(column: str) -> None:
    n = len(CLASSES)
    dataset = data(
        {column: masks(), "width": [20] * (n - 4) + [12] * 4}, {column: datasets.Image(), "width": Value("int32")}
    )
    for requested in (None, column):
        with pytest.raises(
            ColumnError, match=rf"column '{column}' holds images as labels \(masks\): segmentation is not supported yet"
        ) as error:
            Task.from_dataset(dataset, label_column=requested)
    usable, labels = run(str(error.value), dataset)
    task = Task.from_dataset(usable, label_column=labels, max_samples=None)
    assert task.label_kind == "multi_label"
    assert task.label_names == ("0", "1", "2", "3")


def test_pictures_are_told_from_masks_by_name() -> None:
    dataset = data({"label": masks()}, {"label": datasets.Image()}).rename_column("image", "pixel_values")
    with pytest.raises(ColumnError, match="column 'label' holds images as labels"):
        Task.from_dataset(dataset)


def test_lists_of_masks() -> None:
    dataset = data({"instances": [[mask] for mask in masks()]}, {"instances": List(datasets.Image())})
    with pytest.raises(ColumnError, match="column 'instances' holds images as labels"):
        Task.from_dataset(dataset)


# ---------------------------------------------------------------------- folders


def fill(folder: Path, count: int = 4) -> None:
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures(count)):
        Image.fromarray(picture).save(folder / f"{i}.png")


def test_folders_of_images_and_masks(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        fill(tmp_path / "photos" / name)
    with pytest.raises(ColumnError, match="folders 'images' and 'masks', which looks like segmentation"):
        Task.from_dataset(tmp_path / "photos")
    fill(tmp_path / "photos" / "edges")
    assert Task.from_dataset(tmp_path / "photos").num_classes == 3


@pytest.mark.parametrize(
    ("images", "file", "form"),
    [
        ("train", "train/_annotations.coco.json", "COCO"),
        (".", "annotations/instances_train.json", "COCO"),
        ("images", "labels/0.txt", "YOLO"),
        ("JPEGImages", "Annotations/0.xml", "Pascal VOC"),
    ],
)
def test_folders_with_annotation_files(tmp_path: Path, images: str, file: str, form: str) -> None:
    folder = tmp_path / "photos"
    fill(folder / images)
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    for i in range(4):
        path.with_stem(path.stem.replace("0", str(i))).write_text('{"images": [], "annotations": []}')
    with pytest.raises((ColumnError, LabelError)) as error:
        Task.from_dataset(folder)
    message = str(error.value)
    assert f"'{file}' looks like annotations in the form of {form}: detection and segmentation are not" in message
    if images == ".":
        shutil.rmtree(path.parent)  # "a folder of the images alone"
    line = re.search(r'\{"file_name".*?\}', message)
    assert line is not None
    example = json.loads(line[0])
    lines = [example | {"file_name": f"{i}.png", "labels": example["labels"][: 1 + i % 2]} for i in range(4)]
    (folder / images / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    task = Task.from_dataset(folder / images)
    assert (task.label_kind, task.label_names) == ("multi_label", ("cat", "dog"))
