"""What could make a ranking less reliable, in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_task2vec.explanation import FAR

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.metric import Metric
    from hf_task2vec.zoo import ZooIndex

#: From this similarity on a reference task is taken for the user's own dataset. On the shipped index different
#: datasets reach 0.92, and other 256 images of the same one 0.95 and more.
SAME_DATASET = 0.94


def cautions(embedding: TaskEmbedding, task_weight: float) -> tuple[str, ...]:
    """Return warnings about the sample and its place among the reference tasks.

    Parameters
    ----------
    embedding
        The task.
    task_weight
        Its similarity to the nearest reference task, in [0, 1].
    """
    facts, task = embedding.descriptors, embedding.task
    found = []
    if task_weight < FAR:
        found.append(
            "no reference task is near this dataset, so the ranking is only the prior: what does well in general"
        )
    if task.get("label_kind") == "multi_label":
        found.append(
            "images have several labels each, but the scores of the index are of tasks with one: the order comes from "
            "those, and the level of the mAP from the probe's own on this sample"
        )
    if facts["n_samples"] < 8 * facts["n_classes"]:
        found.append(
            f"only {facts['n_samples']:.0f} images for {facts['n_classes']:.0f} classes were used; "
            "pass a larger max_samples if there are more"
        )
    if facts["class_balance"] < 0.8:
        found.append(
            f"the classes are unbalanced (balance {facts['class_balance']:.2f} of 1); "
            "scores refer to the balanced sample"
        )
    if isinstance(skipped := task.get("skipped"), list) and skipped:
        found.append(f"{counted(len(skipped), 'broken image')} skipped")
    if isinstance(unlabelled := task.get("n_unlabelled"), int) and unlabelled:
        found.append(f"{counted(unlabelled, 'row')} without a label skipped")
    return tuple(found)


def leakage(
    embedding: TaskEmbedding, metric: Metric, zoo: ZooIndex, candidates: Iterable[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Warn of candidates that have probably seen images of the dataset in training.

    The dataset is taken for a reference task whose embedding is next to its own, or which bears its name; a candidate
    has seen what its row says in ``trained_on``, and a reference task consists of what its row says in ``images_from``.

    Parameters
    ----------
    candidates
        Rows of ``checkpoints.csv``.
    """
    images_from = dict(zip(zoo.tasks["task"], zoo.tasks["images_from"], strict=True))
    alike = _same_tasks(embedding, metric, images_from)
    origins = {_plain(embedding.name)}.union(*(images_from.get(task, ()) for task in alike))
    rows = list(candidates)
    seen = {slug for row in rows for slug in origins.intersection(row["trained_on"])}
    if not seen:
        return ()
    same = [task for task in alike if not seen.isdisjoint(images_from.get(task, ()))]
    known = f"is, or is much like, the reference task {same[0]}" if same else "bears the name of a training set"
    count = sum(not seen.isdisjoint(row["trained_on"]) for row in rows)
    warning = (
        f"{count} of the {len(rows)} candidates shown may have seen these images in training: the dataset {known}, "
        f"and they were trained on {', '.join(sorted(seen))}; accuracies on images seen in training are too high"
    )
    return (warning,)


def counted(n: int, noun: str) -> str:
    """Return ``1 image``, ``2 images``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _same_tasks(embedding: TaskEmbedding, metric: Metric, tasks: Iterable[str]) -> list[str]:
    """Reference tasks that may be the dataset itself, the most similar first."""
    similarity = metric.task_similarity(metric.space.of_embedding(embedding))
    near = [i for i in np.argsort(-similarity, kind="stable") if similarity[i] >= SAME_DATASET]
    names = [metric.data.tasks.names[i] for i in near]
    own = _plain(embedding.name)
    same_name = [name for name in tasks if _plain(name) == own and name not in names]
    return [*names, *same_name]


def _plain(name: str) -> str:
    """``"ILSVRC/imagenet-1k"`` and ``imagenet1k`` are the same."""
    return "".join(c for c in name.rsplit("/", 1)[-1].lower() if c.isalnum())
