"""Whether a sample is fit to judge checkpoints by, and what it can't tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.tasks import counted, shown

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding

#: Share of the largest class beside an equal one, above which a sample counts as unbalanced.
_UNEVEN = 1.2


def can_judge(task: dict[str, Any]) -> bool:
    """Say whether accuracies on a sample mean anything: two classes have a second image, to be recognised by the first.

    An embedding of someone else's may not say how many images its classes have.
    """
    if task.get("label_kind") == "multi_label" or "sample_counts" not in task:
        return True
    return int(np.count_nonzero(np.asarray(task["sample_counts"]) > 1)) > 1


def chance(task: dict[str, Any]) -> float:
    """Return what is reached without a look at the images, 0 where that is not known.

    That is the accuracy of always saying the largest class of the sample; with several labels an image, the mAP of any
    order, which is the mean share of images with a label.
    """
    drawn, images = np.asarray(task.get("sample_counts", ())), task.get("n_samples", 0)
    if not drawn.size or not images:
        return 0.0
    shares = drawn[drawn > 0] / images
    return float(shares.mean() if task.get("label_kind") == "multi_label" else shares.max())


def weaknesses(embedding: TaskEmbedding) -> Iterator[str]:
    """Say what makes the sample of an embedding less reliable to judge by."""
    facts, task = embedding.descriptors, embedding.task
    yield from task.get("warnings", ())
    single = task.get("label_kind") != "multi_label"
    if not can_judge(task):
        yield (
            "a sample without a second picture of its classes can't be judged by: the order is the prior's alone, what "
            "does well in general, and the accuracies are those of a usual task"
        )
    elif single and facts["linear_probe_accuracy"] <= chance(task):
        yield (
            f"on this sample the probe tells the classes apart no better ({facts['linear_probe_accuracy']:.1%}) than "
            f"always saying the largest ({chance(task):.1%}): labels may be wrong, or not to be seen; no "
            "accuracy below that is predicted"
        )
    if facts["n_samples"] < 8 * facts["n_classes"]:
        advice = "; pass a larger max_samples if there are more" if facts["n_rows"] > facts["n_samples"] else ""
        yield f"only {facts['n_samples']:.0f} images for {facts['n_classes']:.0f} classes were used{advice}"
    if facts["class_balance"] < 0.8:
        yield f"the classes are unbalanced (balance {facts['class_balance']:.2f} of 1); " + _drawn_balance(task)
    if single and (left_out := _absent(task)):
        count, total = left_out
        yield (
            f"the sample holds {total - count} of {total} classes; max_samples={2 * total} or more would "
            "hold two images of each"
        )
    if skipped := task.get("skipped"):
        yield f"{counted(len(skipped), 'broken image')} skipped"
    if unlabelled := task.get("n_unlabelled"):
        yield f"{counted(unlabelled, 'row')} without a label skipped"


def _drawn_balance(task: dict[str, Any]) -> str:
    drawn: NDArray[np.int64] = np.asarray(task.get("sample_counts", ()), dtype=np.int64)
    if task.get("label_kind") == "multi_label" or not drawn.size:
        return "scores refer to the balanced sample"
    largest, present = int(drawn.argmax()), int(np.count_nonzero(drawn))
    if drawn[largest] * present <= _UNEVEN * drawn.sum():
        return "scores refer to the balanced sample"
    return (
        f"always saying {shown(task['label_names'][largest])!r} is right for {drawn[largest] / drawn.sum():.1%} of the "
        f"{drawn.sum()} images drawn, so read accuracies beside that"
    )


def _absent(task: dict[str, Any]) -> tuple[int, int] | None:
    """Return how many classes with images have none in the sample, and how many there are."""
    drawn, there = (np.asarray(task.get(name, ())) > 0 for name in ("sample_counts", "class_counts"))
    if drawn.shape != there.shape or not (absent := int(np.count_nonzero(there & ~drawn))):
        return None
    return absent, int(np.count_nonzero(there))
