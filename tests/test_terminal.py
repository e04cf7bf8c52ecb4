"""What a user sees: tables at every width, colours, encodings, progress, `--quiet`, in a real pseudo-terminal."""

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
from cli_stub import run
from hypothesis import given
from hypothesis import strategies as st
from test_cli import RANKING

from hf_task2vec.cli.console import Column, encodable, ranking_report
from hf_task2vec.cli.terminal_table import fitting, terminal_table, wrapped

# A command line whose `select_backbone` works through stages as the real one does, without its libraries.
DRIVER = """
import os, sys, time, logging
from types import ModuleType, SimpleNamespace
import hf_task2vec.cli as command_line

logger = logging.getLogger("hf_task2vec.test")
unit = float(os.environ.get("TEST_SECONDS", "0"))

class Ranking(list):
    score_name = "accuracy"
    warnings, summary = ("only 3 images have a label",), "Take the first: accuracy 90.0 % \\u00b1 1.0."
    def to_dict(self):
        return {"candidates": [vars(candidate) for candidate in self]}

def select_backbone(dataset, *, progress, **options):
    from tqdm.auto import tqdm
    for stage in ("reading the dataset", "loading the probe"):
        logger.debug(stage, extra={"stage": stage})
        time.sleep(float(os.environ.get("TEST_STAGE_SECONDS", unit)))
    for done in range(0, 4):
        logger.debug("drawing", extra={"stage": "drawing the sample", "count": (done, 4)})
        time.sleep(unit)
    logger.debug("features", extra={"stage": ""})
    with tqdm(total=4, desc="features", unit="img", disable=not progress, leave=False) as bar:
        for i in range(4):
            time.sleep(unit)
            bar.update()
            if i == 2:
                logger.warning("an image is broken")
                logger.info("a detail")
    fields = dict(score=0.5, low=0.4, high=0.6, measured=None, params_m=1.0, gmacs=1.0, input_px=224, license="mit")
    names = ["timm/resnet18.a1_in1k", "timm/convnextv2_huge.fcmae_ft_in22k_in1k_384", "org/x"]
    return Ranking(SimpleNamespace(rank=i + 1, hub_id=name, **fields) for i, name in enumerate(names))

module = ModuleType("hf_task2vec.selection")
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


# ----------------------------------------------------------------------------------------------------------- tables


def test_width_decides_which_columns_are_shown() -> None:
    report = ranking_report(RANKING)
    for width, hidden in ((140, []), (100, ["GMACs", "px", "licence"]), (86, ["params", "GMACs", "px", "licence"])):
        lines = terminal_table(report.columns, report.rows, report.notes, width=width).splitlines()
        plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
        assert max(map(len, plain)) <= width
        assert [row.split()[1] for row in plain[1:4]] == [candidate.hub_id for candidate in RANKING], "ids are whole"
        said = f"No room here for {', '.join(hidden)}: a wider terminal, a pipe or --json shows them."
        assert (said in " ".join(plain)) == bool(hidden), plain
        assert plain[-1] == "3 candidates were ranked."


def test_ids_are_folded_and_not_cut_where_nothing_else_is_left() -> None:
    report = ranking_report(RANKING)
    lines = terminal_table(report.columns, report.rows, width=40).splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(map(len, plain)) <= 40
    start, end = plain[0].index("checkpoint"), plain[0].index("accuracy") - 1
    rows = plain[1 : plain.index("")]
    assert "".join(row[start:end].strip() for row in rows) == "".join(c.hub_id for c in RANKING)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=8), st.integers(1, 120))
def test_columns_go_in_the_order_of_their_ranks(columns: list[tuple[int, int]], width: int) -> None:
    titles = [Column("x" * length, rank=rank) for length, rank in columns]
    shown = fitting(titles, [], width)
    hidden = set(range(len(columns))) - set(shown)
    assert all(titles[i].rank > 0 for i in hidden)
    if hidden:
        # Not one of those hidden would have found room beside those that matter more.
        first = min(hidden, key=lambda i: (titles[i].rank, i))
        before = [i for i in range(len(columns)) if (titles[i].rank, i) <= (titles[first].rank, first)]
        assert sum(columns[i][0] for i in before) + 2 * (len(before) - 1) > width


@given(st.text(alphabet="ab -%±", max_size=80), st.integers(5, 40))
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    assert wrapped(text, width).split() == text.split()


def test_wrapping_keeps_numbers_and_ids_together() -> None:
    lines = wrapped("predicted 85.4 % (2.7 ± 7.0) by timm/vit-base-patch16", 16).splitlines()
    assert lines == ["predicted 85.4 %", "(2.7 ± 7.0) by", "timm/vit-base-patch16"]


def test_characters_that_cannot_be_encoded_are_spelt_out() -> None:
    assert encodable("75.6–91.7 ± 2 … ≥ 3", "ascii") == "75.6-91.7 +- 2 ... >= 3"
    assert encodable("75.6–91.7", "utf-8") == "75.6–91.7"
    assert encodable("75.6–91.7", None) == "75.6–91.7"


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


def test_progress_names_stages_and_time_left() -> None:
    raw = Terminal(selecting(), 100, TEST_SECONDS="0.15").raw
    seen = [
        raw.index(stage) for stage in ("starting", "reading the dataset", "loading the probe", "drawing the sample")
    ]
    seen.append(raw.index("features:"))
    assert seen == sorted(seen)
    assert re.search(r"drawing the sample:.*\d/4 \[\d\d:\d\d<\d\d:\d\d, ", raw), "elapsed < left"
    assert re.search(r"features:.*\d/4 \[\d\d:\d\d<\d\d:\d\d, ", raw)


def test_long_stages_show_that_time_goes_on() -> None:
    raw = Terminal(selecting(), 80, TEST_STAGE_SECONDS="1.6").raw
    assert "reading the dataset 00:01" in raw


def test_no_colours_where_they_are_not_wanted() -> None:
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        terminal = Terminal(selecting("--top-k", "3"), 80, **environment)
        assert terminal.code == 0
        assert not re.search(r"\x1b\[[0-9;]*m", terminal.raw)
        assert terminal.screen[2].split()[:2] == ["#", "checkpoint"]


def test_quiet_terminal_shows_the_result_only() -> None:
    terminal = Terminal(selecting("--quiet"), 80)
    assert terminal.raw.split() == ["timm/resnet18.a1_in1k", "timm/convnextv2_huge.fcmae_ft_in22k_in1k_384", "org/x"]


def test_answer_in_a_pipe_progress_on_the_terminal() -> None:
    terminal = Terminal(selecting(), 60, piped="stdout", TEST_SECONDS="0.15")
    assert "features:" in terminal.raw
    assert terminal.screen == ["an image is broken", "warning: only 3 images have a label", ""]
    lines = terminal.piped.splitlines()
    assert [re.split(" {2,}", line) for line in lines[:2]] == [
        ["#", "checkpoint", "accuracy", "80 % interval", "params", "GMACs", "px", "licence"],
        ["1", "timm/resnet18.a1_in1k", "50.0", "40.0–60.0", "1.0M", "1.0", "224", "mit"],
    ]
    assert "\x1b" not in terminal.piped


def test_json_in_a_pipe_is_one_document() -> None:
    terminal = Terminal(selecting("--json", "-vv"), 80, piped="stdout")
    assert len(json.loads(terminal.piped)["candidates"]) == 3
    assert "hf_task2vec.test: a detail" in terminal.raw


def test_messages_in_a_pipe_come_without_bars() -> None:
    terminal = Terminal(selecting("-v"), 80, piped="stderr")
    assert terminal.piped.splitlines() == ["an image is broken", "a detail", "warning: only 3 images have a label"]


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_poor_encodings(environment: dict[str, str]) -> None:
    terminal = Terminal(selecting(), 120, PYTHONUTF8="0", **environment)
    assert terminal.code == 0, terminal.raw
    assert terminal.raw.isascii()
    assert "40.0-60.0" in terminal.screen[3]


def test_facts_on_a_terminal() -> None:
    """A table without a heading: the names of the facts are bold, and values are folded between words."""
    columns, rows = (Column(""), Column("")), [["path", "x"], ["names", "one, two, three, four"]]
    text = terminal_table(columns, rows, width=20)
    assert text.count("\x1b[1m") == 2 or not os.environ.get("TERM")
    assert "three" in text


def test_pipe_table_of_other_commands_has_no_empty_cells(tmp_path: Path) -> None:
    lines = run("index", "info").stdout.splitlines()
    facts = [re.split(" {2,}", line) for line in lines if line]
    assert {len(fact) for fact in facts} == {2}
    assert ["counts.tasks", "115"] in facts
