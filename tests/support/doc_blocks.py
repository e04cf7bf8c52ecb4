"""Code blocks of the documentation: found by a Markdown parser, run where they stand.

A comment on the line before a block says what is special about it: ``<!-- not run …: reason -->``, ``<!-- slow -->``
(run, but in the slow tests), ``<!-- file: NAME -->`` (the block is that file's content), and the README's two commands.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from tests.support.cli_stub import run

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "zoo_index/README.md", "examples/README.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")),
)
_PROGRAM, _MODULE = re.compile(r"(?:.*/)?hf-task2vec"), "hf_task2vec.cli"
_ASSIGNMENT = re.compile(r"\w+=\S*")


class Block(NamedTuple):
    page: str
    line: int
    language: str
    code: str
    mark: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        return not self.mark or self.mark == "slow" or self.mark.startswith("file: ")


def blocks(page: str, *languages: str) -> list[Block]:
    """Return the blocks of a page in `languages`; directives of the site, such as ``{toctree}``, are none."""
    found, mark = [], ""
    for token in MarkdownIt().parse((ROOT / page).read_text(encoding="utf-8")):
        if token.type == "fence":
            language = token.info.strip()
            if language in languages:
                found.append(Block(page, (token.map or [0])[0] + 1, language, token.content, mark))
        if token.nesting == 0 or token.type.endswith("_open"):
            comment = re.fullmatch(r"<!-- (.*) -->", token.content.strip()) if token.type == "html_block" else None
            mark = comment[1] if comment else ""
    return found


def execute(block: Block, names: dict[str, Any]) -> None:
    """Run a Python block in a page's names."""
    exec(compile(block.code, block.place, "exec", dont_inherit=True), names)


def check_python(block: Block) -> None:
    """What is not run must at least be Python that imports what there is."""
    for node in ast.walk(ast.parse(block.code, block.place)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_task2vec"):
            module = __import__(str(node.module), fromlist=["*"])
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{block.place}: {node.module} has no {', '.join(missing)}"


def lines(block: Block) -> Iterator[tuple[list[str], str]]:
    """Yield the words of each command of a shell block, without comments, and the line itself."""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words, line.strip()


def arguments(words: list[str]) -> list[str] | None:
    """Return what a command gives to our command line, or None if it is another program's."""
    words = list(dropwhile(_ASSIGNMENT.fullmatch, words))
    words = words[: words.index(">")] if ">" in words else words
    if words and _PROGRAM.fullmatch(words[0]):
        return words[1:]
    if _MODULE in words[1:] and words[words.index(_MODULE) - 1] == "-m":
        return words[words.index(_MODULE) + 1 :]
    return None


def shell(block: Block, folder: Path) -> str:
    """Run a block's commands in this process, one after the other, and return what they print."""
    outputs = []
    for words, line in lines(block):
        given = arguments(words)
        assert given is not None, f"{block.place}: {line} is no command of this package; mark the block"
        assert Path.cwd() == folder
        result = run(*given)
        assert result.exit_code == 0, f"{block.place}: {line}\n{result.output}\n{result.exception!r}"
        outputs.append(result.stdout)
        if ">" in words:
            (folder / words[words.index(">") + 1]).write_text(result.stdout, encoding="utf-8")
    return "\n".join(outputs)


def bash(code: str, folder: Path) -> str:
    """Run shell code with this environment's programs first in the path; return its standard output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", code]
    result = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{code}\n{result.stderr}"
    return result.stdout


def parse_only(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Return a runner of the command line whose commands do nothing once their arguments are understood."""
    monkeypatch.setattr("hf_task2vec.cli.command._Command.invoke", lambda command, ctx: None)
    return CliRunner(env={"HF_ENDPOINT": None, "HF_HUB_OFFLINE": None})
