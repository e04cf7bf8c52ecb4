"""Datasets of Parquet files on the Hub, of which only what a sample needs is transferred."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, List, Value
from hypothesis import given
from hypothesis import strategies as st

from hf_task2vec import files as package_files
from hf_task2vec.errors import DatasetNotFoundError, HubAccessError, HubCorruptError, HubError, TaskError
from hf_task2vec.tasks.parquet import remote as hub_dataset
from hf_task2vec.tasks.parquet.pages import DamagedPageError, Leaf, first_values, unpack_snappy
from hf_task2vec.tasks.task import Task
from tests.support.hub import HubServer
from tests.support.hub_tables import CLASSIC, INDEXED, MIXED, ONE_PAGE, number, picture, shards, sorted_labels, table


def described(task: Task) -> dict[str, Any]:
    """What is said of a task, but for where it comes from: of Parquet on the Hub names of files are not read."""
    facts = task.describe()
    del facts["reading"]["broken"]
    return {name: facts[name] for name in facts.keys() - {"dataset", "revision", "config_name", "fingerprint"}}


@pytest.fixture
def frugal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make every dataset one that is too large for any row to be read, and start without a cache."""
    monkeypatch.setattr(hub_dataset, "EXACT_BYTES", 0)
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("frugal")
@pytest.mark.parametrize("layout", [CLASSIC, ONE_PAGE, INDEXED, MIXED], ids=["classic", "one page", "indexed", "mixed"])
def test_few_bytes_of_a_large_label_sorted_dataset(
    hub: HubServer, layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = table(sorted_labels(10, 400), size=5000)  # 20 MB in 40 shards
    files = shards(data, 40, layout)
    commit = hub.create_dataset("org/big", files)
    size = sum(map(len, files.values()))
    hub.forget_requests()
    task = Task.from_dataset("org/big", max_samples=40)
    assert hub.bytes_sent < 0.01 * size + 40 * 4096, "only footers and labels, so far"
    assert len(task) == 40
    # The images drawn are 1 %; the ends of 40 files, read for their footers, weigh far more in 20 MB than in 2 GB.
    assert hub.bytes_sent < 0.035 * size + 40 * 4096
    assert task.describe()["sample_counts"] == [4] * 10
    assert [number(image) for image in task.images] == task.indices.tolist()
    assert (task.n_rows, task.class_counts.tolist(), task.revision) == (4000, [400] * 10, commit)
    assert "near the start of a row group or page" in task.describe()["drawn_from"]
    assert len({row // 100 for row in task.indices.tolist()}) > 10, "the sample is spread over the shards"
    hub.forget_requests()
    again = Task.from_dataset("org/big", max_samples=40)
    assert (again.fingerprint, again.content_digest) == (task.fingerprint, task.content_digest)
    assert not hub.requested("/resolve/")
    assert len(hub.requests) == 1, "only the commit is asked for"
    for listing in (tmp_path / "cache" / "hub" / "listings").iterdir():
        listing.write_text('{"commit": ')
    assert Task.from_dataset("org/big", max_samples=40).fingerprint == task.fingerprint
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "other"))
    assert Task.from_dataset("org/big", max_samples=40, streaming=True).fingerprint == task.fingerprint
    assert Task.from_dataset("org/big", max_samples=40, seed=1).fingerprint != task.fingerprint


@pytest.mark.parametrize("layout", [CLASSIC, INDEXED, MIXED], ids=["classic", "indexed", "mixed"])
@pytest.mark.parametrize(
    ("labels", "feature"),
    [
        (list(np.random.default_rng(1).integers(0, 5, 300)), None),
        ([["a"], ["a", "b"], []] * 100, List(Value("string"))),
        (["x", "y", None] * 100, Value("string")),
    ],
    ids=["classes", "several", "strings"],
)
def test_a_sample_within_the_budget_is_that_of_a_download(
    hub: HubServer, layout: dict[str, Any], labels: list[Any], feature: Any, tmp_path: Path
) -> None:
    data = table(labels, size=300, feature=feature, broken=(3, 7, 100))
    hub.create_dataset("org/small", shards(data, 4, layout))
    for path, content in shards(data, 1, layout).items():
        (tmp_path / Path(path).name).write_bytes(content)
    remote, local = Task.from_dataset("org/small", max_samples=150), Task.from_dataset(tmp_path, max_samples=150)
    assert described(remote) == described(local)
    assert remote.drawn_from is None
    assert remote.content_digest == local.content_digest


@pytest.mark.usefixtures("frugal")
def test_broken_images_are_replaced_from_the_rows_near_the_start(hub: HubServer) -> None:
    hub.create_dataset("org/pets", shards(table(sorted_labels(4, 100), broken=(0, 1, 100)), 2, CLASSIC))
    task = Task.from_dataset("org/pets", max_samples=16)
    assert task.describe()["sample_counts"] == [4, 4, 4, 4]
    assert {skipped.row for skipped in task.skipped} <= {0, 1, 100}


@pytest.mark.usefixtures("frugal")
def test_a_class_far_from_any_start_is_drawn_all_the_same(hub: HubServer) -> None:
    labels = [0] * 45 + [1] * 5 + [0] * 150
    hub.create_dataset("org/rare", shards(table(labels), 1, CLASSIC))
    task = Task.from_dataset("org/rare", max_samples=6)
    assert task.describe()["sample_counts"] == [3, 3]


def test_configurations_revisions_and_splits(hub: HubServer) -> None:
    card = b"---\nconfigs:\n- config_name: x\n  data_files:\n  - {split: train, path: x/train.parquet}\n"
    card += b"  - {split: test, path: x/test.parquet}\n- config_name: y\n  data_files: y/*.parquet\n---\nhi\n"
    files = {
        path: shards(table([0, 1] * n), 1, CLASSIC)["data/train-00000-of-00001.parquet"]
        for path, n in {"x/train.parquet": 10, "x/test.parquet": 20, "y/a.parquet": 30, "y/b.parquet": 5}.items()
    }
    first = hub.create_dataset("org/pets", {"README.md": card, **files})
    second = hub.repo("org/pets").commit({"x/train.parquet": files["y/a.parquet"]})
    for options, rows, commit in (
        ({"name": "x"}, 60, second),
        ({"name": "x", "revision": first}, 20, first),
        ({"name": "x", "split": "test"}, 40, second),
        ({"name": "y"}, 70, second),
    ):
        task = Task.from_dataset("org/pets", max_samples=4, **options)
        assert (task.n_rows, task.revision, task.config_name) == (rows, commit, options["name"])
    assert all(first in entry.path or second in entry.path for entry in hub.requested("/resolve/"))
    assert len(Task.from_dataset("org/pets", name="x", split="train[:4]", max_samples=4)) == 4
    with pytest.raises(DatasetNotFoundError, match="no split 'dev' in dataset 'org/pets'; splits found: train, test"):
        Task.from_dataset("org/pets", name="x", split="dev")


@pytest.mark.parametrize("setting", [{"private": True}, {"gated": True}])
def test_private_and_gated(hub: HubServer, setting: dict[str, Any]) -> None:
    hub.lfs_redirect = True  # the token must not go to the other origin
    hub.create_dataset("org/secret", shards(table([0, 1] * 20), 2, CLASSIC), **setting)
    for token in (None, hub.tokens.other):
        with pytest.raises(DatasetNotFoundError, match="a private or gated dataset needs token="):
            Task.from_dataset("org/secret", token=token)
    assert len(Task.from_dataset("org/secret", token=hub.tokens.read, max_samples=4)) == 4
    assert hub.requested("^/lfs/")
    with pytest.raises(DatasetNotFoundError, match="a private or gated dataset needs token="):
        Task.from_dataset("org/secret", split="train")  # with what is in the cache, too


def test_what_is_not_parquet_is_downloaded(hub: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    hub.create_dataset("org/folder", {f"train/{row % 2}/{row}.png": picture(row, 10, rng) for row in range(8)})
    with caplog.at_level(logging.INFO, "hf_task2vec"):
        assert Task.from_dataset("org/folder").n_rows == 8
    assert "org/folder is downloaded, not read in parts: its files are not Parquet" in caplog.text


@pytest.mark.parametrize("way", ["parts", "download", "streaming"])
def test_rows_that_name_other_files_are_not_followed(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A dataset could otherwise look at files of the machine that reads it, and make it call any server."""
    private = tmp_path / "private.png"
    private.write_bytes(picture(3, 10, np.random.default_rng(0)))
    data = table(sorted_labels(2, 20))
    named = [str(private), f"{hub.endpoint}/probe.png", "file://" + str(private), f"zip://a.png::{hub.endpoint}/x.zip"]
    cells = [{"bytes": None, "path": path} for path in named] + data["image"].to_pylist()[len(named) :]
    data = data.set_column(0, data.schema.field(0), pa.array(cells, data.schema.field(0).type))
    hub.create_dataset("org/trap", shards(data, 1, ONE_PAGE))
    if way == "download":
        monkeypatch.setattr("hf_task2vec.tasks.hub_datasets.list_files", lambda *args, **kwargs: None)
    task = Task.from_dataset("org/trap", max_samples=None, streaming=way == "streaming")
    assert {image.row for image in task.skipped} == {0, 1, 2, 3}
    assert all("lies outside the dataset" in image.reason for image in task.skipped)
    assert not hub.requested("probe.png|x.zip")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_of_images_on_the_hub_reads_its_own_files(hub: HubServer) -> None:
    rng = np.random.default_rng(0)
    hub.create_dataset("org/folder", {f"train/{row % 2}/{row}.png": picture(row, 10, rng) for row in range(8)})
    for streaming in (False, True):
        assert not Task.from_dataset("org/folder", streaming=streaming).skipped
    gc.collect()  # an event loop that streaming leaves behind


def test_the_copy_in_parquet_that_the_hub_makes(hub: HubServer) -> None:
    """Its branch has no card; configurations and splits are folders."""
    data, layout = table(sorted_labels(2, 100)), {"row_group_size": 20}
    rng = np.random.default_rng(0)
    hub.create_dataset("org/folder", {f"train/{row % 2}/{row}.png": picture(row, 10, rng) for row in range(8)})
    repo = hub.repo("org/folder")
    repo.refs["refs/convert/parquet"] = repo.refs["refs/heads/main"]
    repo.commit(
        dict.fromkeys(repo.refs["refs/heads/main"].tree)  # deletes all
        | {f"default/train/000{i}.parquet": file for i, file in enumerate(shards(data, 2, layout).values())},
        revision="refs/convert/parquet",
    )
    task = Task.from_dataset("org/folder", revision="refs/convert/parquet", max_samples=12)
    assert task.n_rows == 200
    assert hub.requested("resolve/[0-9a-f]{40}/default/train", "GET")
    assert all(request.status == 206 for request in hub.requested("resolve/.*parquet", "GET"))


def test_all_images_and_odd_compression_are_downloaded(hub: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    hub.create_dataset("org/all", shards(table([0, 1] * 10), 2, CLASSIC))
    hub.create_dataset("org/odd", shards(table([0, 1] * 10), 2, {"compression": "brotli"}))
    with caplog.at_level(logging.INFO, "hf_task2vec"):
        assert len(Task.from_dataset("org/all", max_samples=None)) == 20
        assert len(Task.from_dataset("org/odd", max_samples=4)) == 4
    assert "all images are asked for" in caplog.text
    assert "is compressed with BROTLI" in caplog.text


@pytest.mark.usefixtures("frugal")
def test_a_sample_of_most_rows_is_downloaded(hub: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    hub.create_dataset("org/most", shards(table([0, 1] * 50), 2, CLASSIC))
    with caplog.at_level(logging.INFO, "hf_task2vec"):
        assert len(Task.from_dataset("org/most", max_samples=90)) == 90
    assert "is downloaded, not read in parts: the sample would take" in caplog.text


@pytest.mark.parametrize("fault", [{"status": 503}, {"reset": True}, {"cut": True}, {"reset": True, "after": 100}])
def test_failures_that_pass(
    hub: HubServer, hub_fault: Callable[..., Any], retry_sleeps: list[float], fault: dict[str, Any]
) -> None:
    hub.create_dataset("org/pets", shards(table([0, 1] * 50), 2, CLASSIC))
    hub_fault(method="GET", pattern=r"\.parquet$", times=2, **fault)
    assert len(Task.from_dataset("org/pets", max_samples=4)) == 4
    assert retry_sleeps


def test_damaged_bytes_are_not_kept(hub: HubServer, hub_fault: Callable[..., Any]) -> None:
    files = shards(table([0, 1] * 20, size=3000), 1, {"use_dictionary": False, "compression": None})
    hub.create_dataset("org/pets", files)
    hub_fault(method="GET", pattern=r"\.parquet$", times=1, skip=2, corrupt=True, after=3)
    with pytest.raises((HubCorruptError, HubError), match="damaged"):
        Task.from_dataset("org/pets", max_samples=4)
    assert len(Task.from_dataset("org/pets", max_samples=4)) == 4


def test_a_home_that_may_not_be_written_to_is_said_once(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = b"---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n"
    files = shards(table([0, 1] * 50), 2, CLASSIC) | {"README.md": card}
    hub.create_dataset("org/pets", files)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", os.devnull)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "task2vec"))
    tmp_path.chmod(0o500)
    package_files.temporary_folder.cache_clear()  # another test's is of another user
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nobody: no folder is read-only for root
    try:
        assert len(Task.from_dataset("org/pets", max_samples=4)) == 4
        assert len(Task.from_dataset("org/pets", max_samples=4, seed=1)) == 4
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
        package_files.temporary_folder.cache_clear()
    (warning,) = (line for line in caplog.messages if "HF_HOME" in line)
    assert "task2vec cannot be written to (permission denied), so nothing is kept for the next time" in warning
    assert not list(tmp_path.iterdir())


def test_a_hub_that_sends_whole_files_only(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.hub import routes_content

    hub.create_dataset("org/pets", shards(table([0, 1] * 20), 1, CLASSIC))
    monkeypatch.setattr(routes_content, "byte_range", lambda header, size: None)
    with pytest.raises(HubError, match="only as a whole; parts of files cannot be read"):
        Task.from_dataset("org/pets", max_samples=4)


def test_an_empty_split(hub: HubServer) -> None:
    empty = Dataset(table([0, 1])).select([])
    stream = io.BytesIO()
    empty.to_parquet(stream)
    hub.create_dataset("org/none", {"data/train-00000-of-00001.parquet": stream.getvalue()})
    with pytest.raises(TaskError, match="split 'train' of 'org/none' has no rows"):
        Task.from_dataset("org/none")


def test_a_pushed_dataset(hub: HubServer) -> None:
    data = DatasetDict({"train": Dataset(table([0, 1, 2] * 20)), "test": Dataset(table([2, 1, 0]))})
    data.push_to_hub("org/pushed", token=hub.tokens.write)
    hub.forget_requests()
    task = Task.from_dataset("org/pushed", max_samples=6)
    assert task.describe()["sample_counts"] == [2, 2, 2]
    assert not hub.requested("/resolve/.*test")


# --- pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("kind", ["noise", "repeats", "nulls", "compressible"])
def test_first_values_of_every_kind_of_page(codec: str, version: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    values: list[bytes | None] = [rng.bytes(int(rng.integers(0, 3000))) for _ in range(60)]
    if kind == "repeats":
        values = [values[i // 2 * 2] for i in range(60)]
    elif kind == "nulls":
        values = [None if i % 5 == 2 else value for i, value in enumerate(values)]
    elif kind == "compressible":
        values = [bytes([i]) * (40 * i) + b"abcdefg" * i for i in range(60)]
    for dictionary, rows in itertools.product([True, False], [60, 25]):
        stream = io.BytesIO()
        column = pa.array(
            [None if value is None else {"bytes": value} for value in values], pa.struct({"bytes": pa.binary()})
        )
        pq.write_table(
            pa.table({"image": column}),
            stream,
            compression=codec,
            data_page_version=version,
            use_dictionary=dictionary,
            row_group_size=rows,
            data_page_size=9000,
            write_batch_size=7,
        )
        raw, metadata = stream.getvalue(), pq.read_metadata(stream)
        first = 0
        for group in range(metadata.num_row_groups):
            chunk = metadata.row_group(group).column(0)
            start = chunk.dictionary_page_offset if chunk.has_dictionary_page else None
            end = (start or chunk.data_page_offset) + chunk.total_compressed_size
            leaf = Leaf(chunk.compression, 2, start, chunk.total_compressed_size / chunk.num_values)
            for count in (1, 2, chunk.num_values):
                found = first_values(
                    lambda at, n, raw=raw, end=end: raw[at : min(at + n, end)], chunk.data_page_offset, count, leaf
                )
                assert found == values[first : first + count]
            with pytest.raises(DamagedPageError):
                first_values(
                    lambda at, n, raw=raw, end=end - chunk.total_compressed_size + 20: raw[at : min(at + n, end)],
                    chunk.data_page_offset,
                    chunk.num_values,
                    leaf,
                )
            first += chunk.num_values


@given(st.binary(max_size=400), st.booleans())
def test_garbage_is_no_page(data: bytes, dictionary: bool) -> None:
    leaf = Leaf("SNAPPY", 2, 0 if dictionary else None, 10.0)
    with contextlib.suppress(DamagedPageError):
        first_values(lambda at, n: data[at : at + n], 0, 3, leaf)


@given(st.lists(st.sampled_from([b"a", b"bc" * 9, b"xyz" * 50, bytes(range(256))])), st.integers(0, 2000))
def test_a_prefix_of_a_snappy_stream(parts: list[bytes], cut: int) -> None:
    raw = b"".join(parts)
    packed = pa.compress(raw, codec="snappy", asbytes=True)
    if cut and packed[:cut]:
        found = unpack_snappy(packed[: max(cut, 3)])
        assert raw.startswith(found)
        assert cut < len(packed) or found == raw


@pytest.mark.slow
def test_two_gigabytes() -> None:
    """The claim of the documentation, on nearly 2 GB (takes minutes, and the disk for it)."""
    import json

    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "benchmarks.speed.hub_bytes", "--gigabytes", "1.9"]  # the raw output stays
    printed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    results: dict[str, Any] = {}
    while printed := printed.strip():
        found, end = json.JSONDecoder().raw_decode(printed)
        results, printed = results | found, printed[end:]
    assert len(results) == 2
    for result in results.values():
        assert result["bytes"] > 1.8e9
        runs = [result[name] for name in ("first", "again", "sample without the cache")]
        assert runs[0]["share_of_dataset"] <= 0.03
        assert runs[2]["share_of_dataset"] <= 0.03
        assert runs[1]["bytes_of_files"] == 0
        assert len({run["fingerprint"] for run in runs}) == 1
        assert all(high - low <= 1 for low, high in (run["images_per_class"] for run in runs))


def test_a_copy_kept_from_earlier_is_said(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.create_dataset("org/pets", shards(table([0, 1] * 20), 2, CLASSIC))
    assert Task.from_dataset("org/pets", max_samples=4).reading.warnings == ()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (said,) = Task.from_dataset("org/pets", max_samples=4).reading.warnings
    assert said == (
        "the Hub could not be asked, so dataset 'org/pets' is read as kept from an earlier time, at commit "
        f"{commit[:12]}"
    )


def test_a_wrong_token_is_named_also_for_what_is_public(hub: HubServer) -> None:
    hub.create_dataset("org/pets", shards(table([0, 1] * 20), 2, CLASSIC))
    with pytest.raises(HubAccessError, match="the token is wrong or expired"):
        Task.from_dataset("org/pets", token="hf_wrong")


@pytest.mark.parametrize(("word", "near"), [("fotos", "near it: photos"), ("./fotos", "near it: photos"), ("xyz", "")])
def test_a_mistyped_folder_is_said_without_asking_the_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, near: str
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetNotFoundError, match=f"no such folder: '{word}'.*{near}") as caught:
        Task.from_dataset(word)
    assert ("hf://datasets/" in str(caught.value)) == (word != "./fotos")
    assert not hub.requests
