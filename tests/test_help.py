"""`--help` of every command: examples that the real parser takes, sections, widths."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from hf_task2vec.cli import cli
from hf_task2vec.cli.help import Command, dressed, examples_of
from hf_task2vec.zoo import ZooIndex


def commands(command: click.Command = cli, *names: str) -> Iterator[tuple[str, ...]]:
    yield names
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, *names, name)


ALL = list(commands())


def find(names: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for name in names:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


def parse(arguments: list[str]) -> click.Context:
    """Parse as the program does, down to the last command, without running it."""
    command: click.Command = cli
    context: click.Context | None = None
    name = "hf-task2vec"
    while True:
        context = command.make_context(name, list(arguments), parent=context)
        if not isinstance(command, click.Group):
            return context
        found, child, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert child is not None
        command, name = child, str(found)


def help_of(names: tuple[str, ...], width: int) -> str:
    result = CliRunner(env={"COLUMNS": str(width)}).invoke(cli, [*names, "--help"], terminal_width=width)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_all_commands_are_looked_at() -> None:
    expected = {"select", "embed", "distance", "map", "search", "push", "pull", "index", "evaluate", "completion"}
    assert {names[0] for names in ALL if names} == expected
    assert {names[1] for names in ALL if len(names) == 2} >= {"info", "validate", "build"}


@pytest.mark.parametrize("names", ALL, ids=" ".join)
def test_every_command_has_examples_that_parse(names: tuple[str, ...]) -> None:
    examples = examples_of(find(names))
    assert examples, "no example"
    own = [arguments for arguments in examples if tuple(arguments[: len(names)]) == names]
    assert own, "no example of this very command"
    for arguments in examples:
        if "--help" in arguments:
            with pytest.raises(click.exceptions.Exit):
                parse(arguments)
        else:
            assert parse(arguments).command is not cli


@pytest.mark.parametrize("names", ALL, ids=" ".join)
def test_help_fits_eighty_columns(names: tuple[str, ...]) -> None:
    text = help_of(names, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "Examples:\n  " in text
    assert "Common options:\n" in text
    assert "Exit codes:" in text or isinstance(find(names), click.Group)
    assert "x>" not in text, "ranges are for errors"
    examples = text.split("Examples:\n")[1].split("\n\n")[0].splitlines()
    assert all(line.startswith("  ") for line in examples)
    # What is broken still pastes: a line that goes on ends with a backslash.
    for line, following in itertools.pairwise(examples):
        assert following.startswith("      ") == line.endswith("\\"), (line, following)


@pytest.mark.parametrize("width", [60, 110])
def test_help_fits_other_widths(width: int) -> None:
    for names in ALL:
        for line in help_of(names, width).splitlines():
            assert len(line) <= width or " " not in line.strip()[: width - 10] or width < 80, line


def test_options_stand_in_sections() -> None:
    text = help_of(("select",), 80)
    titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        *("Examples:", "Candidates:", "Measuring the best:", "Report:", "Dataset:", "Computing:", "Hub:", "Index:"),
        "Common options:",
    ]
    assert "--max-params" in text.split("Candidates:")[1].split("Dataset:")[0]


@pytest.mark.parametrize("name", ["distance", "map"])
def test_tasks_in_examples_are_in_the_index(name: str) -> None:
    known = set(ZooIndex.load().tasks["task"])
    named = [task for arguments in examples_of(find((name,))) for task in parse(arguments).params["tasks"]]
    assert named
    assert [task for task in named if "/" not in task and "embedding" not in task and task not in known] == []


def test_plain_commands_are_dressed_with_examples() -> None:
    @click.command()
    @click.option("--number", type=click.IntRange(1, 5), default=2, show_default=True, help="How many.")
    def plain(number: int) -> None:
        """Do something."""

    command = dressed(plain, {"plain": "hf-task2vec plain --number 3"}, "plain")
    assert isinstance(command, Command)
    assert examples_of(command) == [["plain", "--number", "3"]]
    text = CliRunner().invoke(command, ["--help"]).stdout
    assert "Examples:\n  hf-task2vec plain --number 3\n" in text
    assert "How many.  [default: 2]\n" in text
    assert not examples_of(plain), "the other object stays as it is"


def test_examples_are_read_as_a_shell_does() -> None:
    @click.command()
    def two() -> None:
        """Do something.

        \b
        # a comment
        hf-task2vec embed a -o b && hf-task2vec push b "me/a b" \\
            --private   # another
        hf-task2vec select x --json > file
        """

    assert examples_of(two) == [
        ["embed", "a", "-o", "b"],
        ["push", "b", "me/a b", "--private"],
        ["select", "x", "--json"],
    ]
