"""Warnings of candidates that have seen the images. Those about the sample are tested in `test_selection`."""

from __future__ import annotations

from dataclasses import replace

from hf_task2vec.metric.ranking_metric import load_metric
from hf_task2vec.selection.recommendation import SAME_DATASET, Recommender
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.zoo.index import ZooIndex
from tests.support.synthetic import embedding, zoo


def of_imagenet(index: ZooIndex) -> ZooIndex:
    """Return the index with images of ImageNet in its first task, which `org/mid` was trained on."""
    tasks, checkpoints = list(index.rows["tasks"]), list(index.rows["checkpoints"])
    tasks[0] = tasks[0].model_copy(update={"images_from": ("imagenet1k",)})
    checkpoints = [
        row.model_copy(update={"trained_on": ("imagenet1k",)} if row.key == ("org/mid",) else {}) for row in checkpoints
    ]
    return replace(index, rows={**index.rows, "tasks": tuple(tasks), "checkpoints": tuple(checkpoints)})


def leaks(name: str, seed: int, trained_on: tuple[str, ...] = ("imagenet1k",)) -> tuple[str, ...]:
    """Warnings for a dataset of some name with the embedding of task `seed - 1`, or like none."""
    index = of_imagenet(zoo())
    candidates = [{"trained_on": trained_on}, {"trained_on": ()}, {"trained_on": ("laion2b", *trained_on)}]
    query = embedding(seed, task={"dataset": name})
    return tuple(Recommender(query, index, load_metric("trained", index), index.checkpoints)._leakage(candidates))


def test_candidates_that_have_seen_the_images_are_named() -> None:
    (warning,) = leaks("photos", 1)  # the embedding of task0
    assert warning == (
        "2 of the 3 candidates shown may have seen these images in training: the dataset is, or is much like, the "
        "reference task task0, and they were trained on imagenet1k; accuracies on images seen in training are too high"
    )
    (by_name,) = leaks("ILSVRC/imagenet-1k", 99)
    assert "the dataset bears the name of a training set, and they were trained on imagenet1k" in by_name
    (by_task,) = leaks("org/Task_0", 99)
    assert "the reference task task0" in by_task


def test_others_are_not() -> None:
    assert 0.9 < SAME_DATASET < 1.0
    assert leaks("photos", 99) == ()  # like none
    assert leaks("photos", 2) == ()  # task1 is of other images
    assert leaks("photos", 1, trained_on=("laion2b",)) == ()


def test_a_selection_warns_of_leakage() -> None:
    query = embedding(1, task={"dataset": "photos"})
    found = select_backbone(query, index=of_imagenet(zoo()))
    (warning,) = (w for w in found.warnings if "in training" in w)
    assert warning.startswith("1 of the 7 candidates shown may have seen these images in training: ")
    assert not any("in training" in w for w in select_backbone(query, index=zoo()).warnings)
