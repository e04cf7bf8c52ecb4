"""Atomic writes, canonical JSON, checksums and the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hf_task2vec.files import atomic_path, cache_dir, canonical_json, sha256_bytes, sha256_file, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_folders_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists()
        assert temporary.parent == target.parent  # else the rename could cross file systems
    assert target.read_bytes() == b"half"
    assert names(target.parent) == ["file"]


def test_an_error_or_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_path(target) as temporary:  # noqa: PT012
        temporary.write_bytes(b"new")
        temporary.write_bytes(None)  # type: ignore[arg-type]
    assert names(tmp_path) == ["file"]
    code = (
        "import os, sys; from hf_task2vec.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path: path.write_bytes(b'new'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == 9
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_mode_follows_the_umask_also_for_writers_with_files_of_their_own(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        with atomic_path(tmp_path / "file") as temporary:
            own = tmp_path / "own"
            own.write_bytes(b"x")
            own.chmod(0o600)
            os.replace(own, temporary)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_concurrent_writers_never_mix(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, ["start"])
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            seen.add(len(set(json.loads(target.read_text()))))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=lambda i=i: [write_json(target, [i] * 20_000) for _ in range(5)]) for i in "abc"]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert seen == {1}
    assert names(tmp_path) == ["file.json"]


def test_write_json_refuses_what_is_no_json_before_touching_the_file(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, {"é": 1})
    assert target.read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'
    for bad in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            write_json(target, bad)
    assert json.loads(target.read_text(encoding="utf-8")) == {"é": 1}


def test_canonical_json_is_one_form() -> None:
    assert canonical_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([float("inf")])


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 3])
def test_checksums(tmp_path: Path, size: int) -> None:
    data = b"ab" * size
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == sha256_bytes(memoryview(data)) == hashlib.sha256(data).hexdigest()


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.constants import HF_HOME

    assert cache_dir() == Path(HF_HOME, "task2vec")
    monkeypatch.setenv("HF_TASK2VEC_CACHE", "~/kept")
    assert cache_dir() == Path.home() / "kept"
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "none"))
    assert cache_dir() == tmp_path / "none"
    assert not cache_dir().exists()
