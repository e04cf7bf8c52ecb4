"""What surrounds every command: common options, environment, a clean standard output, errors and exit codes."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import click

from hf_task2vec.cli.console import Mode, show
from hf_task2vec.errors import HubError, SelectionError, Task2VecError, TaskError
from hf_task2vec.files import system_cause, temporary_home, why
from hf_task2vec.fisher import launch
from hf_task2vec.tasks import printable, shown

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
  8    the answer is complete, but a file asked for cannot be written
  130  interrupted
"""
_NOT_WRITTEN = 8
_LONGEST = 400  # characters of a message
_STAGES = ("hf_task2vec.tasks.progress", "hf_task2vec.hub.client")  # say which stage of the work begins, or begins anew
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Made = TypeVar("_Made", bound=click.Command)


@dataclass
class Settings:
    """The options of every command; they may stand before or after its name."""

    as_json: bool = False
    quiet: bool = False
    verbose: int = 0
    debug: bool = False
    endpoint: str | None = None
    offline: bool = False

    @property
    def mode(self) -> Mode:
        """How the answer is written to standard output."""
        if self.as_json and self.quiet:
            raise click.UsageError("--json and --quiet exclude each other.")
        return "json" if self.as_json else "quiet" if self.quiet else "human"

    @property
    def progress(self) -> bool:
        """Whether progress is told (on standard error, by the main process)."""
        return not self.quiet and launch()[0] == 0

    @property
    def bars(self) -> bool:
        """Whether that is done by bars, not by lines."""
        return self.progress and sys.stderr.isatty()


def options(*decorators: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    """Return one decorator for several options, shown by `--help` in this order."""

    def decorate(function: _Function) -> _Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and param.name:
        setattr(ctx.ensure_object(Settings), param.name, value)


def _check_endpoint(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None and not re.match(r"https?://[^/]", value):
        raise click.BadParameter(f"{value!r} is no address such as https://huggingface.co.", ctx, param)
    _remember(ctx, param, value)


_kept: dict[str, Any] = {"expose_value": False, "callback": _remember}
_COMMON_OPTIONS: tuple[Callable[[click.Command], click.Command], ...] = (
    click.option("--json", "as_json", is_flag=True, **_kept, help="Print one JSON document and nothing else."),
    click.option("-q", "--quiet", is_flag=True, **_kept, help="Print bare results only, one a line."),
    click.option("-v", "--verbose", count=True, **_kept, help="Say more on standard error (-vv: everything)."),
    click.option("--debug", is_flag=True, **_kept, help="Show the traceback of an error."),
    click.option(
        "--endpoint", metavar="URL", expose_value=False, callback=_check_endpoint, help="Hub to use [env: HF_ENDPOINT]."
    ),
    click.option("--offline", is_flag=True, **_kept, help="Make no network request (as HF_HUB_OFFLINE=1 does)."),
)


class _Command(click.Command):
    """A command whose function returns a :class:`Report`, which is shown in the form asked for."""

    #: Whether it can be shared among the processes of ``accelerate launch``; the main one answers.
    shared = False

    def invoke(self, ctx: click.Context) -> None:
        settings = ctx.ensure_object(Settings)
        mode = settings.mode
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(
                    errors="replace"
                )  # where an encoding lacks a character, a ? is better than no answer
        _set_environment(settings)
        if launch()[1] > 1 and not self.shared:
            # Said by every process, because the launcher ends all as soon as one of them ends.
            _fail("this command runs in one process: start it without accelerate launch", 2)
        try:
            # Whatever libraries print, a JSON document stays the only thing in the pipe.
            with contextlib.redirect_stdout(sys.stderr), _logging(settings):
                _find_home()
                report = super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except KeyboardInterrupt:
            kind = "\ninterrupted" if sys.stderr.isatty() else "interrupted"  # the terminal has written ^C
            _fail("finished downloads and measurements are kept, and nothing is half-written", 130, kind)
        except Exception as error:  # noqa: BLE001 (the last place where one can be told to the user)
            if settings.debug:
                traceback.print_exc()
            _fail(_one_line(error), _exit_code(error))
        if launch()[0] == 0:
            show(report, mode, sys.stdout)
        ctx.exit(report.exit_code)


def command(name: str | None = None, *, shared: bool = False, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return the decorator of a command; see :class:`_Command`."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        # click keeps the options of the first help, which may be asked of the command alone.
        own = {"help_option_names": ["-h", "--help"]}
        made = click.command(name, cls=_Command, epilog=EXIT_CODES, context_settings=own, **settings)(function)
        made.shared = shared
        return _with_common_options(made)

    return decorate


class _Group(click.Group):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def group(**settings: Any) -> Callable[[Callable[..., Any]], click.Group]:
    """Return the decorator of a group of commands, which takes the common options too."""
    return lambda function: _with_common_options(click.group(cls=_Group, **settings)(function))


def _with_common_options(made: _Made) -> _Made:
    for option in _COMMON_OPTIONS:
        option(made)
    return made


def _fail(message: str, code: int, kind: str = "error") -> NoReturn:
    """End the command with one line on standard error."""
    text = shown(_in_options(" ".join(message.split())), _LONGEST)
    click.echo(f"{kind}: {text}", err=True)
    raise click.exceptions.Exit(code)


def _in_options(text: str) -> str:
    """Write arguments of Python that a message names as the options of the command that runs."""
    context = click.get_current_context(silent=True)
    for parameter in context.command.params if context is not None else ():
        if isinstance(parameter, click.Option) and parameter.name is not None:
            option, name = parameter.opts[0], parameter.name
            text = re.sub(rf"(?<![\w-]){name}=(?=\S)", f"{option} ", text)
            if "_" in name:
                text = re.sub(rf"(?<![\w/-]){name}(?![\w/])", option, text)
    return text


def _exit_code(error: Exception) -> int:
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
    cause = system_cause(error)
    if cause is not None and not isinstance(error, Task2VecError):
        place = f"{os.fsdecode(cause.filename)}: " if isinstance(cause.filename, (str, bytes)) else ""
        return f"{place}{why(cause)}. Mend that, or if it is a cache, set HF_HOME to a folder that can be written to"
    if isinstance(error, (Task2VecError, OSError)) or _is_network_error(error):
        return str(error) or type(error).__name__
    return f"unexpected {type(error).__name__}: {error} (--debug shows the traceback)"


def written(write: Callable[[], object]) -> int:
    """Write a file beside the answer, which is shown all the same where that fails; return the exit code."""
    try:
        write()
    except (Task2VecError, OSError) as error:
        logging.getLogger(__name__).error("error: %s", _one_line(error))
        return _NOT_WRITTEN
    return 0


def _find_home() -> None:
    """Give the Hugging Face libraries a folder for this run where theirs cannot be made."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.path.expandvars(os.path.expanduser(os.environ.get("HF_HOME") or f"{cache}/huggingface"))  # noqa: PTH111
    reason = "no home folder is known"
    if not home.startswith("~"):
        try:
            os.makedirs(home, exist_ok=True)  # noqa: PTH103 (what lies in it may still be read-only, and used)
            return
        except OSError as error:
            reason = f"{home} cannot be made ({why(error)})"
    os.environ["HF_HOME"] = str(temporary_home(reason))


def _set_environment(settings: Settings) -> None:
    """Set what the Hugging Face libraries read when they are imported."""
    if settings.endpoint:
        os.environ["HF_ENDPOINT"] = settings.endpoint.rstrip("/")
    if settings.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if not settings.bars:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if not settings.verbose:  # what they try again and take from a cache, this program says itself
        os.environ.setdefault("HF_HUB_VERBOSITY", "critical")
        os.environ.setdefault("DATASETS_VERBOSITY", "error")


@contextlib.contextmanager
def _logging(settings: Settings) -> Iterator[None]:
    """Write the package's messages to standard error, above the progress bars if there are any."""
    logger = logging.getLogger("hf_task2vec")
    least = {0: logging.ERROR if settings.quiet else logging.WARNING, 1: logging.INFO}.get(
        settings.verbose, logging.DEBUG
    )
    if launch()[0] != 0:
        least = logging.CRITICAL + 1
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(message)s" if settings.verbose < 2 else "%(name)s: %(message)s"))
    said: set[str] = set()
    by_line = settings.progress and not settings.bars

    def is_told(record: logging.LogRecord) -> bool:
        return record.levelno >= least or (by_line and record.name in _STAGES)

    handler.addFilter(lambda record: is_told(record) and not _repeats(record, said))
    before = logger.level
    logger.setLevel(min(least, logging.INFO))
    logger.addHandler(handler)
    try:
        with contextlib.ExitStack() as stack:
            if settings.bars:
                from tqdm.contrib.logging import logging_redirect_tqdm

                stack.enter_context(logging_redirect_tqdm([logger]))
                if not settings.verbose:
                    logger.addHandler(stack.enter_context(contextlib.closing(_Status())))
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _repeats(record: logging.LogRecord, said: set[str]) -> bool:
    """Say whether a warning came before: what is met while reading stands in the answer too."""
    text = record.getMessage().removeprefix("warning: ")
    if record.levelno != logging.WARNING or text not in said:
        said.add(text)
        return False
    return True


class _Lines(logging.Formatter):
    """Messages of the library as the command line says them."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _in_options("\n".join(map(printable, super().formatMessage(record).split("\n"))))


class _Status(logging.Handler):
    """Shows the latest message that is not worth a line of its own, on one line that is erased in the end."""

    def __init__(self) -> None:
        from tqdm import tqdm

        super().__init__(logging.INFO)
        self._line = tqdm(bar_format="{desc}", leave=False, file=sys.stderr)
        self._show("starting")

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            self._show(record.getMessage())

    def _show(self, text: str) -> None:
        self._line.set_description_str(text[: shutil.get_terminal_size().columns - 1])

    def close(self) -> None:
        self._line.close()
        super().close()
