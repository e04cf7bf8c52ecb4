"""Shell completion: what Tab offers, in real shells, without the numerical libraries."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_stub import run
from click.shell_completion import ShellComplete

from hf_task2vec.cli import cli
from hf_task2vec.cli.completers import DISTANCES, METRICS
from hf_task2vec.cli.completion import SHELLS

BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def offered(*words: str) -> list[str]:
    """Return what is offered for the last of the words."""
    complete = ShellComplete(cli, {}, "hf-task2vec", "_HF_TASK2VEC_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


def kinds(*words: str) -> list[str]:
    complete = ShellComplete(cli, {}, "hf-task2vec", "_HF_TASK2VEC_COMPLETE")
    return [item.type for item in complete.get_completions(list(words[:-1]), words[-1])]


def test_the_names_written_down_are_those_of_the_code() -> None:
    from hf_task2vec.distance import DISTANCES as known_distances
    from hf_task2vec.metric import METRICS as known_metrics

    assert sorted(DISTANCES) == sorted(known_distances)
    assert sorted(METRICS) == sorted(known_metrics)


def test_commands_options_and_names() -> None:
    assert offered("dis") == ["distance"]
    assert offered("index", "v") == ["validate"]
    assert "--max-params" in offered("select", "org/data", "--max")
    assert offered("select", "x", "--metric", "s") == ["static"]
    assert offered("distance", "--kind", "asy") == ["asymmetric"]
    assert offered("search", "--near", "x", "--kind", "k") == ["kl"]
    assert offered("completion", "") == list(SHELLS)


def test_names_of_the_index() -> None:
    from hf_task2vec.zoo import ZooIndex

    zoo = ZooIndex.load()
    assert offered("distance", "") == sorted(zoo.embeddings().tasks)
    assert offered("distance", "mine", "trash") == [task for task in zoo.embeddings().tasks if task.startswith("trash")]
    assert offered("map", "trash") == offered("distance", "trash")
    licences = offered("select", "x", "--license", "")
    assert licences[:2] == ["apache-2.0", "mit"], "the most frequent first"
    assert set(licences) == set(zoo.checkpoints["license"].dropna())
    assert set(offered("select", "x", "--library", "")) == set(zoo.checkpoints["library"].dropna())


def test_the_last_of_several_with_commas() -> None:
    assert offered("select", "x", "--license", "mit,bsd") == ["mit,bsd-3-clause"]
    assert offered("select", "x", "--license", "mit", "--license", "bsd") == ["bsd-3-clause"]


def test_the_index_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks.csv").write_text("task,embedded\nmy-task,true\nmy-other,false\n", encoding="utf-8")
    assert offered("distance", "--index", str(tmp_path), "my") == ["my-task"]
    # One that cannot be read offers files and no traceback.
    (tmp_path / "tasks.csv").write_bytes(b"\xff\xfe\x00")
    assert kinds("distance", "--index", str(tmp_path), "my") == ["file"]
    assert kinds("distance", "--index", "org/on-the-hub", "my") == ["file"]


def test_files_and_folders_are_left_to_the_shell() -> None:
    assert kinds("select", "./pho") == ["dir"]
    assert offered("select", "sk") == ["sklearn:digits"]
    assert kinds("embed", "x", "--output", "") == ["dir"]
    assert kinds("select", "x", "--index", "") == ["dir"]
    assert kinds("push", "") == ["file"]
    assert kinds("distance", "./mine") == ["file"]


def test_tab_imports_no_numerical_library() -> None:
    code = (
        "import atexit, sys\n"
        "heavy = {'numpy', 'pandas', 'torch', 'sklearn', 'datasets', 'huggingface_hub', 'pydantic', 'rich'}\n"
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        "from hf_task2vec.cli import main; main()\n"
    )
    for words in ("hf-task2vec distance trash", "hf-task2vec select x --license b", "hf-task2vec se"):
        variables = {"_HF_TASK2VEC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **variables}
        )
        assert result.stdout.startswith("plain,"), result.stderr
        assert result.stderr == "[]\n"


# ----------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("shell", SHELLS)
def test_script(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_HF_TASK2VEC_COMPLETE={shell}_complete" in result.stdout
    assert run("completion", shell, "--quiet").stdout == result.stdout


def test_shell_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert run("completion").stdout == run("completion", "zsh").stdout
    monkeypatch.setenv("SHELL", "/bin/dash")
    result = run("completion")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "$SHELL is 'dash'; name one of bash, zsh, fish." in result.stderr


# ----------------------------------------------------------------------------------------------------- real shells


def installed(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return path


def typed(command: list[str], lines: list[str], expected: str, seconds: float = 30) -> str:
    """Type lines into an interactive shell until `expected` is on its screen; return all that it wrote.

    A line goes in when the shell is quiet, or it would be echoed by the terminal and not read by the line editor.
    """
    terminal, shell_end = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "dumb", "PS1": "$ ", "INPUTRC": "/dev/null"}
    take_terminal = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", take_terminal, *command],
        **dict.fromkeys(("stdin", "stdout", "stderr"), shell_end),  # type: ignore[call-overload]
        env=environment,
        start_new_session=True,
    )
    os.close(shell_end)
    written, waiting, deadline = b"", list(lines), time.monotonic() + seconds
    try:
        while time.monotonic() < deadline and expected.encode() not in written:
            if select.select([terminal], [], [], 1.0)[0]:
                written += os.read(terminal, 65536)
            elif waiting:
                os.write(terminal, waiting.pop(0).encode())
    finally:
        os.close(terminal)  # hangs up, which ends the shell
        process.wait(timeout=30)
    return written.decode(errors="replace")


def test_bash() -> None:
    lines = ['eval "$(hf-task2vec completion bash)"; echo rea""dy\n', "hf-task2vec dist\t", "trashn\t"]
    written = typed([installed("bash"), "--norc", "--noprofile", "-i"], lines, "trashnet")
    assert "hf-task2vec distance trashnet" in written.replace("\x07", "")


def test_zsh(tmp_path: Path) -> None:
    start = f"autoload -Uz compinit; compinit -D -u -d {tmp_path}/dump; unsetopt prompt_sp; PS1='$ '\n"
    lines = [start, 'eval "$(hf-task2vec completion zsh)"; echo rea""dy\n', "hf-task2vec dist\t", "trashn\t"]
    written = typed([installed("zsh"), "-f", "-i"], lines, "trashnet")
    assert "trashnet" in written
    assert "distance" in written


def test_fish(tmp_path: Path) -> None:
    code = (
        "hf-task2vec completion fish | source; complete -C 'hf-task2vec distance trashn'; complete -C 'hf-task2vec dis'"
    )
    result = subprocess.run(
        [installed("fish"), "--no-config", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, "HOME": str(tmp_path)},
    )
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["trashnet", "distance"], result.stderr
