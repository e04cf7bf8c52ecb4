"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click

from hf_task2vec.cli.command import options


class Quantity(click.ParamType):
    """A positive number that may carry a unit: ``30M``, ``1.2B``, ``500k``, ``5e6``, ``8GB``."""

    name = "number"
    _factors = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}  # noqa: RUF012 (never changed)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the whole number that `value` stands for."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d*)?(?:e\+?\d{1,2})?)\s*(?:([KMG])B?|(B?))", value.strip(), re.IGNORECASE)
        number = round(float(match[1]) * self._factors[(match[2] or match[3]).upper()]) if match else 0
        if number < 1:
            self.fail(f"{value!r} is not a positive number such as 30M, 1.2B or 5e6.", param, ctx)
        return number


class CountOrAll(click.IntRange):
    """A number of images; the word ``all`` is None."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or None."""
        return None if value == "all" else super().convert(value, param, ctx)


def split_commas(ctx: click.Context, param: click.Parameter, values: Iterable[str]) -> list[str] | None:
    """Return the items of a repeatable option whose values may also be lists with commas."""
    return [item for value in values for item in map(str.strip, value.split(",")) if item] or None


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given or have a default here; the library knows the other defaults."""
    return {name: value for name, value in options.items() if value is not None}


POSITIVE = click.FloatRange(0, min_open=True)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help="The same seed draws the same images.",
)
device_option = click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps … [default: the best there is].")
token_option = click.option(
    "--token", metavar="TOKEN", help="Token for the Hub [default: the one you are logged in with]."
)
hub_options = options(
    click.option(
        "--timeout",
        type=POSITIVE,
        metavar="SECONDS",
        help="Time that the whole may take [env: HF_TASK2VEC_HUB_TIMEOUT; default: 300].",
    ),
    token_option,
)
run_options = options(
    seed_option,
    device_option,
    click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Images in one pass of the network."),
    token_option,
)
dataset_options = options(
    click.option("--split", metavar="NAME", help="Split to use [default: train, or the only one]."),
    click.option("--name", metavar="NAME", help="Configuration of a dataset that has several."),
    click.option("--revision", metavar="REVISION", help="Branch, tag or commit of a dataset on the Hub."),
    click.option("--image-column", metavar="COLUMN", help="Column of the images [default: found by its type]."),
    click.option("--label-column", metavar="COLUMN", help="Column of the labels [default: found by its type]."),
    click.option(
        "--labels-from",
        metavar="PLACE",
        help="Of a folder that can be read in several ways: folders, subfolders (the innermost), names (of the "
        "files, up to their number), the name of a table in it, or a column.",
    ),
    click.option("--streaming", is_flag=True, help="Read the dataset row by row, without downloading all of it."),
    click.option(
        "--max-samples", type=click.IntRange(1), metavar="N", default=256, show_default=True, help="Images to look at."
    ),
    click.option(
        "--probe",
        metavar="CHECKPOINT",
        help="Network that looks at the images [default: the one the index was made with].",
    ),
    run_options,
)
kind_option = click.option(
    "--kind",
    type=click.Choice(("log_correlation", "cosine", "symmetric", "asymmetric")),
    metavar="NAME",
    default="log_correlation",
    show_default=True,
    help="Distance; an unknown name lists them all.",
)
index_option = click.option(
    "--index",
    type=click.Path(),
    metavar="PLACE",
    help="Index to use: a folder, or org/name[@revision] on the Hub [default: the shipped one].",
)
