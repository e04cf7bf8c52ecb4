"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from hf_task2vec.cli.completers import DISTANCES, folders, names
from hf_task2vec.cli.console import Mode
from hf_task2vec.cli.help import Option
from hf_task2vec.cli.index_place import as_place
from hf_task2vec.processes import launch


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
        """Whether progress bars are drawn (on standard error, by the main process)."""
        return sys.stderr.isatty() and not self.quiet and launch()[0] == 0


class Quantity(click.ParamType):
    """A positive number that may carry a unit: ``30M``, ``1.2B``, ``500k``, ``5e6``."""

    name = "number"
    _factors = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}  # noqa: RUF012 (never changed)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the whole number that `value` stands for."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\+?\d{1,2})?)\s*([KMBG]?)", value.strip(), re.IGNORECASE)
        number = round(float(match[1]) * self._factors[match[2].upper()]) if match else 0
        if number < 1:
            self.fail(f"{value!r} is not a positive number such as 30M, 1.2B or 5e6.", param, ctx)
        return number


class SampleCount(click.ParamType):
    """A number of images, or a word instead."""

    name = "number"

    def __init__(self, word: str, least: int = 1) -> None:
        self._word, self._number = word, click.IntRange(least)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or the word."""
        return self._word if value == self._word else self._number.convert(value, param, ctx)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    settings = ctx.ensure_object(Settings)
    if value and param.name:
        setattr(settings, param.name, value)


def _check_endpoint(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None and not re.match(r"https?://[^/]", value):
        raise click.BadParameter(f"{value!r} is no address such as https://huggingface.co.", ctx, param)
    _remember(ctx, param, value)


def split_commas(ctx: click.Context, param: click.Parameter, values: Iterable[str]) -> list[str] | None:
    """Return the items of a repeatable option whose values may also be lists with commas."""
    return [item for value in values for item in map(str.strip, value.split(",")) if item] or None


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given or have a default here; the library knows the other defaults."""
    return {name: value for name, value in options.items() if value is not None}


_Command = TypeVar("_Command", bound=Callable[..., Any])


def option(*names: str, **settings: Any) -> Callable[[_Command], _Command]:
    """Return the decorator of an option; ``section=`` is the heading that it stands under in `--help`."""
    return click.option(*names, cls=Option, **settings)


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Return one decorator for several options, shown in `--help` in this order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_common: dict[str, Any] = {"expose_value": False, "callback": _remember}
common_options = _options(
    option("--json", "as_json", is_flag=True, **_common, help="Print one JSON document and nothing else."),
    option("-q", "--quiet", is_flag=True, **_common, help="Print bare results only, one a line."),
    option("-v", "--verbose", count=True, **_common, help="Say more on standard error (-vv: everything)."),
    option("--debug", is_flag=True, **_common, help="Show the traceback of an error."),
    option(
        "--endpoint", metavar="URL", expose_value=False, callback=_check_endpoint, help="Hub to use [env: HF_ENDPOINT]."
    ),
    option("--offline", is_flag=True, **_common, help="Make no network request (as HF_HUB_OFFLINE=1 does)."),
)

_hub: dict[str, Any] = {"section": "Hub"}
_token_option = option(
    "--token", metavar="TOKEN", **_hub, help="Token for the Hub [default: the one you are logged in with]."
)
hub_options = _options(
    option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        metavar="SECONDS",
        **_hub,
        help="Time that the whole may take [env: HF_TASK2VEC_HUB_TIMEOUT; default: 300].",
    ),
    _token_option,
)
_work: dict[str, Any] = {"section": "Computing"}
run_options = (
    option(
        "--seed",
        type=click.IntRange(0),
        metavar="N",
        default=0,
        show_default=True,
        **_work,
        help="The same seed draws the same images.",
    ),
    option("--device", metavar="NAME", **_work, help="cpu, cuda, cuda:1, mps … [default: the best there is]."),
    option("--batch-size", type=click.IntRange(1), metavar="N", **_work, help="Images in one pass of the network."),
    _token_option,
)
_data: dict[str, Any] = {"section": "Dataset"}
_column: dict[str, Any] = {"section": "Dataset", "metavar": "COLUMN"}
dataset_options = _options(
    option("--split", metavar="NAME", **_data, help="Split to use [default: train, or the only one]."),
    option("--name", metavar="NAME", **_data, help="Configuration of a dataset that has several."),
    option("--revision", metavar="REVISION", **_data, help="Branch, tag or commit of a dataset on the Hub."),
    option("--image-column", **_column, help="Column of the images [default: found by its type]."),
    option("--label-column", **_column, help="Column of the labels [default: found by its type]."),
    option("--streaming", is_flag=True, **_data, help="Read the dataset row by row, without downloading all of it."),
    option(
        "--max-samples",
        type=click.IntRange(1),
        metavar="N",
        default=256,
        show_default=True,
        **_data,
        help="Images to look at.",
    ),
    option(
        "--probe",
        metavar="CHECKPOINT",
        **_work,
        help="Network that looks at the images [default: the one the index was made with].",
    ),
    *run_options,
)
_cluster: dict[str, Any] = {"section": "Cluster"}
build_options = _options(
    option(
        "--tasks",
        multiple=True,
        required=True,
        callback=split_commas,
        metavar="DATASET|FILE.csv",
        help="Datasets, or a file with one a row and its columns (repeat, or with commas).",
    ),
    option(
        "--checkpoints",
        multiple=True,
        required=True,
        callback=split_commas,
        metavar="ID|FILE.txt",
        help="Hub ids or folders, or a file with one a line (repeat, or with commas).",
    ),
    option(
        "--base",
        metavar="PLACE|shipped",
        callback=lambda ctx, param, value: value if value == "shipped" else as_place(ctx, param, value),
        help="Index to extend, a folder or org/name[@revision] on the Hub [default: start a new one].",
    ),
    option("--cache", metavar="PATH", help="Folder of the finished cells [default: in the cache folder]."),
    option(
        "--max-samples",
        type=SampleCount("all", 2),
        metavar="N|all",
        default=1000,
        show_default=True,
        help="Images of each split to measure on.",
    ),
    option("--no-embed", "embed", is_flag=True, default=True, flag_value=False, help="Do not embed the tasks."),
    option("--probe", metavar="CHECKPOINT", help="Probe of a new index [default: the built-in one]."),
    option("--keep-features", is_flag=True, help="Keep the features in the cache."),
    option("--retry-failed", is_flag=True, help="Try cells again that failed at an earlier start."),
    option(
        "--ray-address",
        metavar="ADDRESS",
        **_cluster,
        help="Work on a Ray cluster: auto, HOST:6379, or local (needs the extra [ray]).",
    ),
    option(
        "--gpus-per-cell",
        type=click.FloatRange(0),
        metavar="NUMBER",
        **_cluster,
        help="GPUs that a cell needs, such as 0.25 [default: 0].",
    ),
    option(
        "--cpus-per-cell",
        type=click.FloatRange(0, min_open=True),
        metavar="NUMBER",
        **_cluster,
        help="CPU cores that a cell needs [default: 1].",
    ),
    *run_options,
)
kind_option = option(
    "--kind",
    metavar="NAME",
    default="log_correlation",
    show_default=True,
    shell_complete=names(DISTANCES),
    help="Distance; an unknown name lists them all.",
)
index_option = option(
    "--index",
    metavar="PLACE",
    callback=as_place,
    shell_complete=folders,
    section="Index",
    help="Index to use: a folder, or org/name[@revision] on the Hub [default: the shipped one].",
)
