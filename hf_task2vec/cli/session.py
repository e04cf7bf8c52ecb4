"""What surrounds every command: environment, logging, a clean standard output, errors and exit codes."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

import click

from hf_task2vec.cli.console import Mode, Report, reserved_stdout, say, show
from hf_task2vec.cli.options import Settings
from hf_task2vec.cli.progress import Messages, Stages
from hf_task2vec.errors import DistributedError, HubError, SelectionError, Task2VecError, TaskError
from hf_task2vec.processes import launch

EXIT_CODES = """
\b
Exit codes:
  0    success
  1    unexpected error
  2    wrong usage of the command line
  3    the dataset, its columns, labels or images cannot be used
  4    a probe, an embedding or the index cannot be used
  5    the Hub cannot be reached, or refused the request
  6    no selection possible: no candidate satisfies the limits
  7    index build: some cells failed; the index holds the others
  130  interrupted
  141  the reader of the output went away
"""


# What there is after Ctrl-C, by command.
_KEPT = {
    "select": "downloads and finished steps are kept",
    "embed": "downloads and finished steps are kept",
    "index build": "every finished cell is kept",
    "push": "a push is one commit, there as a whole or not at all",
    "pull": "finished downloads are kept, and nothing half-written",
}
_GO_ON = "started again, the same command goes on where it was"


@contextmanager
def session(ctx: click.Context, *, shared: bool = False) -> Iterator[tuple[Settings, Callable[[Report], None]]]:
    """Run the body of a command: prepare the process, keep standard output clean, turn errors into exit codes.

    Parameters
    ----------
    ctx
        The command's context.
    shared
        The command can be shared among the processes of ``accelerate launch``; the main one answers.
    """
    settings = ctx.ensure_object(Settings)
    mode = settings.mode
    _set_environment(settings)
    if launch()[1] > 1 and not shared:
        # Said by every process, because the launcher ends all as soon as one of them ends.
        _fail("this command runs in one process: start it without accelerate launch", 2, everywhere=True)
    with reserved_stdout() as stdout:
        try:
            with Stages(show=settings.progress) as stages, _logging_to_stderr(settings, stages):
                yield settings, lambda report: _answer(report, mode, stdout, stages)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            _interrupted(ctx, stages.current)
        except Exception as error:  # noqa: BLE001 (the last place where one can be told to the user)
            if settings.debug:
                traceback.print_exc()
            # The one process where an error arose says so itself: the main one may be gone, or not have heard of it.
            own = not isinstance(error, DistributedError)
            _fail(_one_line(error), exit_code(error), everywhere=own)


def _fail(message: str, code: int, *, everywhere: bool = False) -> NoReturn:
    """End the command with one line on standard error, of the main process or of every one."""
    if everywhere or launch()[0] == 0:
        say(f"error: {' '.join(message.split())}")
    raise click.exceptions.Exit(code)


def _interrupted(ctx: click.Context, stage: str) -> NoReturn:
    """End the command after Ctrl-C: say what there is of it, and how to go on."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        sys.stderr.write("\r\x1b[2K")  # the terminal has written ^C into the bar
    command = ctx.command_path.partition(" ")[2]
    said = f"{_KEPT[command]}; {_GO_ON}" if command in _KEPT else "nothing was changed"
    if ctx.params.get("cache") is False:
        said = "with --no-cache, only what was downloaded is kept"
    if launch()[0] == 0:
        say(f"interrupted{f' ({stage})' if stage else ''}: {said}")
    raise click.exceptions.Exit(130)


def _answer(report: Report, mode: Mode, stdout: TextIO, stages: Stages) -> None:
    stages.begin("")
    if launch()[0] != 0:
        return
    try:
        show(report, mode, stdout)
    except BrokenPipeError:
        # What is still buffered goes nowhere, or the interpreter would complain of it at exit.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise click.exceptions.Exit(141) from None


def _set_environment(settings: Settings) -> None:
    if settings.endpoint:
        os.environ["HF_ENDPOINT"] = settings.endpoint.rstrip("/")
    if settings.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if not settings.progress:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def _logging_to_stderr(settings: Settings, stages: Stages) -> Iterator[None]:
    logger = logging.getLogger("hf_task2vec")
    # Without any handler, logging would write warnings to standard error.
    handler = Messages(sys.stderr) if launch()[0] == 0 else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(message)s" if settings.verbose < 2 else "%(name)s: %(message)s"))
    quiet_level = logging.ERROR if settings.quiet else logging.WARNING
    handler.setLevel({0: quiet_level, 1: logging.INFO}.get(settings.verbose, logging.DEBUG))
    before = logger.level
    logger.setLevel(logging.DEBUG)  # stages are told at this level
    handlers = (stages, handler)  # a stage ends before the message that says so
    for added in handlers:
        logger.addHandler(added)
    try:
        yield
    finally:
        for added in handlers:
            logger.removeHandler(added)
        logger.setLevel(before)


def exit_code(error: Exception) -> int:
    """Return the exit code for an error that ends a command."""
    if isinstance(error, TaskError):
        return 3
    if isinstance(error, SelectionError):
        return 6
    if isinstance(error, HubError) or _is_network_error(error):
        return 5
    return 4 if isinstance(error, Task2VecError) else 1


def _is_network_error(error: Exception) -> bool:
    # By the name of the package that defines the class or a base of it: none of them is imported for this question.
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(packages & {"httpx", "httpx2", "requests"})


def _one_line(error: Exception) -> str:
    if isinstance(error, (Task2VecError, OSError)) or _is_network_error(error):
        return str(error) or type(error).__name__
    return f"unexpected {type(error).__name__}: {error} (--debug shows the traceback)"
