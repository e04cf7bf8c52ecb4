"""The web page of `examples/space` without a browser: unpacking of archives, requests, the worker, what is shown."""

from __future__ import annotations

import asyncio
import contextlib
import io
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_task2vec.errors import TaskError

SPACE = Path(__file__).resolve().parents[2] / "examples" / "space"
sys.path.insert(0, str(SPACE))  # as for `python app.py`; the folder is no package
import jobs  # noqa: E402
from archive import ArchiveError, Limits, Unpacked, unpack  # noqa: E402
from jobs import Job, WorkerError, environment, title_of  # noqa: E402


def picture(size: int = 8, file_format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((size, size), 60).save(stream, file_format)
    return stream.getvalue()


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as handle:
        for name, data in files.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename = name  # as it is: the constructor would tidy it
            info.compress_type = compression
            handle.writestr(info, data)
    return stream.getvalue()


def linked(name: str, target: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    info.comment = target.encode()
    return info


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """The folder to unpack into, inside another that must stay as it is."""
    (tmp_path / "outer" / "box").mkdir(parents=True)
    return tmp_path / "outer" / "box"


def unpacked(data: bytes, box: Path, **limits: int) -> Unpacked:
    path = box.parent.parent / "dropped.zip"
    path.write_bytes(data)
    return unpack(path, box, Limits(**limits))


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


GOOD = {"photos/cats/a.png": picture(), "photos/cats/B.JPG": picture(16, "JPEG"), "photos/dogs/a.png": picture()}


# Archives


def test_images_of_an_archive_and_nothing_else(box: Path) -> None:
    others = {
        "photos/dogs\\windows.png": picture(),
        "photos/readme.txt": b"hello",
        "photos/cats/.hidden.png": picture(),
        "photos/cats/inner.zip": zipped(GOOD),
        "photos/cats/text.png": b"no image",
        "__MACOSX/photos/cats/._a.png": picture(),
        "cover.png": picture(),
    }
    assert unpacked(zipped({**GOOD, **others}), box) == Unpacked(images=4, classes=2, ignored=6)
    names = tree(box)
    assert [name.rpartition("/")[0] for name in names] == ["cats"] * 2 + ["dogs"] * 2
    assert {Path(name).suffix for name in names} == {".png", ".jpg"}
    assert {(box / name).read_bytes() for name in names} >= set(GOOD.values())


@pytest.mark.parametrize(
    "name",
    ["../x.png", "cats/../../x.png", "/etc/x.png", "C:\\x.png", "c:/x.png", "..\\x.png", "cats/..", "\\\\host\\x.png"],
)
def test_a_place_outside_is_refused(name: str, box: Path) -> None:
    with pytest.raises(ArchiveError, match="names a place outside itself"):
        unpacked(zipped({**GOOD, name: picture()}), box)
    assert tree(box.parent.parent) == ["dropped.zip"]


def test_links_are_left_out_and_lead_nowhere(box: Path) -> None:
    stream = io.BytesIO(zipped(GOOD))
    with zipfile.ZipFile(stream, "a") as handle:
        handle.writestr(linked("cats", "x"), "../../..")
        handle.writestr("cats/1.png", picture())
        handle.writestr(linked("dogs.png", "x"), "/etc/passwd")
    assert unpacked(stream.getvalue(), box) == Unpacked(images=4, classes=2, ignored=2)
    assert not any(path.is_symlink() for path in box.rglob("*"))
    assert tree(box.parent.parent) == sorted([*(f"outer/box/{name}" for name in tree(box)), "dropped.zip"])


@pytest.mark.parametrize(
    ("names", "folders"),
    [  # the innermost folder is the class, and its name is tamed
        (("a/train/cats/1.png", "a/test/cats/1.png", "a/dogs/small/terrier/1.png"), ["cats", "cats", "terrier"]),
        (("/".join("x" * 100) + "/1.png", "é" * 200 + "/1.png"), ["x", "é" * 60]),
        (("a\nb\x1b[31m/1.png", "<img src=x>/1.png"), ["<img src=x>", "a_b_[31m"]),
    ],
)
def test_folders_are_classes(names: tuple[str, ...], folders: list[str], box: Path) -> None:
    found = unpacked(zipped({name: picture() for name in names}), box)
    assert found == Unpacked(images=len(names), classes=len(set(folders)), ignored=0)
    assert [name.rpartition("/")[0] for name in tree(box)] == folders


def test_two_files_of_one_name_are_both_kept(box: Path) -> None:
    stream = io.BytesIO(zipped(GOOD))
    with zipfile.ZipFile(stream, "a") as handle, pytest.warns(UserWarning, match="Duplicate"):
        handle.writestr("photos/cats/a.png", picture())
    assert unpacked(stream.getvalue(), box).images == 4


def _encrypted() -> bytes:
    data = bytearray(zipped(GOOD))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + flags] |= 1
    return bytes(data)


def _large_format() -> bytes:
    data = zipped(GOOD)
    end = data.rindex(b"PK\x05\x06")
    return data[:end] + b"PK\x06\x07" + bytes(16) + data[end:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no zip archive; what would work: a zip with one folder of images a class"),
        (b"hello", "no zip archive"),
        (zipped(GOOD)[:-30], "no zip archive"),
        (zipped(GOOD)[50:], "no readable zip archive, or is damaged"),
        (_encrypted(), "is encrypted; make one without a password"),
        (zipped(GOOD, zipfile.ZIP_LZMA), "unusual method"),
        (zipped(GOOD, zipfile.ZIP_BZIP2), "unusual method"),
        (_large_format(), "for more than 65,535 files or 4 GB"),
        (zipped({}), r"holds no image \(0 other files\)"),
        (zipped({"a.txt": b"a", "b.png": b"b"}), r"holds no image \(2 other files\); what would work"),
    ],
    ids=["empty", "text", "cut", "shifted", "encrypted", "lzma", "bzip2", "zip64", "no files", "no images"],
)
def test_what_is_no_usable_archive(data: bytes, reason: str, box: Path) -> None:
    with pytest.raises(ArchiveError, match=reason):
        unpacked(data, box)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"archive": 100}, "the archive has 0 MB; at most 0 MB are accepted"),
        ({"entries": 2}, r"lists too many files \(3\); at most 2 are accepted"),
        ({"directory": 100}, "lists too many files"),
        ({"image": 100}, r"'photos/cats/B.JPG' has more than 0 MB unpacked"),
        ({"total": 200}, "unpacks to too much"),
        ({"classes": 1}, "more than 1 folders of images"),
    ],
)
def test_limits(limits: dict[str, int], reason: str, box: Path) -> None:
    with pytest.raises(ArchiveError, match=reason):
        unpacked(zipped({"photos/cats/B.JPG": picture(64, "JPEG"), **GOOD}), box, **limits)


def test_a_bomb_is_stopped_while_it_unpacks(box: Path) -> None:
    flat = b"BM" + bytes(40_000_000)  # 40 kB as stored
    data = zipped({f"cats/{i}.bmp": flat for i in range(4)})
    assert len(data) < 200_000
    with pytest.raises(ArchiveError, match="50 times its own size"):
        unpacked(data, box)
    assert sum(path.stat().st_size for path in box.rglob("*.bmp")) <= 50_000_000
    with pytest.raises(ArchiveError, match="has more than 50 MB unpacked, the limit for one image"):
        unpacked(zipped({"dogs/1.bmp": b"BM" + bytes(60_000_000)}), box)


def test_an_archive_that_lies_about_sizes(box: Path) -> None:
    data = bytearray(zipped({"cats/1.bmp": b"BM" + bytes(100_000)}))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 10)  # the size that the list of files tells
    with pytest.raises(ArchiveError, match="is damaged"):
        unpacked(bytes(data), box)
    assert sum(path.stat().st_size for path in box.rglob("*.bmp")) <= 100


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=8),
    name=st.text(st.sampled_from("ab./\\:~\0\n é"), min_size=1, max_size=12),
)
def test_whatever_is_dropped_stays_inside(
    changes: list[tuple[int, int]], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    (root / "outer" / "box").mkdir(parents=True)
    data = bytearray(zipped({name + ".png": picture(), "cats/1.png": picture()}))
    for at, value in changes:
        data[at % len(data)] = value
    with contextlib.suppress(ArchiveError):
        found = unpacked(bytes(data), root / "outer" / "box")
        assert found.images == len(tree(root / "outer" / "box")) > 0
    outside = [path for path in tree(root) if not path.startswith("outer/box/")]
    assert outside == ["dropped.zip"]


# Requests


@pytest.mark.parametrize(
    "dataset",
    ["", ".", "..", "../x", "/etc", "~", "~/x", "a/b/c", "a b", "org/..", "-x", "C:\\x", "http://x/y", "a/.b"],
)
def test_only_ids_of_the_hub_are_asked_for(dataset: str) -> None:
    with pytest.raises(TaskError, match="is no id of a dataset on the Hub; one looks like org/name"):
        Job(dataset)


@pytest.mark.parametrize("name", ["config", "split", "revision"])
@pytest.mark.parametrize("value", ["../x", "a/../b", "/etc", "a\nb", "x" * 200, ""])
def test_other_names_are_checked(name: str, value: str) -> None:
    with pytest.raises(TaskError, match=f"{name} .* holds signs"):
        Job("org/name", **{name: value})


def test_requests_that_are_fine() -> None:
    job = Job("org/my.data_set-1", config="default", split="train[:10%]", revision="refs/convert/parquet")
    assert Job.of_json(job.to_json()) == job
    assert job.is_remote
    assert not Job(jobs.DIGITS).is_remote
    assert not Job(archive="a.zip", licenses=("mit",)).is_remote
    with pytest.raises(TaskError, match="1 to 100 checkpoints"):
        Job("org/name", top_k=1000)


@pytest.mark.parametrize(
    ("path", "title"),
    [("/tmp/My photos.zip", "My-photos"), ("/x/../...zip", "images"), ("é.zip", "images"), ("a" * 99, "a" * 60)],
)
def test_title_of_an_archive(path: str, title: str) -> None:
    assert title_of(path) == title


def test_no_secret_reaches_the_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "hf_abcdefghijkl")
    found = environment(tmp_path)
    assert "hf_abcdefghijkl" not in "".join(found.values())
    assert found["HF_HUB_DISABLE_IMPLICIT_TOKEN"] == "1"
    caches = [value for name, value in found.items() if name.startswith("HF_") and name.endswith(("HOME", "CACHE"))]
    assert len(caches) >= 4
    assert all(value.startswith(str(tmp_path)) for value in caches)


# The process of a request


def worker(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str, seconds: float = 20) -> Iterator[dict[str, Any]]:
    """Let a script of a few lines be the worker."""
    script = folder.parent / "worker.py"
    script.write_text(f"import json, os, sys, time\ntell = lambda **m: print(json.dumps(m), flush=True)\n{body}")
    monkeypatch.setattr(jobs, "_WORKER", script)
    return jobs.run(Job(jobs.DIGITS), folder, seconds=seconds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


def test_what_a_worker_tells(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    body = r"""
job = json.load(sys.stdin)
tell(stage="drawing", detail=job["dataset"])
from tqdm.auto import tqdm
with tqdm(total=4, desc="features", mininterval=0, leave=False) as bar:
    bar.update(3)
print("a warning", file=sys.stderr)
time.sleep(1.2)
tell(result={"cwd": os.listdir("."), "folder": sys.argv[1]})
"""
    found = list(worker(monkeypatch, folder, body))
    assert {"stage": "drawing", "detail": jobs.DIGITS} in found
    assert {"bar": "features", "done": 3.0, "total": 4.0} in found
    assert {} in found, "something is yielded while nothing happens, so that the page can be left"
    assert found[-1] == {"result": {"cwd": [], "folder": str(folder)}}


def test_errors_of_a_worker(monkeypatch: pytest.MonkeyPatch, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TaskError, match=r"^no such file: images/x\.png$"):
        list(worker(monkeypatch, folder, "tell(error=f'no such file: {sys.argv[1]}/images/x.png')"))
    for body in ("tell(error=None)", "sys.exit(3)", "os.kill(os.getpid(), 9)", "raise OSError('full disk')"):
        (folder / "nowhere").rmdir()
        with pytest.raises(WorkerError) as caught:
            list(worker(monkeypatch, folder, body))
        assert not str(caught.value)
    assert "full disk" in caplog.text


def test_a_worker_is_ended_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    with pytest.raises(TaskError, match=r"took longer than 1 seconds and was ended"):
        list(worker(monkeypatch, folder, "time.sleep(600)", seconds=1))


def test_a_worker_ends_with_the_request(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    messages = worker(monkeypatch, folder, "tell(stage=str(os.getpid()), detail=''); time.sleep(60)")
    pid = next(int(message["stage"]) for message in messages if message)
    assert Path(f"/proc/{pid}").exists()
    messages.close()
    assert not Path(f"/proc/{pid}").exists()


def test_the_real_worker_refuses_a_bad_archive(folder: Path) -> None:
    (folder.parent / "bad.zip").write_bytes(zipped({"../x.png": picture()}))
    with pytest.raises(TaskError, match="names a place outside itself"):
        list(jobs.run(Job(archive=str(folder.parent / "bad.zip")), folder))
    assert tree(folder.parent) == ["bad.zip"]


# The page


@pytest.fixture(scope="module")
def app() -> ModuleType:
    async def imported() -> ModuleType:  # without a running loop Gradio makes some, and leaves them open
        import app

        return app

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Gradio's own dependencies
        return asyncio.run(imported())


TROUBLE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"


def test_whatever_is_shown_is_escaped(app: ModuleType) -> None:
    document = {"summary": TROUBLE, "warnings": [TROUBLE]}
    for text in (app.status(TROUBLE, TROUBLE), app.alert(TROUBLE), app.summary(document), app.frame(TROUBLE)):
        assert "<script" not in text
        assert "<img" not in text
        assert "&lt;script&gt;alert(1)" in text.lower()
    frame = app.frame('</iframe><script>"')
    assert frame.count('"') == 2 * frame.count('="'), "no quote of the report ends the attribute"
    assert 'sandbox="allow-scripts"' in frame
    assert "same-origin" not in frame


def test_progress_is_drawn_within_its_bar(app: ModuleType) -> None:
    assert "aria-valuenow" not in app.status("drawing")
    assert 'aria-valuenow="25"' in app.status("features", "256 images", 0.25)
    assert 'aria-valuenow="100"' in app.status("features", "", 3.0)


def test_the_table_shows_what_is_unknown(app: ModuleType) -> None:
    facts = {"rank": 1, "hub_id": "timm/a", "score": 0.9, "low": 0.81234, "high": 0.95, "params_m": None}
    (row,) = app.rows({"candidates": [{**facts, "license": None}]})
    assert row == [1, "[timm/a](https://huggingface.co/timm/a)", "90.0", "81.2–95.0", "?", "?"]
    assert len(row) == len(app.HEADERS)


def test_the_page_offers_no_interface_to_programs_and_tells_nobody(app: ModuleType) -> None:
    config = app.demo.config
    assert {dependency["api_visibility"] for dependency in config["dependencies"]} == {"private"}
    assert not app.demo.get_api_info()["named_endpoints"]
    assert app.demo.analytics_enabled is False
    assert app.THEME._stylesheets == []
    queued = [dependency for dependency in app.demo.fns.values() if dependency.queue]
    assert {(entry.concurrency_limit, entry.concurrency_id) for entry in queued} == {(1, "selection")}


def test_the_card_of_the_space(app: ModuleType) -> None:
    import gradio
    import yaml

    head = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (head["sdk"], head["app_file"]) == ("gradio", "app.py")
    assert int(head["sdk_version"].split(".")[0]) <= int(gradio.__version__.split(".")[0])
    assert len(head["short_description"]) <= 60
