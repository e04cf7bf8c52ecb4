"""``hf-task2vec select``: the main job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from hf_task2vec.cli.completers import METRICS, datasets, libraries_of_index, licences_of_index, names
from hf_task2vec.cli.console import ranking_report, say
from hf_task2vec.cli.help import Command
from hf_task2vec.cli.index_place import IndexPlace
from hf_task2vec.cli.options import (
    Quantity,
    common_options,
    dataset_options,
    given,
    index_option,
    option,
    split_commas,
)
from hf_task2vec.cli.progress import begin
from hf_task2vec.cli.session import EXIT_CODES, session


def _free_to_write(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that could not be written in the end, before the long work."""
    if path is not None and not ctx.resilient_parsing:
        folder = path.absolute().parent
        if not folder.is_dir():
            raise click.BadParameter(f"there is no folder {str(folder)!r}; make it first.", ctx, param)
        if not os.access(folder, os.W_OK):
            raise click.BadParameter(f"the folder {str(folder)!r} cannot be written to.", ctx, param)
    return path


_candidates: dict[str, Any] = {"section": "Candidates"}
_refine: dict[str, Any] = {"section": "Measuring the best"}


@click.command(cls=Command, epilog=EXIT_CODES)
@click.argument("dataset", shell_complete=datasets)
@option(
    "--top-k",
    type=click.IntRange(1),
    metavar="N",
    default=10,
    show_default=True,
    **_candidates,
    help="Candidates to show.",
)
@option(
    "--max-params",
    type=Quantity(),
    metavar="NUMBER",
    **_candidates,
    help="Most parameters a checkpoint may have, such as 30M.",
)
@option(
    "--max-gmacs",
    type=click.FloatRange(0, min_open=True),
    metavar="NUMBER",
    **_candidates,
    help="Most multiply-adds for one image, in billions.",
)
@option(
    "--license",
    "licenses",
    multiple=True,
    callback=split_commas,
    metavar="ID",
    shell_complete=licences_of_index,
    **_candidates,
    help="Licences to accept: apache-2.0, mit … (repeat, or with commas).",
)
@option(
    "--library",
    metavar="NAME",
    shell_complete=libraries_of_index,
    **_candidates,
    help="Library that loads the checkpoint: timm, transformers.",
)
@option(
    "--input-size",
    type=click.IntRange(1),
    metavar="PX",
    **_candidates,
    help="Side of the images that the checkpoint takes, in pixels.",
)
@option(
    "--candidates",
    multiple=True,
    callback=split_commas,
    metavar="ID|QUERY",
    **_candidates,
    help="Rank only these Hub ids, or those that 'author:timm license:mit params:<30M' finds (repeat, or with commas).",
)
@option(
    "--refine",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    **_refine,
    help="How many of the best to download and measure on the sample.",
)
@option(
    "--refine-bytes",
    type=Quantity(),
    metavar="SIZE",
    **_refine,
    help="Most bytes that --refine downloads, such as 2G.",
)
@option(
    "--refine-seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="NUMBER",
    **_refine,
    help="Start no measurement that would end later than this.",
)
@option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=_free_to_write,
    section="Report",
    help="Also write a page (HTML, one file) with the ranking, its reasons and some of the images.",
)
@option(
    "--no-images", "images", is_flag=True, default=True, flag_value=False, section="Report", help="No images in it."
)
@dataset_options
@index_option
@option(
    "--metric",
    metavar="NAME",
    shell_complete=names(METRICS),
    section="Computing",
    help="What predicts the accuracies [default: trained]; an unknown one lists them all.",
)
@option(
    "--no-cache",
    "cache",
    is_flag=True,
    default=True,
    flag_value=False,
    section="Computing",
    help="Make everything anew and keep nothing.",
)
@common_options
@click.pass_context
def select(
    ctx: click.Context, /, dataset: str, report: Path | None, images: bool, index: IndexPlace | None, **options: Any
) -> None:
    """Rank Hub checkpoints for DATASET.

    DATASET is a dataset on the Hub (org/name), a local folder (one folder of images per class, or parquet files), or
    sklearn:digits, an offline sample.

    \b
    hf-task2vec select org/data --max-params 30M --license apache-2.0
    hf-task2vec select ./photos --refine 3        # also measure three of the best
    hf-task2vec select ./photos --report report.html
    hf-task2vec select ./photos --candidates "author:timm license:mit params:<30M"
    hf-task2vec select sklearn:digits --quiet     # nothing but ids, the best first
    """  # noqa: D301 (click wants the control character)
    if report is None and not images:
        raise click.UsageError("--no-images goes with --report.", ctx)
    with session(ctx) as (settings, answer):
        begin("starting")
        from hf_task2vec.selection import select_backbone

        if index is not None:
            options["index"] = os.fspath(index)
        ranking = select_backbone(dataset, progress=settings.progress, **given(options))
        written = None if report is None else ranking.report(report, images=images)
        for warning in () if settings.quiet else ranking.warnings:
            say(f"warning: {warning}")
        answer(ranking_report(ranking))
        if written is not None and not settings.quiet:
            say(f"report: {written}")
