"""How ``--help`` looks: what the command does, examples, options in sections.

A paragraph of a docstring that keeps its lines (click's backspace mark) and holds commands becomes the examples.
"""

from __future__ import annotations

import inspect
import itertools
import re
import shlex
import textwrap
from typing import Any

import click

PROGRAM = "hf-task2vec"
_COMMON = "Common options"
_COMMENT: dict[str, Any] = {"initial_indent": "# ", "subsequent_indent": "# "}
# Click says "[x>=1]": the name of the value says what it is, and an error says the rest.
_RANGE = re.compile(r"(; |(?<=\[))[-\d.]*(<=?)?x[<>]=?[-\d.]+(?=\])")
_ENDS = ("&&", "|", ">")


class Option(click.Option):
    """An option that `--help` lists under a heading of its own."""

    def __init__(self, *args: Any, section: str = "Options", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.section = section


class Command(click.Command):
    """A command whose help has examples and sections."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the paragraphs that are no examples."""
        text = "\n\n".join(part for part in _paragraphs(self) if not _is_example(part))
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and the options in sections."""
        _write_examples(self, formatter)
        _write_options(self, ctx, formatter)


class Group(Command, click.Group):
    """A group whose help has examples and sections, and its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, the commands, and the options in sections."""
        _write_examples(self, formatter)
        self.format_commands(ctx, formatter)
        _write_options(self, ctx, formatter)


def dressed(command: click.Command, examples: dict[str, str], name: str = "") -> click.Command:
    """Return a copy of a plain command whose help looks like that of all others.

    Parameters
    ----------
    command
        A command or group, with the commands in it.
    examples
        Examples by the command's full name, for those whose docstring has none.
    name
        The command's full name without the program's, such as ``"index info"``.
    """
    kind = Group if isinstance(command, click.Group) else Command
    copy = kind.__new__(kind)
    vars(copy).update(vars(command))
    if name in examples and not examples_of(command):
        copy.help = f"{inspect.cleandoc(command.help or '')}\n\n\b\n{examples[name]}"
    if isinstance(copy, click.Group):
        copy.commands = {
            child: dressed(found, examples, f"{name} {child}".strip()) for child, found in copy.commands.items()
        }
    return copy


def examples_of(command: click.Command) -> list[list[str]]:
    """Return the arguments of every example, without the program's name; one line may hold several with ``&&``."""
    found: list[list[str]] = []
    for part in filter(_is_example, _paragraphs(command)):
        for line in part.removeprefix("\b\n").replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            starts = [i for i, word in enumerate(words) if word == PROGRAM]
            for start, end in itertools.pairwise([*starts, len(words)]):
                found.append(list(itertools.takewhile(lambda word: word not in _ENDS, words[start + 1 : end])))
    return found


def _paragraphs(command: click.Command) -> list[str]:
    return inspect.cleandoc(command.help or "").partition("\f")[0].split("\n\n")


def _is_example(paragraph: str) -> bool:
    return paragraph.startswith("\b\n") and any(line.startswith(PROGRAM) for line in paragraph.splitlines())


def _write_examples(command: click.Command, formatter: click.HelpFormatter) -> None:
    # Joined first, and broken where it fits: the docstring has another width.
    parts = [re.sub(r" *\\\n *", " ", part.removeprefix("\b\n")) for part in _paragraphs(command) if _is_example(part)]
    if not parts:
        return
    lines = [folded for part in parts for line in part.splitlines() for folded in _fold(line, formatter.width - 2)]
    with formatter.section("Examples"):
        formatter.write_text("\b\n" + "\n".join(lines))


def _fold(line: str, width: int) -> list[str]:
    """Break a command that is too long where an option starts, so that it can still be pasted into a shell."""
    command, mark, comment = line.partition("  #")
    if len(line) > width and mark:
        return [*textwrap.wrap(comment.strip(), width, **_COMMENT), *_fold(command.rstrip(), width)]
    if len(line) <= width or not line.startswith(PROGRAM):
        return [line]
    first, *options = re.split(r" (?=&& |> |--)", line)
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) + 3 > width:
            lines[-1] += " \\"
            lines.append(f"    {option}")
        else:
            lines[-1] += f" {option}"
    return lines


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and not isinstance(parameter, click.Argument):
            last = parameter.name == "help" or not parameter.expose_value
            title = _COMMON if last else getattr(parameter, "section", "Options")
            sections.setdefault(title, []).append((record[0], _RANGE.sub("", record[1]).replace("  []", "")))
    # One column of names for all sections.
    wide = max((len(names) for records in sections.values() for names, _ in records), default=0)
    for title in sorted(sections, key=lambda title: title == _COMMON):
        with formatter.section(title):
            formatter.write_dl([(names.ljust(min(wide, 26)), text) for names, text in sections[title]])
