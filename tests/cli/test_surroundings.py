"""The command line as a process in surroundings that refuse something: no home folder, full disks, limits."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.synthetic import embedding

SELECT = ("select", "sklearn:digits", "--max-samples", "32", "--top-k", "2", "--device", "cpu", "--offline", "--quiet")


def run(
    *arguments: str | Path, cwd: Path, prepare: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("HF_HOME", "HF_TASK2VEC_CACHE")}
    return subprocess.run(
        [sys.executable, "-m", "hf_task2vec.cli", *map(str, arguments)],
        env=inherited | environment,
        cwd=cwd,
        preexec_fn=prepare,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"HOME": "~"}, "no home folder is known"),  # as without HOME for a user that the system does not know
        ({"HF_HOME": "{}/file/home"}, "{}/file/home cannot be made (Not a directory)"),
        ({"HF_TASK2VEC_CACHE": "{}/file/kept"}, "{}/file/kept cannot be written to (Not a directory)"),
    ],
    ids=["no home", "no place for a home", "no cache"],
)
def test_a_selection_without_a_place_to_keep_things(tmp_path: Path, environment: dict[str, str], why: str) -> None:
    (tmp_path / "file").write_text("")
    found = {name: value.format(tmp_path) for name, value in environment.items()}
    result = run(*[word for word in SELECT if word != "--quiet"], cwd=tmp_path, **found)
    assert (result.returncode, result.stdout.count("\n") > 3) == (0, True), result.stderr
    (warning,) = (line for line in result.stderr.splitlines() if "HF_HOME" in line)
    assert "nothing is kept for the next time" in warning
    assert why.format(tmp_path) in warning
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.slow
def test_a_report_that_cannot_be_kept_costs_no_ranking(tmp_path: Path) -> None:
    def limit() -> None:  # as a quota would
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    environment = {"HF_HOME": str(tmp_path / "home"), "HF_TASK2VEC_CACHE": str(tmp_path / "home")}
    result = run(*SELECT, "--report", "report.html", cwd=tmp_path, prepare=limit, **environment)
    assert (result.returncode, len(result.stdout.split())) == (8, 2), result.stderr
    assert "error: the report cannot be written to report.html: the file is larger than the system" in result.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no device that is always full")
def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    paths = [embedding(i).save(tmp_path / f"task{i}") for i in range(2)]
    (tmp_path / "full.html").symlink_to("/dev/full")
    result = run("map", *paths, "-o", "full.html", cwd=tmp_path, HF_HOME=str(tmp_path / "home"))
    assert result.returncode == 8, result.stderr
    assert result.stderr == "error: the map cannot be written to full.html: the disk is full\n"
    assert "Diversity of the 2 tasks" in result.stdout
    assert Path("/dev/full").is_char_device()
