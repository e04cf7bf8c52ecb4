"""A page of the command line: the help of every command, read from the commands themselves when the site is built.

The page is the document `PAGE`, which says where: the comment ``<!-- commands -->`` is replaced.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGE, MARK = "commands", "<!-- commands -->"
EXAMPLES = "\b\nExamples:\n"  # click keeps the lines after a backspace character


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
    records = [parameter.get_help_record(context) for parameter in command.params if _shown(parameter, context)]
    yield "\n\n".join(f"`{record[0]}`\n: {_escape(record[1])}" for record in records if record is not None)


def _prose(text: str) -> str:
    paragraphs = inspect.cleandoc(text).partition("\f")[0].split("\n\n")
    return "\n\n".join(
        f"```bash\n{textwrap.dedent(paragraph.removeprefix(EXAMPLES))}\n```"
        if paragraph.startswith(EXAMPLES)
        else _escape(paragraph)
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
