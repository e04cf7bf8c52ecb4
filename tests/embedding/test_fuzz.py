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

CASES = 10_000
QUICK = settings(max_examples=60, deadline=5000, suppress_health_check=list(HealthCheck))
FULL = settings(max_examples=CASES, deadline=5000, suppress_health_check=list(HealthCheck))

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
    """Flip, cut, repeat or insert bytes, a few times."""
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.sampled_from([0, 1, 2, 8, 64, 1 << 20])))
        kind = data.draw(st.sampled_from(["cut", "repeat", "insert", "replace"]))
        new = data.draw(st.binary(max_size=12))
        middle = {"cut": b"", "repeat": content[start:end] * 2, "insert": new + content[start:end], "replace": new}[
            kind
        ]
        content = content[:start] + middle + content[end:]
    return content


def altered(data: st.DataObject, content: bytes) -> bytes:
    """Replace, remove or add values of a JSON document."""
    document = json.loads(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            what = data.draw(st.sampled_from(["replace", "remove", "add"]))
            if what == "replace":
                place[key] = data.draw(VALUES)
            elif what == "remove":
                del place[key]
            elif isinstance(place, dict):
                place[data.draw(st.text(max_size=6))] = data.draw(VALUES)
            else:
                place.append(data.draw(VALUES))
            break
    return json.dumps(document).encode("utf-8", "surrogatepass")


def changed(data: st.DataObject, content: bytes, *, is_json: bool) -> bytes:
    """Damage the bytes, or alter the document."""
    return altered(data, content) if is_json and data.draw(st.booleans()) else damaged(data, content)


def survives(load: Callable[[], Any]) -> None:
    """Load; only errors of this package may come."""
    with contextlib.suppress(Task2VecError):
        load()


def embedding_file(data: st.DataObject, folder: Path) -> None:
    path = folder / "one.safetensors"
    original = folder / "original.safetensors"
    if not original.exists():
        embedding().save(original)
    content = original.read_bytes()
    if data.draw(st.booleans()):
        content = damaged(data, content)
    else:  # a file that the format's library reads, with another document in it
        end = 8 + int.from_bytes(content[:8], "little")
        document = json.loads(json.loads(content[8:end])["__metadata__"]["task2vec"])
        text = altered(data, json.dumps(document).encode()).decode("utf-8", "surrogatepass")
        with contextlib.suppress(ValueError):  # text that no file can hold
            content = save(load(content), metadata={"task2vec": text})
    path.write_bytes(content)
    survives(lambda: TaskEmbedding.load(path))


def index_folder(data: st.DataObject, folder: Path) -> None:
    """One file of an index."""
    target = folder / "index"
    if not target.exists():
        references = {"birds": embedding(1), "digits": embedding(2)}
        zoo(references).with_attachments({METRIC_FILE: MetricParameters().to_json()}).save(target)
    names = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    name = data.draw(st.sampled_from(names))
    path = target / name
    original = path.read_bytes()
    content = changed(data, original, is_json=name.endswith(".json"))

    def read() -> None:
        index = ZooIndex.load(target)
        index.validate()
        if index.embedded is not None:
            _ = index.embeddings
        if stored := index.attachments.get(METRIC_FILE):
            MetricParameters.from_json(stored)

    path.write_bytes(content)  # nothing is drawn from here on: that may raise
    try:
        survives(read)
    finally:
        path.write_bytes(original)


def metric_file(data: st.DataObject, folder: Path) -> None:
    made = MetricParameters(factors={"org/a": (0.1, 0.2)}, lengths={"log_side": 2.0}, slopes={"a/b": 1.0})
    content = changed(data, made.to_json(), is_json=True)
    survives(lambda: MetricParameters.from_json(content))


LOADERS = (embedding_file, index_folder, metric_file)


@pytest.mark.parametrize("loader", LOADERS)
def test_a_few_broken_files(loader: Callable[[st.DataObject, Path], None], tmp_path: Path) -> None:
    QUICK(given(data=st.data())(lambda data: loader(data, tmp_path)))()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("loader", LOADERS)
def test_many_broken_files(loader: Callable[[st.DataObject, Path], None], tmp_path: Path) -> None:
    FULL(given(data=st.data())(lambda data: loader(data, tmp_path)))()
