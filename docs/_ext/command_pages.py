"""A page of the command line: the help of every command, read from the commands themselves when the site is built.

The page is the document `PAGE`, which says where: the comment ``<!-- commands -->`` is replaced.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGE, MARK = "commands", "<!-- commands -->"
# Ranges of numbers, which click writes as "[x>=1]": the sentence says what the value is.
_RANGE = re.compile(r"(; |(?<=\[))[-\d.]*(<=?)?x[<>]=?[-\d.]+(?=\])")


def sections(command: click.Command, context: click.Context, level: int = 2) -> Iterator[str]:
    """Yield the Markdown of a command, its options, and its subcommands in the order of ``--help``."""
    yield f"{'#' * level} {context.command_path}"
    if not isinstance(command, click.Group) or level > 2:
        yield f"```text\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```"
    yield _prose(command.help or "")
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from sections(child, click.Context(child, info_name=name, parent=context), level + 1)


def _shown(parameter: click.Parameter, context: click.Context) -> bool:
    """Options that every command has are shown once, at the program's own entry."""
    common = {option.name for option in context.find_root().command.params}
    return isinstance(parameter, click.Option) and (context.parent is None or parameter.name not in common)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield the options under the headings that ``--help`` gives them."""
    parts: dict[str, list[str]] = {}
    for parameter in command.params:
        record = parameter.get_help_record(context) if _shown(parameter, context) else None
        if record is not None:
            text = _RANGE.sub("", record[1]).replace("  []", "")
            parts.setdefault(getattr(parameter, "section", "Options"), []).append(f"`{record[0]}`\n: {_escape(text)}")
    for title, entries in parts.items():
        yield f"**{title}**"
        yield "\n\n".join(entries)


def _prose(text: str) -> str:
    """Click marks text that keeps its lines with a backspace character."""
    paragraphs = inspect.cleandoc(text).partition("\f")[0].split("\n\n")
    return "\n\n".join(
        "```bash\n" + paragraph.replace("\b\n", "") + "\n```" if "\b" in paragraph else _escape(paragraph)
        for paragraph in paragraphs
    )


def _escape(text: str) -> str:
    r"""Keep ``<``, ``*`` and ``[`` of plain text from meaning something in Markdown; code in backticks stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if i % 2 else re.sub(r"([<>*_\[\]|])", r"\\\1", part) for i, part in enumerate(parts))


def page() -> str:
    """Return the Markdown of all commands."""
    from hf_task2vec.cli.commands import cli

    return "\n\n".join(sections(cli, click.Context(cli, info_name="hf-task2vec", max_content_width=110)))


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the commands into their page (the event ``source-read``)."""
    if docname == PAGE:
        source[0] = source[0].replace(MARK, page())


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hook."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
