"""The command line as a process: tables and progress in a real pseudo-terminal, pipes, and the main job as typed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

# A command line whose `select_backbone` works through stages as the real one does, without its libraries.
DRIVER = """
import os, sys, time, logging
from types import ModuleType, SimpleNamespace
import hf_task2vec.cli as command_line
import hf_task2vec.tasks.progress as progress_of

logger = logging.getLogger("hf_task2vec.test")
progress_of.EVERY = 0.04
unit = float(os.environ.get("TEST_SECONDS", "0"))

class Ranking(list):
    score_name, read = "accuracy", ""
    warnings, summary = ("only 3 images have a label",), "Take the first: accuracy 90.0 % \\u00b1 1.0."
    budgets, n_ranked = (), 3
    def shortlist(self):
        return []
    def folded(self):
        return [(candidate, 0) for candidate in self]
    def to_dict(self):
        return {"candidates": [vars(candidate) for candidate in self]}

def select_backbone(dataset, *, progress, **options):
    for stage in ("reading the dataset", "loading the probe"):
        progress_of.say(stage)
        time.sleep(unit)
    logger.info("a choice")
    for i in progress_of.each(range(4), "features", "img", shown=progress):
        time.sleep(unit)
        if i == 2:
            logger.warning("an image is broken")
            logger.debug("a detail")
    fields = dict(score=0.5, low=0.4, high=0.6, measured=None, params_m=1.0, gmacs=1.0, input_px=224, license="mit")
    names = ["timm/resnet18.a1_in1k", "timm/convnextv2_huge.fcmae_ft_in22k_in1k_384", "org/x"]
    return Ranking(SimpleNamespace(rank=i + 1, hub_id=name, **fields) for i, name in enumerate(names))

module = ModuleType("hf_task2vec.selection.select")
module.select_backbone = select_backbone
sys.modules[module.__name__] = module
command_line.main()
"""


class Terminal:
    """A pseudo-terminal, and what a screen would show of what was written to it."""

    def __init__(self, command: Sequence[str], width: int, *, piped: str = "", **environment: str) -> None:
        controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
        if piped:
            streams[piped] = subprocess.PIPE
        names = ("COLUMNS", "NO_COLOR", "PYTHONIOENCODING", "LC_ALL")
        inherited = {name: value for name, value in os.environ.items() if name not in names}
        environment = {**inherited, "TERM": "xterm-256color", **environment}
        with subprocess.Popen(command, **streams, env=environment, start_new_session=True) as process:
            os.close(terminal)
            written, deadline = b"", time.monotonic() + 60
            while time.monotonic() < deadline:
                if not select.select([controller], [], [], 0.1)[0]:
                    continue
                try:
                    chunk = os.read(controller, 65536)
                except OSError:  # the last process has closed the terminal
                    break
                if not chunk:
                    break
                written += chunk
            os.close(controller)
            self.piped = getattr(process, piped).read().decode() if piped else ""
        self.code = process.returncode
        self.raw = written.decode("utf-8", errors="replace")
        self.screen = screen(self.raw)


def screen(text: str) -> list[str]:
    """Return the lines that are left on a screen: carriage returns, erased lines and cursor movements are obeyed."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token.startswith("\x1b"):
            if token.endswith("A"):
                row = max(0, row - int(token[2:-1] or 1))
            elif token.endswith("K"):
                lines[row] = ""
        else:
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


def selecting(*arguments: str) -> list[str]:
    return [sys.executable, "-c", DRIVER, "select", "org/data", *arguments]


# -------------------------------------------------------------------------------------------------- in a real terminal


@pytest.mark.parametrize("width", [60, 80, 120])
def test_terminal(width: int) -> None:
    terminal = Terminal(selecting(), width, TEST_SECONDS="0.1")
    assert terminal.code == 0, terminal.raw
    assert "\x1b[1m" in terminal.raw, "the heading is bold"
    shown = terminal.screen
    # All that is left: two messages, the table, the summary. No bar, no stage.
    assert shown[:2] == ["an image is broken", "warning: only 3 images have a label"]
    assert shown[2].split()[:3] == ["#", "checkpoint", "accuracy"]
    assert ("licence" in shown[2]) == (width == 120)
    assert max(map(len, shown)) <= width
    assert shown[4].split()[1] == "timm/convnextv2_huge.fcmae_ft_in22k_in1k_384"
    assert shown[-2:] == ["Take the first: accuracy 90.0 % ± 1.0.", ""]


def test_progress_names_what_is_done_and_the_time_left() -> None:
    raw = Terminal(selecting(), 100, TEST_SECONDS="0.15").raw
    seen = [raw.index(step) for step in ("starting", "reading the dataset", "loading the probe", "features:")]
    assert seen == sorted(seen)
    assert re.search(r"features:.*\d/4 \[\d\d:\d\d<\d\d:\d\d, ", raw), "elapsed < left"


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_where_they_are_not_wanted(environment: dict[str, str]) -> None:
    terminal = Terminal(selecting(), 80, **environment)
    assert terminal.code == 0
    assert not re.search(r"\x1b\[[0-9;]*3\dm", terminal.raw)
    assert terminal.screen[2].split()[:2] == ["#", "checkpoint"]


def test_quiet_terminal_shows_the_result_only() -> None:
    terminal = Terminal(selecting("--quiet"), 80)
    assert terminal.raw.split() == ["timm/resnet18.a1_in1k", "timm/convnextv2_huge.fcmae_ft_in22k_in1k_384", "org/x"]


def test_answer_in_a_pipe_progress_on_the_terminal() -> None:
    terminal = Terminal(selecting(), 60, piped="stdout", TEST_SECONDS="0.15")
    assert "features:" in terminal.raw
    assert terminal.screen == ["an image is broken", "warning: only 3 images have a label", ""]
    lines = terminal.piped.splitlines()
    assert [line.split("\t") for line in lines[:2]] == [
        ["#", "checkpoint", "accuracy", "80 % interval", "params", "licence", "GMACs", "px"],
        ["1", "timm/resnet18.a1_in1k", "50.0", "40.0–60.0", "1.0M", "mit", "1.0", "224"],
    ]
    assert "\x1b" not in terminal.piped


def test_json_in_a_pipe_is_one_document_and_details_are_on_the_terminal() -> None:
    terminal = Terminal(selecting("--json", "-vv"), 80, piped="stdout")
    assert len(json.loads(terminal.piped)["candidates"]) == 3
    assert "hf_task2vec.test: a detail" in terminal.raw


@pytest.mark.parametrize("options", [(), ("-v",)])
def test_in_a_pipe_each_stage_has_a_line_and_a_long_one_several(options: tuple[str, ...]) -> None:
    terminal = Terminal(selecting(*options), 80, piped="stderr", TEST_SECONDS="0.15")
    lines = terminal.piped.splitlines()
    going_on = [line for line in lines if re.fullmatch(r"features: [0-4] of 4 img, \d s so far", line)]
    assert going_on
    assert [line for line in lines if line not in going_on] == [
        *("reading the dataset", "loading the probe", *(["a choice"] if options else [])),
        *("an image is broken", "warning: only 3 images have a label"),
    ]


def test_a_quiet_pipe_has_warnings_at_most() -> None:
    assert Terminal(selecting("--quiet"), 80, piped="stderr", TEST_SECONDS="0.1").piped == ""


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_poor_encodings(environment: dict[str, str]) -> None:
    terminal = Terminal(selecting(), 120, PYTHONUTF8="0", **environment)
    assert terminal.code == 0, terminal.raw
    assert terminal.raw.isascii()
    assert "40.0?60.0" in terminal.screen[3]


# ------------------------------------------------------------------------------------------------------------- pipes


def piped(*arguments: str | Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False, **settings)


def command(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("hf-task2vec")
    assert script.exists(), f"{script} is missing: install the package first (pip install -e .)"
    return piped(script, *arguments, cwd=cwd)


def test_reader_that_goes_away() -> None:
    program = [sys.executable, "-m", "hf_task2vec.cli", "index", "info"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait()) == ("", 1)


def test_endpoint_and_offline_are_set_before_the_libraries_are_imported() -> None:
    body = "import huggingface_hub.constants as c; sys.exit(f'{c.ENDPOINT} {c.HF_HUB_OFFLINE}')"
    code = DRIVER.replace("for stage in", f"{body}\n    for stage in")
    result = piped(sys.executable, "-c", code, "select", "x", "--endpoint", "http://127.0.0.1:9/", "--offline")
    assert result.stderr.splitlines() == ["http://127.0.0.1:9 True"]


def test_tab_imports_no_numerical_library() -> None:
    code = (
        "import atexit, sys\n"
        "heavy = {'numpy', 'pandas', 'torch', 'sklearn', 'datasets', 'huggingface_hub', 'pydantic', 'rich', 'tqdm'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "from hf_task2vec.cli import main; main()\n"
    )
    variables = {"_HF_TASK2VEC_COMPLETE": "bash_complete", "COMP_WORDS": "hf-task2vec dis", "COMP_CWORD": "1"}
    result = piped(sys.executable, "-c", code, env={**os.environ, **variables})
    assert (result.stdout, result.stderr) == ("plain,distance\n", "[]\n")


# ---------------------------------------------------------------------------------------------- as a user types them


def test_select_the_sample() -> None:
    result = command("select", "sklearn:digits", "--max-samples", "64", "--offline", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["dataset"] == "sklearn:digits"
    assert len(document["candidates"]) >= 10
    assert all(candidate["hub_id"].count("/") == 1 and candidate["std"] > 0 for candidate in document["candidates"])
    first, *rest = document["candidates"]
    assert None not in (first["params_m"], first["license"])  # what is unknown does not lead
    scores = [candidate["score"] for candidate in rest]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["select", "./no-such-folder"], 3, "no-such-folder"),
        (["select", "sklearn:digits", "--max-params", "1", "--max-samples", "64"], 6, "--max-params 1"),
        (["index", "info", "no-such-index"], 4, "no-such-index"),
        (["distance", "no-such-task", "mnist"], 4, "'no-such-task' is neither a file nor a task of the index"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    result = command(*arguments, "--json", "--offline", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in result.stderr


def test_shipped_index() -> None:
    result = command("index", "validate", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["valid"] is True
    assert command("index", "info").returncode == 0
