"""Objects that people hold, files that are datasets, and addresses of pages."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hf_task2vec.errors import ColumnError, DatasetNotFoundError, ImageDecodeError, TaskError
from hf_task2vec.tasks import Task
from tests.support.hub import HubServer
from tests.support.pictures import TRAIN, make, number, parquet, png

WORDS = ["cat", "dog"]


def read(data: Any, **options: Any) -> dict[int, str]:
    """The class of every picture, by its number."""
    task = Task.from_dataset(data, max_samples=None, **options)
    return {number(image): task.label_names[label] for image, label in zip(task.images, task.labels, strict=True)}


def expected(n: int = 8) -> dict[int, str]:
    return {i: WORDS[i % 2] for i in range(n)}


def picture(i: int) -> Image.Image:
    return Image.open(io.BytesIO(png(i)))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(8):
        (tmp_path / WORDS[i % 2]).mkdir(exist_ok=True)
        (tmp_path / WORDS[i % 2] / f"{i}.png").write_bytes(png(i))
    return tmp_path


class Drawn:
    """A map-style dataset, as torch's are."""

    def __init__(self, form: Any = lambda image: image, targets: bool = True) -> None:
        self.form, self.opened = form, 0
        self.classes = WORDS
        if targets:
            self.targets = np.arange(8) % 2

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> tuple[Any, int]:
        if i >= 8:
            raise IndexError(i)
        self.opened += 1
        return self.form(picture(i)), i % 2


def test_data_frames(photos: Path) -> None:
    labels = [WORDS[i % 2] for i in range(8)]
    paths = [str(photos / WORDS[i % 2] / f"{i}.png") for i in range(8)]
    for images in (paths, [png(i) for i in range(8)], [picture(i) for i in range(8)], list(map(Path, paths))):
        frame = pd.DataFrame({"id": range(8), "picture": images, "animal": labels})
        assert read(frame) == expected()
        assert read(frame.assign(label=pd.Categorical(labels))) == expected()
    with pytest.raises(ColumnError, match="no image column in the DataFrame; columns found: id, animal"):
        read(pd.DataFrame({"id": range(8), "animal": labels}))


def test_data_frames_with_arrays_and_cells_without_a_value(photos: Path) -> None:
    arrays: list[Any] = [np.asarray(picture(i).convert("RGB")) for i in range(8)]
    assert read(pd.DataFrame({"pixels": arrays, "label": [WORDS[i % 2] for i in range(8)]})) == expected()
    paths = [pd.NA, float("nan"), *(str(photos / WORDS[i % 2] / f"{i}.png") for i in range(2, 8))]
    frame = pd.DataFrame({"picture": paths, "label": [WORDS[i % 2] for i in range(8)]})
    task = Task.from_dataset(frame)
    assert (len(task), len(task.skipped)) == (6, 2)


def test_torch_datasets_put_together_and_labels_that_are_changed(photos: Path) -> None:
    datasets_of = pytest.importorskip("torchvision.datasets")
    concat = pytest.importorskip("torch.utils.data").ConcatDataset
    folder = datasets_of.ImageFolder(photos)
    assert Task.from_dataset(concat([folder, folder])).label_names == ("cat", "dog")
    other = Drawn()
    other.classes = ["oak", "elm"]
    with pytest.raises(TaskError, match=r"different classes are put together \(cat, dog; oak, elm\)"):
        Task.from_dataset(concat([folder, other]))
    swapped = datasets_of.ImageFolder(photos, target_transform=lambda label: 7 - label)
    assert read(swapped) == {i: str(7 - i % 2) for i in range(8)}


def test_lists_of_pairs(photos: Path) -> None:
    assert read([(picture(i), WORDS[i % 2]) for i in range(8)]) == expected()
    flags = Task.from_dataset([(picture(i), np.eye(2)[i % 2]) for i in range(8)])
    assert flags.class_counts.tolist() == [4, 4]
    assert read([(photos / WORDS[i % 2] / f"{i}.png", WORDS[i % 2]) for i in range(8)]) == expected()
    with pytest.raises(TaskError, match="a list is no dataset; pass a Hub id, a folder"):
        read([1, 2])


@pytest.mark.parametrize(
    "form",
    [
        lambda image: image,
        np.asarray,
        lambda image: np.asarray(image).transpose(2, 0, 1),
        lambda image: np.asarray(image) / np.float32(255),
    ],
    ids=["pillow", "array", "channels first", "floats"],
)
def test_torch_datasets(form: Any) -> None:
    assert read(Drawn(form)) == expected()
    assert read(Drawn(form, targets=False)) == expected()


def test_columns_of_formats_are_one_column_of_images() -> None:
    data = make([0, 1] * 4)
    cells = list(data.cast_column("image", datasets.Image(decode=False))["image"])
    for column, kept in (("jpg", 0), ("png", 1)):
        data = data.add_column(column, [cell if i % 2 == kept else None for i, cell in enumerate(cells)])
        data = data.cast_column(column, datasets.Image())
    assert read(data.remove_columns("image")) == {i: "ab"[i % 2] for i in range(8)}


class Items:
    """A map-style dataset without anything that tells the labels in advance."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        return self.item(i)


@pytest.mark.parametrize(
    "item",
    [
        lambda i: (picture(i), WORDS[i % 2], {"camera": i}),
        lambda i: (i, picture(i), WORDS[i % 2]),
        lambda i: (picture(i), picture(i + 100), WORDS[i % 2]),
        lambda i: {"pixel_values": np.asarray(picture(i)), "labels": WORDS[i % 2], "id": i},
        lambda i: {"id": f"{i}", "image": png(i), "animal": WORDS[i % 2]},
    ],
    ids=["more behind", "a number in front", "two views", "dictionaries", "bytes"],
)
def test_items_of_any_form(item: Any) -> None:
    subset = pytest.importorskip("torch.utils.data").Subset
    assert read(Items(item)) == expected()
    assert read([item(i) for i in range(8)]) == expected()
    assert read(subset(Items(item), range(8))) == expected()
    assert read({"train": Items(item), "test": [1]}) == expected()
    assert Task.from_dataset({"train": Items(item), "test": [1]}).other_splits == ("test",)


def test_tables_of_columns(photos: Path) -> None:
    words = [WORDS[i % 2] for i in range(8)]
    paths = [str(photos / WORDS[i % 2] / f"{i}.png") for i in range(8)]
    for images in (paths, [png(i) for i in range(8)]):
        table = pa.table({"id": range(8), "picture": images, "animal": words})
        assert read(table) == read({"picture": images, "animal": words}) == expected()
        assert read(pa.RecordBatchReader.from_batches(table.schema, table.to_batches())) == expected()
    data = make([0, 1, 2, 1] * 2)
    assert Task.from_dataset(data.with_format("arrow")[:]).label_names == ("a", "b", "c")
    with pytest.raises(ColumnError, match="no image column in the Table; columns found: id, animal"):
        read(pa.table({"id": range(8), "animal": words}))


def test_arrays_of_images_and_labels() -> None:
    x = np.stack([np.asarray(picture(i)) for i in range(2, 10)])
    y = np.arange(8) % 2
    for pixels in (x, x.transpose(0, 3, 1, 2), x / 255, x.astype(float)):
        assert read((pixels, y)) == {i + 2: str(i % 2) for i in range(8)}
    assert read((list(x), [WORDS[i] for i in y])) == {i + 2: WORDS[i % 2] for i in range(8)}
    grey = (np.arange(8)[:, None, None] + np.arange(16).reshape(4, 4)) % 16.0
    task = Task.from_dataset((grey, y))
    assert "; values 0" in task.read
    assert max(np.asarray(image).max() for image in task.images) == 255
    with pytest.raises(ImageDecodeError, match=r"shape \(16,\) is no image; reshape to \(height, width\)"):
        len(Task.from_dataset((grey.reshape(8, 16), y)))


def test_labels_of_a_torch_dataset_are_read_without_its_images() -> None:
    drawn = Drawn()
    task = Task.from_dataset(drawn, max_samples=4)
    assert len(task) == 4
    assert drawn.opened <= 8, "each drawn image is identified, and read"


def test_torchvision_image_folder(photos: Path) -> None:
    torchvision = pytest.importorskip("torchvision.datasets")
    import torch

    data = torchvision.ImageFolder(str(photos), transform=lambda _: pytest.fail("the transform is not for us"))
    assert read(data) == expected()
    assert read(torch.utils.data.Subset(data, [0, 1, 4, 5])) == {i: WORDS[i % 2] for i in (0, 2, 1, 3)}


def test_one_file_is_a_dataset(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = make([0, 1] * 4)
    (tmp_path / "photos.parquet").write_bytes(parquet(data))
    with pa.ipc.new_file(str(tmp_path / "file.arrow"), data.data.table.schema) as writer:
        writer.write_table(data.data.table)
    with pa.ipc.new_stream(str(tmp_path / "stream.arrow"), data.data.table.schema) as writer:
        writer.write_table(data.data.table)
    digest = Task.from_dataset(data).content_digest
    caplog.set_level(logging.INFO, "hf_task2vec")
    for name in ("photos.parquet", "file.arrow", "stream.arrow"):
        task = Task.from_dataset(tmp_path / name)
        assert (task.content_digest, task.dataset, task.label_names) == (digest, name, ("a", "b", "c"))


def test_parquet_is_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of several row groups and types of numbers, written by pandas; nothing is written anywhere."""
    for part in range(3):
        rows = range(100 * part, 100 * part + 100)
        frame = pd.DataFrame({"image": [png(i) for i in rows], "label": [i % 7 for i in rows], "id": rows})
        table = pa.Table.from_pandas(frame.astype({"label": "int32" if part else "int64"}))
        codec = "brotli" if part == 1 else "snappy"  # of which no beginning can be decoded
        pq.write_table(table, tmp_path / f"part-{part}.parquet", row_group_size=30, compression=codec)
    before = sorted(datasets.config.HF_CACHE_HOME and Path(datasets.config.HF_CACHE_HOME).rglob("*"))
    task = Task.from_dataset(tmp_path, max_samples=50)
    assert [number(image) % 7 for image in task.images] == task.labels.tolist()
    assert [number(image) for image in task.images] == task.indices.tolist()
    assert (task.n_rows, task.drawn_from) == (300, None)
    assert sorted(Path(datasets.config.HF_CACHE_HOME).rglob("*")) == before
    monkeypatch.setattr("hf_task2vec.tasks.parquet.local.EXACT_BYTES", 1000)
    near = Task.from_dataset(tmp_path, max_samples=14)
    assert near.sample_counts.tolist() == [2] * 7
    assert "near the start of a row group" in str(near.drawn_from)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not say how much was read")
def test_of_large_pages_of_parquet_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [{"bytes": png(i) + bytes(100_000), "path": f"{i}.png"} for i in range(192)]
    cells[1]["bytes"] = b"broken"
    frame = pa.table({"image": cells, "label": [i % 3 for i in range(192)]})
    pq.write_table(frame, tmp_path / "photos.parquet", compression="none", use_dictionary=False, row_group_size=64)
    monkeypatch.setattr("hf_task2vec.tasks.parquet.local.EXACT_BYTES", 1000)

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    task = Task.from_dataset(tmp_path, max_samples=9)
    assert [number(image) % 3 for image in task.images] == task.labels.tolist()
    assert [image.name for image in task.skipped] == ["1.png"]
    before = bytes_read()  # all is imported
    assert len(Task.from_dataset(tmp_path, max_samples=9)) == 9
    assert bytes_read() - before < 8_000_000, "of 19 MB"


def test_parquet_that_names_files_beside_it(photos: Path) -> None:
    cells = [{"bytes": None, "path": f"{WORDS[i % 2]}/{i}.png"} for i in range(8)]
    table = pa.table({"image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    table = table.append_column("label", [[WORDS[i % 2] for i in range(8)]]).cast(kinds.arrow_schema)
    pq.write_table(table, photos / "photos.parquet")
    assert read(photos / "photos.parquet") == expected()


def test_damaged_parquet(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DatasetNotFoundError, match=r"'train.parquet' is damaged"):
        read(tmp_path)


def test_configurations_of_a_folder(tmp_path: Path) -> None:
    for size, n in (("small", 4), ("full", 8)):
        (tmp_path / size).mkdir()
        (tmp_path / size / "train.parquet").write_bytes(parquet(make([0, 1] * (n // 2))))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files: small/*.parquet\n- config_name: full\n  data_files:\n"
        "  - split: train\n    path: full/train.parquet\n---\n"
    )
    assert [len(Task.from_dataset(tmp_path, name=name)) for name in ("small", "full")] == [4, 8]
    (tmp_path / "README.md").write_text("---\nconfigs: [\n---\n")
    assert "README.md, line 2 is no valid YAML" in Task.from_dataset(tmp_path).reading.warnings[0]


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/datasets/org/pets",
        "https://huggingface.co/datasets/org/pets/tree/main/data",
        "https://huggingface.co/datasets/org/pets/viewer/default/train?row=3",
        "hf://datasets/org/pets@main",
    ],
)
def test_the_address_of_a_page(hub: HubServer, address: str) -> None:
    hub.create_dataset("org/pets", {TRAIN: parquet(make([0, 1] * 4))})
    assert Task.from_dataset(address).dataset == "org/pets"


@pytest.mark.parametrize(
    "data",
    [
        [(picture(0), "cat"), (picture(1), "dog", "more")],
        [picture(i) for i in range(4)],
        [],
    ],
    ids=["rows of different lengths", "no labels", "nothing"],
)
def test_lists_that_are_no_dataset(data: Any) -> None:
    with pytest.raises(TaskError):
        len(Task.from_dataset(data))


def test_arrays_after_a_transform_are_named() -> None:
    normalised = [(np.random.default_rng(i).normal(size=(8, 8, 3)), WORDS[i % 2]) for i in range(4)]
    with pytest.raises(ImageDecodeError, match="is no image; pass the dataset without its transform"):
        len(Task.from_dataset(normalised))
