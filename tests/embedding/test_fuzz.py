"""Whatever lies in a file, loading it ends in an object or in a Task2VecError: never another error, never a hang."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import Task2VecError
from hf_task2vec.metric.covariance import METRIC_FILE, MetricParameters
from hf_task2vec.zoo.index import ZooIndex
from tests.support.synthetic import embedding, zoo

QUICK = settings(deadline=5000, suppress_health_check=list(HealthCheck))
INDEX = zoo({"birds": embedding(1)}).with_attachments({METRIC_FILE: MetricParameters().to_json()})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["../../etc/passwd", "/etc/passwd", "C:\\x", "a" * 5000, "\0", "\ud800", "1e999", "=1+1", "<script>"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Cut, repeat, replace or insert bytes, a few times."""
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.sampled_from([0, 1, 2, 8, 64, 1 << 20])))
        middle = data.draw(st.just(content[start:end] * 2) | st.binary(max_size=12))
        content = content[:start] + middle + content[end:]
    return content


def altered(data: st.DataObject, content: bytes) -> bytes:
    """Replace, remove or add values of a JSON document."""
    document = json.loads(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place, key = {"": document}, ""
        while isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
            key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        what = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "replace":
            place[key] = data.draw(VALUES)
        elif what == "remove" and place is not document and key != "":
            del place[key]
        elif isinstance(place, dict):
            place[data.draw(st.text(max_size=6))] = data.draw(VALUES)
        else:
            place.append(data.draw(VALUES))
    return json.dumps(document).encode("utf-8", "surrogatepass")


def embedding_file(data: st.DataObject, folder: Path) -> Callable[[], object]:
    """Return what loads an embedding of damaged bytes, or of another document in a file that is sound."""
    path, content = folder / "x.safetensors", embedding().to_bytes()
    if data.draw(st.booleans()):
        content = damaged(data, content)
    else:
        end = 8 + int.from_bytes(content[:8], "little")
        document = json.loads(content[8:end])["__metadata__"]["task2vec"].encode()
        text = altered(data, document).decode("utf-8", "surrogatepass")
        with contextlib.suppress(ValueError):  # text that no file can hold
            content = save(load(content), metadata={"task2vec": text})
    path.write_bytes(content)
    return lambda: TaskEmbedding.load(path)


def index_folder(data: st.DataObject, folder: Path) -> Callable[[], object]:
    """Return what loads all of an index of which one file is damaged."""
    target = folder / "index"
    INDEX.save(target)
    path = data.draw(st.sampled_from(sorted(path for path in target.rglob("*") if path.is_file())))
    change = altered if path.suffix == ".json" and data.draw(st.booleans()) else damaged
    path.write_bytes(change(data, path.read_bytes()))

    def read() -> None:
        index = ZooIndex.load(target)
        index.validate()
        if index.embedded is not None:
            _ = index.embeddings
        if stored := index.attachments.get(METRIC_FILE):
            MetricParameters.from_json(stored)

    return read


def check(way: Callable[[st.DataObject, Path], Callable[[], object]], folder: Path, settings: settings) -> None:
    def survives(data: st.DataObject) -> None:
        read = way(data, folder)
        with contextlib.suppress(Task2VecError):
            read()

    settings(given(data=st.data())(survives))()


@pytest.mark.parametrize("way", [embedding_file, index_folder])
def test_a_few_broken_files(way: Any, tmp_path: Path) -> None:
    check(way, tmp_path, settings(QUICK, max_examples=60))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", [embedding_file, index_folder])
def test_many_broken_files(way: Any, tmp_path: Path) -> None:
    check(way, tmp_path, settings(QUICK, max_examples=10_000))
