from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import yaml
from datasets import ClassLabel, Dataset, DatasetDict, IterableDataset, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from hf_task2vec.errors import (
    DatasetNotFoundError,
    HubError,
    ImageDecodeError,
    LabelError,
    Task2VecError,
    TaskError,
)
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.images import decode
from hf_task2vec.tasks.task import SkippedImage, Task
from tests.support.hub import HubServer
from tests.support.pictures import ABC, TEST, TRAIN, make, number, parquet, png
from tests.support.synthetic import image_folder, tiny_probe, zoo


def folder(root: Path, *files: str) -> Path:
    for row, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(png(row))
    return root


def test_a_balanced_sample_with_its_provenance() -> None:
    data = make([0] * 50 + [1] * 6 + [2])
    task = Task.from_dataset(data, max_samples=12, seed=3)
    assert (task.dataset, task.revision, task.split, task.image_column, task.label_column) == (
        "dataset", None, None, "image", "label",
    )  # fmt: skip
    assert task.label_names == ("a", "b", "c")
    assert task.num_classes == 3
    assert task.label_kind == "single_label"
    assert np.bincount(task.labels).tolist() in ([6, 5, 1], [5, 6, 1])
    assert task.class_counts.tolist() == [50, 6, 1]
    assert task.n_rows == 57
    assert len(task) == len(task.images) == len(task.indices) == 12
    assert [number(image) for image in task.images] == task.indices.tolist()
    assert [data["label"][int(row)] for row in task.indices] == task.labels.tolist()
    assert len(set(task.labels[:3])) == 3
    assert task.indices.max() > 40
    assert task.labels.dtype == task.indices.dtype == task.class_counts.dtype == np.int64


def test_seed_and_size_of_the_sample() -> None:
    data = make([0, 1] * 20)
    task = Task.from_dataset(data, max_samples=16)
    assert Task.from_dataset(data, max_samples=16).fingerprint == task.fingerprint
    assert Task.from_dataset(data, max_samples=16, seed=1).fingerprint != task.fingerprint
    assert Task.from_dataset(data, max_samples=8).indices.tolist() == task.indices[:8].tolist()
    assert len(Task.from_dataset(data, max_samples=None)) == 40
    with pytest.raises(TaskError, match="max_samples=1: at least 2"):
        Task.from_dataset(data, max_samples=1)


def test_fingerprint_depends_on_what_defines_the_task() -> None:
    labels = [0, 1] * 4
    tasks = [
        Task.from_dataset(make(labels)),
        Task.from_dataset(make(labels), seed=1),
        Task.from_dataset(make(labels), max_samples=4),
        Task.from_dataset(make([1, 0] * 4)),  # other labels of the same pictures
        Task.from_dataset(make(labels, ClassLabel(names=["a", "b", "d"]))),
        Task.from_dataset(make(labels, broken=[3])),
        Task.from_dataset(make(labels).rename_column("label", "class")),
        Task.from_dataset(DatasetDict(test=make(labels))),
    ]
    assert len({task.fingerprint for task in tasks}) == len(tasks)


def test_a_second_selection_for_an_unchanged_folder_decodes_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))
    photos = folder(tmp_path / "photos", *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(4)))
    probe = tiny_probe()
    select = partial(select_backbone, photos, index=zoo(weights_hash=probe.weights_hash), probe=probe)
    first = select()
    decoded: list[bytes] = []
    monkeypatch.setattr("hf_task2vec.tasks.images.decode", lambda data: decoded.append(data) or decode(data))
    again = select()
    assert not decoded
    assert [candidate.score for candidate in again] == pytest.approx([candidate.score for candidate in first])
    os.utime(photos / "dog" / "3.png", ns=(0, 0))
    select()
    assert len(decoded) == 8, "a changed file is noticed"


def test_describe_is_json_without_paths(tmp_path: Path) -> None:
    folder(tmp_path / "pets", "a/0.png", "a/1.png", "b/0.png", "b/1.png")
    (tmp_path / "pets" / "a" / "2.png").write_bytes(b"broken")
    task = Task.from_dataset(tmp_path / "pets")
    document = json.dumps(task.describe())
    assert str(tmp_path) not in document
    assert json.loads(document)["dataset"] == "pets"
    assert json.loads(document)["sample_counts"] == [2, 2]
    assert json.loads(document)["skipped"][0]["row"] == 2
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pets").rename(tmp_path / "elsewhere" / "pets")
    assert Task.from_dataset(tmp_path / "elsewhere" / "pets").fingerprint == task.fingerprint


def test_subset() -> None:
    task = Task.from_dataset(make([0, 1, 2] * 4))
    part = task.subset([5, 0, 3])
    assert part.indices.tolist() == task.indices[[5, 0, 3]].tolist()
    assert part.labels.tolist() == task.labels[[5, 0, 3]].tolist()
    assert [number(image) for image in part.images] == part.indices.tolist()
    assert part.label_names == task.label_names
    assert part.fingerprint != task.fingerprint
    assert part.subset([1]).indices.tolist() == [part.indices[1]]
    assert part.fingerprint == Task.from_dataset(make([0, 1, 2] * 4)).subset([5, 0, 3]).fingerprint


def test_other_labels_for_the_same_images() -> None:
    task = Task.from_dataset(make([0, 1, 2] * 4))
    other = task.with_labels(task.labels // 2, ["x", "y"])
    assert (other.label_names, other.class_counts.tolist()) == (("x", "y"), [8, 4])
    assert [number(image) % 3 // 2 for image in other.images] == other.labels.tolist()
    assert other.fingerprint != task.fingerprint
    assert other.fingerprint == task.with_labels(task.labels // 2, ["x", "y"]).fingerprint
    assert task.with_labels(task.labels, task.label_names, np.array([9, 9, 9])).class_counts.tolist() == [9, 9, 9]


def test_pickle_and_threads() -> None:
    task = pickle.loads(pickle.dumps(Task.from_dataset(make([0, 1] * 16))))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: number(task.images[i]), range(32))) == task.indices.tolist()


def test_only_drawn_rows_are_decoded_and_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("datasets decoded an image")

    monkeypatch.setattr(ImageFeature, "decode_example", forbidden)
    decoded: list[int] = []
    monkeypatch.setattr("hf_task2vec.tasks.images.decode", lambda data: decoded.append(1) or decode(data))
    task = Task.from_dataset(make([0, 1] * 50), max_samples=10)
    assert not decoded
    assert len(task) == len(task.labels) == len(decoded) == 10


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.with_format("numpy"),
        lambda data: data.with_transform(lambda batch: {"image": [None] * len(batch["image"])}),
        lambda data: data.cast_column("image", ImageFeature(decode=False)),
    ],
)
def test_formats_and_transforms_of_the_user_do_not_matter(change: Callable[[Dataset], Dataset]) -> None:
    data = make([0, 1] * 8)
    assert Task.from_dataset(change(data)).fingerprint == Task.from_dataset(data).fingerprint


def test_selected_rows_are_numbered_as_the_dataset_numbers_them() -> None:
    data = make([0, 1, 2] * 8).select(range(6, 12))
    task = Task.from_dataset(data)
    assert sorted(task.indices) == list(range(6))
    assert [number(image) for image in task.images] == (task.indices + 6).tolist()


def test_binary_and_struct_columns_hold_images() -> None:
    pictures = [png(row) for row in range(6)]
    raw = Dataset.from_dict({"jpg": pictures, "cls": ["x", "y"] * 3})
    struct = Dataset.from_dict({"pic": [{"bytes": cell, "path": "p"} for cell in pictures], "cls": ["x", "y"] * 3})
    for data, column in ((raw, "jpg"), (struct, "pic")):
        task = Task.from_dataset(data)
        assert task.image_column == column
        assert task.label_column == "cls"
        assert [number(image) for image in task.images] == task.indices.tolist()


def test_choices_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hf_task2vec")
    Task.from_dataset(DatasetDict(train=make([0, 1] * 3), test=make([0, 1])), max_samples=4)
    for text in ("split 'train'", "column 'image'", "column 'label' (ClassLabel)", "4 of 6 rows"):
        assert text in caplog.text


def test_more_classes_than_samples_is_said(caplog: pytest.LogCaptureFixture) -> None:
    task = Task.from_dataset(make(list(range(9)) * 2, Value("int64")), max_samples=4)
    assert len(set(task.labels)) == 4
    assert "max_samples=4 covers at most 4 of 9 classes; max_samples=9 would cover all" in caplog.text


def test_digits_and_folders_are_read_without_the_slow_libraries(tmp_path: Path) -> None:
    image_folder(tmp_path / "photos")
    code = "import sys; from hf_task2vec import Task; [Task.from_dataset(place) for place in sys.argv[1:]]; "
    code += "print(sorted({'datasets', 'sklearn', 'torch', 'transformers'} & set(sys.modules)))"
    command = [sys.executable, "-c", code, "sklearn:digits", str(tmp_path / "photos")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_digits() -> None:
    task = Task.from_dataset("sklearn:digits", max_samples=50)
    assert task.dataset == "sklearn:digits"
    assert task.label_names == tuple("0123456789")
    assert np.bincount(task.labels).tolist() == [5] * 10
    assert task.images[0].size == (8, 8)
    from sklearn.datasets import load_digits

    expected = np.rint(load_digits().images[task.indices[0]] * 255 / 16)
    assert np.array_equal(np.asarray(task.images[0])[..., 0], expected)


# --- what can be wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/no/such", "./none", "~/no-such-folder-here", "a/b/c", "pets/", r"C:\pets", Path("pets")]
)
def test_no_such_folder(name: str | Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="no such folder"):
        Task.from_dataset(name)


def test_a_path_from_a_home_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "~")
    with pytest.raises(DatasetNotFoundError, match="no such folder: '~/photos'"):
        Task.from_dataset("~/photos")


def test_not_a_dataset() -> None:
    with pytest.raises(TaskError, match="a list is no dataset; pass a Hub id, a folder"):
        Task.from_dataset([1, 2])  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="a Series is no dataset"):
        Task.from_dataset(pd.Series([0, 1], index=["a.png", "b.png"]))  # type: ignore[arg-type]


def test_empty_split_names_the_others() -> None:
    data = DatasetDict(train=make([]), test=make([0, 1]))
    with pytest.raises(TaskError, match=r"split 'train' of 'dataset' has no rows; other splits: test"):
        Task.from_dataset(data)


def test_split_without_labels_names_the_others() -> None:
    data = DatasetDict(test=make([-1, -1]), train=make([0, 1]))
    with pytest.raises(LabelError, match=r"split 'test'.*all 2 labels are missing.*other splits: train"):
        Task.from_dataset(data, split="test")


def test_labels_missing_in_some_rows(caplog: pytest.LogCaptureFixture) -> None:
    task = Task.from_dataset(make([0, None, 1, -1, 2, 0]))
    assert task.n_unlabelled == 2
    assert sorted(task.indices) == [0, 2, 4, 5]
    assert "2 of 6 rows have no label" in caplog.text


def test_some_images_broken(caplog: pytest.LogCaptureFixture) -> None:
    task = Task.from_dataset(make([0, 1] * 10, broken=[0, 2, 4, 7]), max_samples=12)
    assert len(task) == 12
    assert np.bincount(task.labels)[:2].tolist() == [6, 6]
    assert {image.row for image in task.skipped} <= {0, 2, 4, 7}
    assert task.skipped
    assert all(
        isinstance(image, SkippedImage) and "no image of a known format" in image.reason for image in task.skipped
    )
    assert "broken images of dataset skipped" in caplog.text
    assert [number(image) for image in task.images] == task.indices.tolist()


def test_all_images_broken() -> None:
    with pytest.raises(ImageDecodeError, match=r"all 4 images of 'dataset' are broken \(row .*: no image of a known"):
        len(Task.from_dataset(make([0, 1] * 2, broken=range(4))))


def test_a_class_of_broken_images_only() -> None:
    with pytest.raises(ImageDecodeError, match=r"2 images of 'dataset' are broken.*only one class is left"):
        len(Task.from_dataset(make([0, 1] * 2, broken=[0, 2])))


def test_splits_of_a_dataset_dict() -> None:
    both = DatasetDict(validation=make([0, 1]), test=make([0, 1, 2]))
    with pytest.raises(DatasetNotFoundError, match=r"pass split=… \(splits found: validation, test\)"):
        Task.from_dataset(both)
    with pytest.raises(DatasetNotFoundError, match="no split 'x' in the DatasetDict; splits found: validation, test"):
        Task.from_dataset(both, split="x")
    assert Task.from_dataset(both, split="val").split == "validation"
    assert Task.from_dataset(both, split="test").split == "test"
    assert Task.from_dataset(DatasetDict(only=make([0, 1]))).split == "only"
    assert Task.from_dataset({"training": make([0, 1])}, split="train").split == "training"
    with pytest.raises(DatasetNotFoundError, match="split 'test' was asked for, but a Dataset is a single split"):
        Task.from_dataset(make([0, 1]), split="test")


# --- local folders -----------------------------------------------------------------------------------------------


def test_imagefolder(tmp_path: Path) -> None:
    folder(tmp_path, *(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)))
    for streaming in (False, True):
        task = Task.from_dataset(str(tmp_path), streaming=streaming)
        assert task.label_names == ("cat", "dog")
        assert (task.split, task.dataset, task.n_rows) == ("train", tmp_path.name, 6)
        assert sorted(map(number, task.images)) == list(range(6))


def test_imagefolder_with_splits(tmp_path: Path) -> None:
    folder(tmp_path, *(f"{s}/{c}/{i}.png" for s in ("train", "test") for c in ("cat", "dog") for i in range(2)))
    assert Task.from_dataset(tmp_path).split == "train"
    test = Task.from_dataset(tmp_path, split="test")
    assert sorted(map(number, test.images)) == [4, 5, 6, 7]
    with pytest.raises(DatasetNotFoundError, match=r"no split 'val' in the folder .*; splits found: train, test"):
        Task.from_dataset(tmp_path, split="val")


def test_parquet_folder_and_saved_dataset(tmp_path: Path) -> None:
    data = make([0, 1] * 3)
    (tmp_path / "parquet").mkdir()
    (tmp_path / "parquet" / "train.parquet").write_bytes(parquet(data))
    data.save_to_disk(tmp_path / "saved")
    DatasetDict(train=data, test=data).save_to_disk(tmp_path / "both")
    digests = [Task.from_dataset(tmp_path / name).content_digest for name in ("parquet", "saved", "both")]
    assert set(digests) == {Task.from_dataset(data).content_digest}


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ([], DatasetNotFoundError, "is empty. What would work: one subfolder of images a class, or parquet files"),
        (["cat/0.png", "cat/1.png"], LabelError, "only one class folder, 'cat'; a folder needs at least two"),
        (["train/cat/0.png"], LabelError, "only one class folder, 'train/cat'"),
        (["0.png", "1.png"], LabelError, "images without labels; a folder needs at least two subfolders"),
        (["notes.md"], DatasetNotFoundError, r"holds no image that can be read.*What would work"),
        (["pets.py"], DatasetNotFoundError, r"holds no image that can be read; 1 not an image \(pets.py\).*would work"),
    ],
)
def test_unusable_folders(tmp_path: Path, files: list[str], error: type[Exception], message: str) -> None:
    (tmp_path / "pets").mkdir()
    with pytest.raises(error, match=message):
        Task.from_dataset(folder(tmp_path / "pets", *files))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"'0\.png' is a file; pass the folder"):
        Task.from_dataset(folder(tmp_path, "0.png") / "0.png")


# --- streams -----------------------------------------------------------------------------------------------------


def test_a_stream_is_balanced() -> None:
    labels = [0] * 300 + [1] * 30 + [2]
    stream = make(labels, broken=[310]).to_iterable_dataset()
    task = Task.from_dataset(stream, max_samples=21)
    assert (task.n_rows, task.drawn_from) == (331, None)
    assert task.class_counts.tolist() == [300, 30, 1]
    assert np.bincount(task.labels).tolist() == [10, 10, 1]
    assert [labels[number(image)] for image in task.images] == task.labels.tolist()
    assert Task.from_dataset(stream, max_samples=21).fingerprint == task.fingerprint


def test_of_a_long_stream_a_shuffled_part_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_task2vec.tasks.rows._LEAST_STREAMED", 20)
    task = Task.from_dataset(make([0, 1] * 60).to_iterable_dataset(), max_samples=4)
    assert (len(task), task.n_rows) == (4, 32)
    assert task.drawn_from == "drawn from 32 rows of the stream, shuffled 32 at a time"
    assert Task.from_dataset(make([0, 1] * 60).to_iterable_dataset(), max_samples=None).n_rows == 120


def test_stream_without_types() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for row in range(12):
            yield {"picture": Image.new("RGB", (4, 4), (row, 0, 0)), "label": "even" if row % 2 == 0 else "odd"}

    task = Task.from_dataset(IterableDataset.from_generator(rows), max_samples=6)
    assert task.label_names == ("even", "odd")
    assert [number(image) % 2 for image in task.images] == task.labels.tolist()


def test_stream_of_several_labels_and_errors() -> None:
    task = Task.from_dataset(make([[0], [0, 1], [2]] * 9, List(ABC)).to_iterable_dataset(), max_samples=6)
    assert task.labels.shape == (6, 3)
    with pytest.raises(TaskError, match="has no rows"):
        Task.from_dataset(IterableDataset.from_generator(lambda: iter(())))
    mixed = IterableDataset.from_generator(lambda: iter([{"image": png(0), "label": x} for x in (1, "a")]))
    with pytest.raises(LabelError, match="rows of split 'train' of 'generator' are of mixed types"):
        Task.from_dataset(mixed)


# --- the Hub -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_hub_dataset_is_read_at_one_commit(hub: HubServer, streaming: bool) -> None:
    files = {TRAIN: parquet(make([0, 1, 2] * 4)), TEST: parquet(make([0, 1]))}
    commit = hub.create_dataset("org/pets", files)
    task = Task.from_dataset("org/pets", streaming=streaming, max_samples=6)
    assert (task.dataset, task.revision, task.config_name, task.split) == ("org/pets", commit, "default", "train")
    assert task.n_rows == 12
    assert [number(image) for image in task.images] == task.indices.tolist()
    assert all(commit in entry.path for entry in hub.requested("/resolve/"))
    assert Task.from_dataset("org/pets", split="test", revision=commit[:40]).n_rows == 2


def test_cached_hub_dataset_offline(hub: HubServer) -> None:
    commit = hub.create_dataset("org/pets", {TRAIN: parquet(make([0, 1, 2] * 4))})
    online = Task.from_dataset("org/pets")
    code = """if True:
        import sys
        from hf_task2vec.tasks.task import Task
        from hf_task2vec.errors import HubError
        task = Task.from_dataset("org/pets")
        print(task.revision, task.fingerprint)
        try:
            Task.from_dataset("org/none")
        except HubError as error:
            print(error)
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    same, missing = done.stdout.splitlines()
    assert same == f"{commit} {online.fingerprint}"
    assert "dataset 'org/none' cannot be read from the Hub" in missing


def test_hub_dataset_with_configurations(hub: HubServer) -> None:
    card = (
        "---\nconfigs:\n- config_name: x\n  data_files: x.parquet\n- config_name: y\n  data_files: y.parquet\n---\nhi\n"
    )
    data = parquet(make([0, 1]))
    hub.create_dataset("org/pets", {"README.md": card.encode(), "x.parquet": data, "y.parquet": data})
    with pytest.raises(DatasetNotFoundError, match=r"several configurations; pass name=… with one of \['x', 'y'\]"):
        Task.from_dataset("org/pets")
    with pytest.raises(DatasetNotFoundError, match=r"no such configuration; pass name=… with one of \['x', 'y'\]"):
        Task.from_dataset("org/pets", name="z")
    assert Task.from_dataset("org/pets", name="y").config_name == "y"


def test_private_hub_dataset_needs_a_token(hub: HubServer) -> None:
    hub.create_dataset("org/pets", {TRAIN: parquet(make([0, 1]))}, private=True)
    with pytest.raises(DatasetNotFoundError, match="a private or gated dataset needs token="):
        Task.from_dataset("org/pets")
    assert len(Task.from_dataset("org/pets", token=hub.tokens.read)) == 2


def test_what_is_not_on_the_hub(hub: HubServer) -> None:
    hub.create_dataset("org/pets", {TRAIN: parquet(make([0, 1]))})
    hub.create_dataset("org/script", {"script.py": b"", "README.md": b"---\nlicense: mit\n---\n"})
    with pytest.raises(DatasetNotFoundError, match=r"no dataset 'org/none'.*Check the spelling"):
        Task.from_dataset("org/none")
    with pytest.raises(DatasetNotFoundError, match="no dataset 'org/pets' at revision 'v9'"):
        Task.from_dataset("org/pets", revision="v9")
    with pytest.raises(DatasetNotFoundError, match="no split 'dev' in dataset 'org/pets'; splits found: train"):
        Task.from_dataset("org/pets", split="dev")
    with pytest.raises(TaskError, match="'org/script' is made by a Python script"):
        Task.from_dataset("org/script")
    with pytest.raises(DatasetNotFoundError, match="no such folder: 'two words'"):
        Task.from_dataset("two words")


@pytest.mark.usefixtures("retry_sleeps")
@pytest.mark.parametrize("fault", [{"status": 500}, {"reset": True}])
def test_failing_download(hub: HubServer, hub_fault: Callable[..., Any], fault: dict[str, Any]) -> None:
    hub.create_dataset("org/pets", {TRAIN: parquet(make([0, 1]))})
    hub_fault(method="GET", pattern=r"\.parquet", times=None, **fault)
    with pytest.raises(HubError, match=r"dataset 'org/pets' cannot be read from the Hub: .*Check the connection"):
        Task.from_dataset("org/pets")


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (
            ConnectionError("Couldn't reach 'org/x' (secret-token)"),
            HubError,
            "cannot be read from the Hub.*HF_HUB_OFFLINE",
        ),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), TaskError, "Python script"),
        (
            datasets.exceptions.DatasetNotFoundError("gone secret-token"),
            DatasetNotFoundError,
            r"no dataset 'org/x' at revision '0+': gone",
        ),
        (datasets.exceptions.DatasetGenerationError("bad secret-token"), DatasetNotFoundError, "cannot be read: bad"),
        (
            yaml.MarkedYAMLError(problem="found a tab", problem_mark=yaml.Mark("", 0, 3, 0, None, None)),
            DatasetNotFoundError,
            r"README.md of dataset 'org/x', line 4 is no valid YAML \(found a tab\)",
        ),
        (OSError(errno.ENOSPC, "full", "/home/x"), TaskError, "cannot be kept at /home/x: the disk is full.*HF_HOME"),
    ],
)
def test_errors_of_datasets_become_ours_without_the_token(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Task2VecError], message: str
) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(datasets, "load_dataset_builder", load_dataset)
    with pytest.raises(expected, match=message) as caught:
        Task.from_dataset("org/x", token="secret-token", revision="0" * 40)
    assert "secret-token" not in str(caught.value)


# --- real data ---------------------------------------------------------------------------------------------------


def check_real_task(shared: Path, name: str) -> None:
    task = Task.from_dataset(shared / "tasks" / name, max_samples=64)
    assert (task.dataset, task.split, task.skipped) == (name, "train", ())
    drawn, present = np.bincount(task.labels, minlength=task.num_classes), np.count_nonzero(task.class_counts)
    assert len(task) == min(64, task.n_rows)
    assert np.count_nonzero(drawn) == min(64, present)
    short = drawn < drawn.max() - 1
    assert (drawn[short] == task.class_counts[short]).all(), "a class has fewer images only if it has no more"
    assert all(image.mode == "RGB" for image in task.images)


QUICK = ("trashnet", "omniglot", "optdigits_8x8")


@pytest.mark.parametrize("name", QUICK)
def test_real_tasks(shared: Path, name: str) -> None:
    check_real_task(shared, name)


@pytest.mark.slow
def test_all_real_tasks(shared: Path) -> None:
    names = sorted(path.name for path in (shared / "tasks").iterdir() if path.is_dir())
    assert len(names) >= 46
    for name in names:
        check_real_task(shared, name)
