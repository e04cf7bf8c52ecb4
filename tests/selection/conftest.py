"""A tiny probe, an index that it made, and a selection with both."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.metric.covariance import METRIC_FILE, MetricParameters
from hf_task2vec.probes.probe import Probe
from hf_task2vec.selection.ranking import Ranking
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.synthetic import dataset, tiny_probe, zoo


@pytest.fixture(scope="session")
def probe() -> Probe:
    return tiny_probe()


@pytest.fixture(scope="session")
def query(probe: Probe) -> TaskEmbedding:
    return embed_task(Task.from_dataset(dataset(48)), probe)


@pytest.fixture(scope="session")
def index(probe: Probe) -> ZooIndex:
    """An index with a reference task like the one of `dataset`, and made-up others; its metric trusts its scores."""
    twin = embed_task(Task.from_dataset(dataset(48, seed=7)), probe)
    variances = MetricParameters().variances
    trusting = MetricParameters(variances={**variances, "own": {**variances["own"], "all": 0.1, "similar": 0.3}})
    return zoo({"twin": twin}, weights_hash=probe.weights_hash).with_attachments({METRIC_FILE: trusting.to_json()})


@pytest.fixture
def select(index: ZooIndex, probe: Probe, own_cache: Path) -> Callable[..., Ranking]:
    return partial(select_backbone, index=index, probe=probe)
