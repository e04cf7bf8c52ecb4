"""Task embeddings: one or more tasks, their file, and what it says when the file is not what it should be."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save

from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.embedding.task_embedding import TaskEmbedding, embedding_config, embedding_key, probe_slug
from hf_task2vec.errors import EmbeddingError, ProbeMismatchError
from hf_task2vec.tasks.task import Task
from tests.support.synthetic import dataset, embedding, image_folder, tiny_probe

SHARED_FOLDER = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
FLOATS = st.floats(0, 2.0**100, width=32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def assert_same(a: TaskEmbedding, b: TaskEmbedding) -> None:
    for field in fields(TaskEmbedding):
        np.testing.assert_equal(getattr(a, field.name), getattr(b, field.name))


# ---------------------------------------------------------------------- round trips


@SHARED_FOLDER
@given(data=st.data(), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), n=st.integers(1, 3))
def test_round_trip(tmp_path: Path, data: st.DataObject, sizes: list[int], n: int) -> None:
    made = TaskEmbedding(
        values=data.draw(hnp.arrays(np.float32, (n, sum(sizes)), elements=FLOATS)),
        layer_names=tuple(f"layer {i}" for i in range(len(sizes))),
        layer_sizes=np.array(sizes, dtype=np.int64),
        feature_mean=data.draw(hnp.arrays(np.float32, (n, 3), elements=FLOATS)),
        feature_var=data.draw(hnp.arrays(np.float32, (n, 3), elements=FLOATS)),
        probe={"name": "né", "weights_hash": "ab", "more": data.draw(JSON)},
        tasks=tuple({"dataset": f"t{i}", "more": data.draw(JSON)} for i in range(n)),
        task_descriptors=tuple({"noise": data.draw(st.floats(-1e9, 1e9))} for _ in range(n)),
        config={"seed": 0},
    )
    path = made.save(tmp_path / "any name")
    assert_same(TaskEmbedding.load(path), made)
    assert made.to_bytes() == path.read_bytes() == copy.deepcopy(made).to_bytes()


def test_one_of_several() -> None:
    one, two = embedding(1), embedding(2)
    both = TaskEmbedding.stack([one, two])
    assert (len(both), both.names) == (2, ("task1", "task2"))
    assert_same(both["task2"], two)
    assert_same(both[-1], two)
    assert_same(TaskEmbedding.stack(list(both)), both)
    assert both.take([1, 0]).names == ("task2", "task1")
    assert TaskEmbedding.stack([both], ["a", "b"]).tasks == ({"dataset": "a"}, {"dataset": "b"})
    assert (one.name, one.task["label_names"], one.descriptors["noise"]) == ("task1", ["é", "b"], 0.05)
    with pytest.raises(EmbeddingError, match=r"this holds 2 tasks; take one of them, such as embedding\['task1'\]"):
        _ = both.descriptors
    with pytest.raises(EmbeddingError, match="no embedding of 'task3'; embedded are task1, task2"):
        _ = both["task3"]
    with pytest.raises(IndexError):
        _ = both[2]
    with pytest.raises(EmbeddingError, match="give at least one"):
        TaskEmbedding.stack([])
    with pytest.raises(ProbeMismatchError, match="embed both with the same probe"):
        TaskEmbedding.stack([one, embedding(2, weights_hash="cd" * 32)])


def test_repr() -> None:
    assert repr(embedding()) == (
        "TaskEmbedding('task0', 24 filters in 2 layers, probe 'org/tiny-probe', 64 images, linear probe accuracy 0.60)"
    )
    both = TaskEmbedding.stack([embedding(1), embedding(2)])
    assert repr(both) == "TaskEmbedding(2 tasks, 24 filters in 2 layers, probe 'org/tiny-probe')"


@pytest.mark.parametrize(
    ("probe", "slug"),
    [("timm/x_0.in1k", "timm--x_0.in1k"), ("my net", "my_net"), ("../x", "--x"), ("", "_")],
)
def test_probe_slug(probe: str, slug: str) -> None:
    assert probe_slug(probe) == slug


# ---------------------------------------------------------------------- other files


def written(path: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write an embedding with other tensors, or other fields of its document (... removes one)."""
    data = embedding().to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    document = {**json.loads(header["__metadata__"]["task2vec"]), **changes}
    document = {name: value for name, value in document.items() if value is not ...}
    path.write_bytes(save({**load(data), **(tensors or {})}, metadata={"task2vec": json.dumps(document)}))
    return path


ONES = np.ones((1, 24), dtype=np.float32)


@pytest.mark.parametrize(
    ("tensors", "changes", "message"),
    [
        ({"values": ONES * np.nan}, {}, "values holds values that are not finite"),
        ({"values": -ONES}, {}, "cannot be negative"),
        ({"values": ONES[:, :5]}, {}, r"values is float32 of shape \(1, 5\), expected float32 of \(1, 24\)"),
        ({"values": ONES.astype(np.float64)}, {}, "values is float64"),
        ({"feature_var": ONES}, {}, r"feature_var is float32 of shape \(1, 24\), expected float32 of \(1, 16\)"),
        ({"more": ONES}, {}, r"it holds tensors \['feature_mean', 'feature_var', 'more', 'values'\], expected"),
        ({}, {"layers": [{"name": "0", "n_filters": 24}, {"name": "1", "n_filters": 0}]}, "layers must have filters"),
        ({}, {"layers": [{"name": "0"}]}, "layers must be a list of mappings with name and n_filters"),
        ({}, {"layers": {}}, "layers of the wrong kind"),
        ({}, {"probe": {"name": "x"}}, "the probe must be described by at least its name and weights_hash"),
        ({}, {"descriptors": []}, "layers must have filters, and there must be descriptors of each of the 1 tasks"),
        ({}, {"descriptors": [{"noise": True}]}, "descriptor 'noise' must be a finite number, found True"),
        ({}, {"descriptors": [{"noise": 10**400}]}, "descriptor 'noise' must be a finite number"),
        ({}, {"tasks": []}, "tasks and descriptors must be lists of mappings, one a task"),
        ({}, {"versions": ...}, "missing or unknown fields versions"),
        ({}, {"extra": 1}, "missing or unknown fields extra"),
    ],
)
def test_malformed_files(tmp_path: Path, tensors: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    path = written(tmp_path / "x", tensors, **changes)
    with pytest.raises(EmbeddingError, match=rf"the embedding in {re.escape(str(path))} is malformed: .*{message}"):
        TaskEmbedding.load(path)


@pytest.mark.parametrize("version", [0, 1, "2", None])
def test_other_schema_versions(tmp_path: Path, version: Any) -> None:
    message = rf"has schema version {version!r}, this version of hf_task2vec reads 2; upgrade the package, or"
    with pytest.raises(EmbeddingError, match=message):
        TaskEmbedding.load(written(tmp_path / "x", schema_version=version))


def test_files_that_are_no_embedding(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"no embedding at .*nothing; make one with embed_task or `hf-task2vec em"):
        TaskEmbedding.load(tmp_path / "nothing")
    with pytest.raises(EmbeddingError, match=rf"{re.escape(str(tmp_path))} cannot be read"):
        TaskEmbedding.load(tmp_path)
    path = tmp_path / "x"
    for content in (b"", b"{}", b"\x93NUMPY", embedding().to_bytes()[:-1], embedding().to_bytes()[:40]):
        path.write_bytes(content)
        with pytest.raises(EmbeddingError, match=r"x is no readable task embedding"):
            TaskEmbedding.load(path)
    for metadata in (None, {"format": "pt"}, {"task2vec": "[]"}):
        path.write_bytes(save({"values": ONES}, metadata=metadata))
        with pytest.raises(EmbeddingError, match="x is no task embedding: its metadata have no 'task2vec'"):
            TaskEmbedding.load(path)


# ---------------------------------------------------------------------- writing


def test_an_old_embedding_survives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    path = embedding(0).save(tmp_path / "saved")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EmbeddingError, match=r"the embedding cannot be written to .*saved: the disk is full"):
        embedding(1).save(path)
    monkeypatch.undo()
    with pytest.raises(EmbeddingError, match="the embedding cannot be written to"):
        embedding().save(path / "below")
    assert_same(TaskEmbedding.load(path), embedding(0))
    assert [found.name for found in tmp_path.iterdir()] == ["saved"]


# ---------------------------------------------------------------------- cache keys


def test_key_changes_with_task_probe_and_settings() -> None:
    def task(**options: Any) -> Task:
        return Task.from_dataset(dataset(8, 2), **options)

    config = embedding_config()
    keys = [
        embedding_key(task(), "a", config),
        embedding_key(task(), "b", config),
        embedding_key(task(max_samples=4), "a", config),
        embedding_key(task(), "a", {**config, "seed": 1}),
        embedding_key(task(), "a", embedding_config(label_sampling="exact")),
    ]
    assert len(set(keys)) == len(keys)
    assert embedding_key(task(), "a", copy.deepcopy(config)) == keys[0]
    assert all(len(key) == 32 for key in keys)


def test_saved_files_hold_no_local_path(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "secret place" / "photos", 4, 2)
    path = embed_task(Task.from_dataset(folder), tiny_probe()).save(tmp_path / "x")
    assert b"secret place" not in path.read_bytes()
