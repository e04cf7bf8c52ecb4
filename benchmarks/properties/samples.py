"""Tasks cut from the shared ones."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import numpy as np
from PIL import Image

from benchmarks.common import TASKS
from hf_task2vec import Probe, Task
from hf_task2vec.fisher.head import stratified_folds


@dataclass(frozen=True)
class Rows:
    """Labelled encoded images of one or more datasets."""

    images: list[bytes]
    labels: list[str]

    @classmethod
    def of(cls, *tasks: str) -> Rows:
        """Read all rows of both splits of shared tasks; WordNet ids before class names are dropped."""
        images: list[bytes] = []
        labels: list[str] = []
        for task in tasks:
            for split in ("train", "test"):
                file = str(TASKS / task / f"{split}.parquet")
                data = datasets.Dataset.from_parquet(file).cast_column("image", datasets.Image(decode=False))
                names = [_without_id(name) for name in data.features["label"].names]
                images += [cell["bytes"] for cell in data["image"]]
                labels += [names[label] for label in data["label"]]
        return cls(images, labels)

    def cut(self, name: str, classes: Sequence[str], images: int) -> Task:
        """Draw a task of some of the classes."""
        chosen = [i for i, label in enumerate(self.labels) if label in classes]
        return task_of(name, [self.images[i] for i in chosen], [self.labels[i] for i in chosen], images)


def _without_id(name: str) -> str:
    first, _, rest = name.partition(" ")
    return rest if first[0] == "n" and first[1:].isdigit() else name


def task_of(name: str, images: Sequence[bytes], labels: Sequence[str], max_samples: int | None = None) -> Task:
    """Make a task of encoded images and class names, numbered in alphabetical order."""
    classes = sorted(set(labels))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    cells = [{"bytes": image, "path": None} for image in images]
    data = datasets.Dataset.from_dict({"image": cells, "label": [classes.index(x) for x in labels]}, features=features)
    data.info.dataset_name = name
    return Task.from_dataset(data, max_samples=max_samples)


def shared_task(name: str, images: int) -> Task:
    """Draw from the training part of a shared task."""
    return Task.from_dataset(TASKS / name, split="train", max_samples=images)


def halves_of(task: Task) -> tuple[Task, Task]:
    """Split into two disjoint tasks of the same mix of classes."""
    side = stratified_folds(task.labels, 2, seed=1)
    return task.subset(np.flatnonzero(side == 0)), task.subset(np.flatnonzero(side == 1))


def shrunk(task: Task, side: int) -> Task:
    """Return the same sample with images whose shorter side has at most `side` pixels."""
    names = [task.label_names[label] for label in task.labels]
    return task_of(f"{task.dataset} {side} px", [_png(image, side) for image in task.images], names)


def _png(image: Image.Image, side: int) -> bytes:
    scale = side / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def at_input_size(probe: Probe, side: int) -> Probe:
    """Return a convolutional probe that sees images of another size, cropped and normalised as before."""
    from timm.data import create_transform

    size = (3, side, side)
    transform = create_transform(**{**probe.preprocessing, "input_size": size}, is_training=False)
    return Probe.wrap(
        probe.module, transform=transform, feature_dim=probe.feature_dim, input_size=size, name=probe.name
    )
