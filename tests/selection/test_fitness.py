"""A sample that is not fit to judge by: what the answer says, and what it does not claim."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hf_task2vec.metric import load_metric
from hf_task2vec.selection.ranking import Ranking
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.synthetic import as_dataset, dataset, pictures

Select = Callable[..., Ranking]


def labelled(labels: Sequence[int], classes: int) -> Any:
    return as_dataset(pictures(len(labels), classes), list(labels), classes)


def warned(ranking: Ranking, *parts: str) -> bool:
    return any(all(part in warning for part in parts) for warning in ranking.warnings)


def test_the_answer_starts_with_what_was_read(select: Select) -> None:
    ranking = select(dataset(48), max_samples=24)
    assert ranking.read.startswith("24 of 48 images (seed 0), 3 classes (")
    assert "labels from" in ranking.read
    assert ranking.to_dict()["read"] == ranking.read == repr(ranking).splitlines()[0]
    assert ranking.read == select(dataset(48), max_samples=24).read, "also where the embedding is kept"


def test_one_picture_a_class_ranks_by_the_prior_alone(select: Select, index: ZooIndex) -> None:
    ranking = select(labelled(range(4), 4), top_k=100)
    assert warned(ranking, "can't be judged", "prior")
    assert np.allclose(ranking.table["residual"], 0.0)
    assert ranking.table["prior"][1:].is_monotonic_decreasing  # the first is of known size and licence
    assert ranking.explain().far
    assert load_metric("trained", index).data.score.min() < ranking.best.score < 1


def test_what_always_saying_the_largest_class_reaches_stands_beside_the_accuracies(select: Select) -> None:
    ranking = select(labelled([0] * 44 + [1] * 4, 2), max_samples=24)
    assert warned(ranking, "83.3% of the 24 images drawn")
    assert ranking.table["low"].min() >= 20 / 24 - 1e-9


def test_nothing_below_chance_is_a_prediction(select: Select) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (12, 20, 3), dtype=np.uint8) for _ in range(48)]
    chance = select(as_dataset(noise, [i % 2 for i in range(48)], 2), top_k=100)
    assert chance.table[["score", "low", "high", "prior"]].min().min() >= 0.5


def test_classes_that_were_not_drawn_are_told(select: Select) -> None:
    ranking = select(labelled(list(range(6)) * 4, 6), max_samples=4)
    assert warned(ranking, "4 of 6 classes", "max_samples=12")


def test_more_images_are_asked_for_only_where_there_are_more(select: Select) -> None:
    assert not warned(select(dataset(12), max_samples=None), "pass a larger max_samples")
    assert warned(select(dataset(48), max_samples=12), "pass a larger max_samples")


def test_the_callers_random_numbers_are_left_alone(select: Select) -> None:
    before = torch.get_rng_state()
    select("sklearn:digits", max_samples=16, probe=None, index=None, cache=False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_answers_at_once(tmp_path: Path) -> None:
    import subprocess

    program = """
import os, sys, torch
from hf_task2vec import Task, embed_task
from hf_task2vec.errors import EmbeddingError
torch.set_num_threads(2)
task = Task.from_dataset("sklearn:digits", max_samples=16)
embed_task(task)
if os.fork() == 0:
    try:
        embed_task(task)
    except EmbeddingError as error:
        os.write(1, str(error).encode())
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert "forked" in done.stdout
    assert "spawn" in done.stdout


def test_the_loaded_transform_takes_what_the_selection_took(select: Select) -> None:
    from hf_task2vec.probes.probe import PictureTransform

    deep = [np.rint(p[..., 0] / 255 * 4095).astype(np.uint16) for p in pictures(12, 2)]
    task = Task.from_dataset(as_dataset(deep, [i % 2 for i in range(12)], 2))
    (values,) = {tuple(c.values["integer"]) for c in select(task)}
    assert values == (0.0, 4095.0)
    transform = PictureTransform(lambda image: torch.from_numpy(np.asarray(image).copy()), {"integer": values})
    first = int(task.indices[0])
    assert np.array_equal(transform(Image.fromarray(deep[first])).numpy(), np.asarray(task.images[0]))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"):
        assert transform(Image.new(mode, (5, 4))).shape == (4, 5, 3)
