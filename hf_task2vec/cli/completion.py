"""``hf-task2vec completion``: the script that completes the command line in a shell."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from hf_task2vec.cli.console import Report
from hf_task2vec.cli.help import PROGRAM, Command
from hf_task2vec.cli.options import common_options
from hf_task2vec.cli.session import EXIT_CODES, session

SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command, epilog=EXIT_CODES, short_help="Complete commands and names in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@common_options
@click.pass_context
def completion(ctx: click.Context, /, shell: str | None) -> None:
    """Print the script that completes commands, options and names in SHELL (default: the one of $SHELL).

    Every new shell loads it if its start-up file says so:

    \b
    ~/.bashrc                   eval "$(hf-task2vec completion bash)"
    ~/.zshrc, after compinit    eval "$(hf-task2vec completion zsh)"
    ~/.config/fish/config.fish  hf-task2vec completion fish | source

    Tab then completes commands, options, folders, metrics, distances, licences, libraries, and the tasks of the index
    (of that which --index names before).

    \b
    hf-task2vec completion bash > ~/.local/share/bash-completion/completions/hf-task2vec
    hf-task2vec completion zsh > ~/.zfunc/_hf-task2vec       # a folder of $fpath
    hf-task2vec completion fish > ~/.config/fish/completions/hf-task2vec.fish
    """  # noqa: D301 (click wants the control character)
    with session(ctx) as (_, answer):
        found = shell or Path(os.environ.get("SHELL", "")).name
        kind = get_completion_class(found) if found in SHELLS else None
        if kind is None:
            raise click.UsageError(f"$SHELL is {found!r}; name one of {', '.join(SHELLS)}.", ctx)
        script = kind(ctx.find_root().command, {}, PROGRAM, "_HF_TASK2VEC_COMPLETE").source()
        answer(Report({"shell": found, "script": script}, script.splitlines(), (), (), text=script.rstrip() + "\n"))
