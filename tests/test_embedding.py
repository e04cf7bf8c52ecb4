"""Task embeddings as objects and as files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file
from synthetic import as_dataset, embedding, pictures

from hf_task2vec.embedding import DOCUMENT_FILE, VALUES_FILE, TaskEmbedding, embedding_config, embedding_key
from hf_task2vec.errors import EmbeddingError, SchemaVersionError, Task2VecError
from hf_task2vec.files import sha256_file
from hf_task2vec.task import Task

ARRAYS = ("values", "feature_mean", "feature_var", "layer_sizes")
SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def assert_same(a: TaskEmbedding, b: TaskEmbedding) -> None:
    for name in ARRAYS:
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype
        assert np.array_equal(x, y)
    assert a.layer_names == b.layer_names
    assert a.describe() == b.describe()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return embedding().save(tmp_path / "saved")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / DOCUMENT_FILE
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))


def rewrite(folder: Path, change: dict[str, Any]) -> None:
    """Save other tensors under a right checksum; None leaves one out."""
    tensors = load_file(folder / VALUES_FILE) | change
    save_file({name: array for name, array in tensors.items() if array is not None}, folder / VALUES_FILE)
    edit(folder, sha256=sha256_file(folder / VALUES_FILE))


def load(folder: Path) -> tuple[TaskEmbedding | None, str]:
    """Return the embedding or the message of the one kind of error that may be."""
    try:
        return TaskEmbedding.load(folder), ""
    except Task2VecError as error:
        return None, str(error)


# ---------------------------------------------------------------------- round trips

FLOATS = st.floats(0, width=32, allow_nan=False, allow_infinity=False)


@SHARED_FOLDER
@given(data=st.data(), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), d=st.integers(1, 3))
def test_round_trip(tmp_path: Path, data: st.DataObject, sizes: list[int], d: int) -> None:
    original = embedding(
        values=data.draw(hnp.arrays(np.float32, sum(sizes), elements=FLOATS)),
        layer_names=tuple(data.draw(st.lists(st.text("aβ.\n"), min_size=len(sizes), max_size=len(sizes)))),
        layer_sizes=np.array(sizes, dtype=np.int64),
        feature_mean=-data.draw(hnp.arrays(np.float32, d, elements=FLOATS)),
        feature_var=data.draw(hnp.arrays(np.float32, d, elements=FLOATS)),
        task=data.draw(st.dictionaries(st.text("aé"), st.none() | st.text("aé\\/") | st.integers(), max_size=3)),
        descriptors=data.draw(st.dictionaries(st.text("ab"), st.floats(-1e9, 1e9), max_size=3)),
    )
    assert_same(TaskEmbedding.load(original.save(tmp_path)), original)


def test_arrays_with_strides_are_saved_in_their_order(tmp_path: Path) -> None:
    original = embedding(values=np.arange(48, dtype=np.float32)[::-2])
    assert_same(TaskEmbedding.load(original.save(tmp_path)), original)


def test_equal_embeddings_give_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        embedding().save(tmp_path / name)
    for file in (VALUES_FILE, DOCUMENT_FILE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_repr_and_length() -> None:
    text = repr(embedding())
    assert text == (
        "TaskEmbedding('task0', 24 filters in 2 layers, probe 'org/tiny-probe', 64 images, probe accuracy 0.60)"
    )
    assert "accuracy" not in repr(embedding(descriptors={}))
    assert len(embedding()) == 24


def test_saved_files_hold_no_local_path(tmp_path: Path) -> None:
    source = tmp_path / "private" / "pets"
    for i, image in enumerate(pictures(6, 2)):
        from PIL import Image

        (source / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(source / "ab"[i % 2] / f"{i}.png")
    (source / "a" / "broken.png").write_bytes(b"broken")
    described = Task.from_dataset(source).describe()
    assert described["dataset"] == "pets"
    assert described["skipped"]
    embedding(task=described).save(tmp_path / "out")
    for file in (VALUES_FILE, DOCUMENT_FILE):
        assert str(tmp_path).encode() not in (tmp_path / "out" / file).read_bytes()
        assert b"private" not in (tmp_path / "out" / file).read_bytes()


# ---------------------------------------------------------------------- what an embedding may hold


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.ones(24)}, r"values must be a float32 vector, found float64 of shape \(24,\)"),
        ({"values": np.ones((1, 24), np.float32)}, r"found float32 of shape \(1, 24\)"),
        ({"values": [1.0] * 24}, "values must be a float32 vector, found list"),
        ({"values": np.zeros(0, np.float32)}, r"values must be a float32 vector.*\(0,\)"),
        ({"values": np.full(24, -1, np.float32)}, "cannot be negative"),
        ({"feature_var": np.full(16, -1, np.float32)}, "cannot be negative"),
        ({"values": np.full(24, np.nan, np.float32)}, "values holds values that are not finite"),
        ({"feature_mean": np.full(16, np.inf, np.float32)}, "feature_mean holds values that are not finite"),
        ({"feature_mean": np.ones(3, np.float32)}, "feature_mean has 3 entries, feature_var 16"),
        ({"layer_sizes": np.array([8, 15])}, "positive and sum to the 24 values"),
        ({"layer_sizes": np.array([0, 24])}, "positive and sum to the 24 values"),
        ({"layer_sizes": np.array([24])}, r"layer_sizes must be 2 int64, one a layer, found int64 of shape \(1,\)"),
        ({"layer_sizes": (8, 16)}, "layer_sizes must be 2 int64, one a layer, found tuple"),
        ({"probe": {"name": "x"}}, "at least its name and weights_hash"),
        ({"probe": {"name": "x", "weights_hash": 3}}, "both text"),
        ({"task": ["x"]}, "task must be a mapping, found list"),
        ({"descriptors": {"noise": float("nan")}}, "descriptor 'noise' must be a finite number, found nan"),
        ({"descriptors": {"noise": 10**400}}, "descriptor 'noise' must be a finite number"),
        ({"descriptors": {"noise": "low"}}, "descriptor 'noise' must be a finite number, found 'low'"),
        ({"task": {"dataset": object()}}, "cannot be written as JSON"),
        ({"config": {"x": float("inf")}}, "cannot be written as JSON"),
    ],
)
def test_malformed_embeddings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EmbeddingError, match=message):
        embedding(**change)


def test_layer_sizes_cannot_overflow_to_the_right_sum() -> None:
    sizes = np.array([2**62] * 4 + [24], dtype=np.int64)
    assert sizes.sum() == 24
    with pytest.raises(EmbeddingError, match="positive and sum to the 24 values"):
        embedding(layer_sizes=sizes, layer_names=tuple("abcde"))


# ---------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("version", [0, 2, "1", None, True, [1]])
def test_other_schema_versions(folder: Path, version: Any) -> None:
    edit(folder, schema_version=version)
    with pytest.raises(SchemaVersionError, match=r"embedding.json has schema version .*reads 1; upgrade the package"):
        TaskEmbedding.load(folder)


def test_no_embedding(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(
            EmbeddingError, match=r"embedding\.json is missing; make one with embed_task or `hf-task2vec"
        ):
            TaskEmbedding.load(place)


def test_missing_values(folder: Path) -> None:
    (folder / VALUES_FILE).unlink()
    with pytest.raises(EmbeddingError, match=r"embedding.safetensors is missing; copy or save"):
        TaskEmbedding.load(folder)
    (folder / VALUES_FILE).mkdir()
    with pytest.raises(EmbeddingError, match=r"embedding.safetensors cannot be read"):
        TaskEmbedding.load(folder)


def test_values_of_another_embedding(folder: Path, tmp_path: Path) -> None:
    other = embedding(1).save(tmp_path / "other")
    (folder / VALUES_FILE).write_bytes((other / VALUES_FILE).read_bytes())
    with pytest.raises(EmbeddingError, match=r"has sha256 [0-9a-f]{12}…, but embedding.json expects .*belong to diff"):
        TaskEmbedding.load(folder)


@pytest.mark.parametrize("length", [0, 4, 8, 40, -1])
def test_truncated_values(folder: Path, length: int) -> None:
    path = folder / VALUES_FILE
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(EmbeddingError, match="the file is damaged"):
        TaskEmbedding.load(folder)
    edit(folder, sha256=sha256_file(path))
    with pytest.raises(EmbeddingError, match="is no readable safetensors file"):
        TaskEmbedding.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.ones(24)}, "malformed: values must be a float32 vector, found float64"),
        ({"values": np.ones(23, np.float32)}, "positive and sum to the 23 values"),
        ({"values": -np.ones(24, np.float32)}, "cannot be negative"),
        ({"feature_var": np.full(16, np.nan, np.float32)}, "not finite"),
        ({"values": None}, r"holds tensors \['feature_mean', 'feature_var', 'layer_sizes'\], expected"),
        ({"extra": np.ones(1)}, "holds tensors .*'extra'"),
        ({"layer_sizes": np.array([16, 8])}, "layers in .*embedding.json are not those of embedding.safetensors"),
        ({"layer_sizes": np.array([8.0, 16.0])}, "layer_sizes must be 2 int64"),
    ],
)
def test_wrong_tensors(folder: Path, change: dict[str, Any], message: str) -> None:
    rewrite(folder, change)
    with pytest.raises(EmbeddingError, match=message):
        TaskEmbedding.load(folder)


def test_types_that_numpy_lacks(folder: Path) -> None:
    for dtype, size in (("BF16", 2), ("F8_E4M3", 1)):
        header, start = {}, 0
        for name, array in load_file(embedding().save(folder) / VALUES_FILE).items():
            kind, length = (dtype, size * array.size) if name == "values" else ("F32", array.nbytes)
            kind = "I64" if name == "layer_sizes" else kind
            header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, start + length]}
            start += length
        text = json.dumps(header).encode()
        (folder / VALUES_FILE).write_bytes(len(text).to_bytes(8, "little") + text + bytes(start))
        edit(folder, sha256=sha256_file(folder / VALUES_FILE))
        with pytest.raises(EmbeddingError, match=r"no readable safetensors file|must be a float32 vector"):
            TaskEmbedding.load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"schema_version": 1, "x": NaN}', "cannot be read as JSON: NaN is no JSON number"),
        (b'{"schema_version": 1, "x": ' + b"9" * 5000 + b"}", "cannot be read as JSON"),
        (b'{"schema_version": 1, "extra": 2}', r"missing or unknown fields: config, descriptors, extra, layers"),
    ],
)
def test_malformed_documents(folder: Path, content: bytes, message: str) -> None:
    (folder / DOCUMENT_FILE).write_bytes(content)
    with pytest.raises(EmbeddingError, match=message):
        TaskEmbedding.load(folder)


@pytest.mark.parametrize("content", [b"null", b"[]", b'"text"', b"1", b"{}"])
def test_documents_that_are_none(folder: Path, content: bytes) -> None:
    (folder / DOCUMENT_FILE).write_bytes(content)
    with pytest.raises(SchemaVersionError, match="schema version None"):
        TaskEmbedding.load(folder)


@pytest.mark.parametrize("layers", [None, {}, [1, 2], [{"name": "0"}], [{"name": 0, "n_filters": 24}], [], [[]]])
def test_malformed_layers(folder: Path, layers: Any) -> None:
    edit(folder, layers=layers)
    with pytest.raises(EmbeddingError, match=r"layer"):
        TaskEmbedding.load(folder)


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@SHARED_FOLDER
@given(data=st.data())
def test_any_value_anywhere_loads_or_is_our_error(tmp_path: Path, data: st.DataObject) -> None:
    folder = embedding().save(tmp_path / "fuzz")
    document = json.loads((folder / DOCUMENT_FILE).read_text(encoding="utf-8"))
    place: Any = document
    for _ in range(data.draw(st.integers(1, 3))):
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or not place[key]:
            break
        parent, place = place, place[key]
    else:
        place = parent
    place[key] = data.draw(WRONG)
    (folder / DOCUMENT_FILE).write_text(json.dumps(document), encoding="utf-8")
    loaded, problem = load(folder)
    assert loaded or DOCUMENT_FILE in problem or str(folder) in problem
    if loaded:
        assert repr(loaded)
        assert_same(TaskEmbedding.load(loaded.save(tmp_path / "again")), loaded)


@SHARED_FOLDER
@given(position=st.integers(0, 2000), byte=st.integers(0, 255))
def test_any_flipped_byte_of_the_values_is_our_error(tmp_path: Path, position: int, byte: int) -> None:
    folder = embedding().save(tmp_path / "fuzz")
    raw = bytearray((folder / VALUES_FILE).read_bytes())
    raw[position % len(raw)] ^= byte
    (folder / VALUES_FILE).write_bytes(raw)
    edit(folder, sha256=sha256_file(folder / VALUES_FILE))
    loaded, problem = load(folder)
    assert repr(loaded) if loaded else str(folder) in problem


# ---------------------------------------------------------------------- writing


@pytest.mark.parametrize("failing", [VALUES_FILE, DOCUMENT_FILE])
def test_an_old_embedding_survives_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def full(self: Path, *args: Any, **options: Any) -> int:
        if failing in self.name:
            raise OSError(28, "No space left on device")
        return original(self, *args, **options)

    name = "write_bytes" if failing == VALUES_FILE else "write_text"
    original = getattr(Path, name)
    monkeypatch.setattr(Path, name, full)
    with pytest.raises(EmbeddingError, match=r"the embedding cannot be written to .*saved: .*No space left"):
        embedding(1).save(folder)
    monkeypatch.undo()
    assert_same(TaskEmbedding.load(folder), embedding(0))
    assert sorted(path.name for path in folder.iterdir()) == [DOCUMENT_FILE, VALUES_FILE]


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EmbeddingError, match="the embedding cannot be written to"):
        embedding().save(tmp_path / "file")


# ---------------------------------------------------------------------- cache keys


def test_key_changes_with_task_probe_and_settings() -> None:
    def task(**options: Any) -> Task:
        return Task.from_dataset(as_dataset(pictures(8, 2), [0, 1] * 4, 2), **options)

    config = embedding_config()
    keys = [
        embedding_key(task(), "a", config),
        embedding_key(task(), "b", config),
        embedding_key(task(max_samples=4), "a", config),
        *(embedding_key(task(), "a", {**config, **change}) for change in ({"seed": 1}, {"draws": 2})),
        embedding_key(task(), "a", embedding_config(label_sampling="exact")),
    ]
    assert len(set(keys)) == len(keys)
    assert embedding_key(task(), "a", copy.deepcopy(config)) == keys[0]
    assert all(len(key) == 32 for key in keys)
