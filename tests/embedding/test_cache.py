"""Kept embeddings: every setting that changes an embedding arrives at it, and tells kept ones apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_task2vec.embedding import embed
from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.computing import Computing
from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task
from tests.support.synthetic import dataset, tiny_probe


@pytest.fixture(autouse=True)
def kept(own_cache: Path) -> Path:
    return own_cache


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.from_dataset(dataset(48))


@pytest.fixture(scope="module")
def probe() -> Probe:
    return tiny_probe()


SETTINGS: list[dict[str, Any]] = [{}, {"seed": 3}]


def test_settings_tell_embeddings_apart(task: Task, probe: Probe, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [cached_embedding(task, probe, **settings) for settings in SETTINGS]
    for settings, found in zip(SETTINGS, made, strict=True):
        expected = embed_task(task, probe, **settings)
        assert found.config == expected.config
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)
    assert len(list(kept.rglob("*.safetensors"))) == len(SETTINGS)
    monkeypatch.setattr(embed, "embed_task", lambda *_, **__: pytest.fail("it was embedded again"))
    for settings, first in zip(SETTINGS, made, strict=True):
        again = cached_embedding(task, probe, **settings)
        assert again.config == first.config
        assert np.array_equal(again.values, first.values)
    with pytest.raises(pytest.fail.Exception, match="it was embedded again"):
        cached_embedding(task, probe, computing=Computing(cache=False))


def test_the_same_weights_may_see_images_otherwise(task: Task, probe: Probe, kept: Path) -> None:
    small = tiny_probe()
    small.preprocessing = {**probe.preprocessing, "crop_pct": 0.5}
    small.transform = lambda image: probe.transform(image.crop((2, 2, 10, 10)))
    assert small.weights_hash == probe.weights_hash
    first, second = cached_embedding(task, probe), cached_embedding(task, small)
    assert len(list(kept.rglob("*.safetensors"))) == 2
    assert not np.allclose(first.values, second.values, rtol=1e-2)
    again = cached_embedding(task, small)
    assert np.array_equal(again.values, second.values)
