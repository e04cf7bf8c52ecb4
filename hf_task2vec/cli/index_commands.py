"""The commands on zoo indexes: look into one, check one, build one."""

from __future__ import annotations

from typing import Any

import click

from hf_task2vec.cli.console import facts_report
from hf_task2vec.cli.options import build_options, common_options, given
from hf_task2vec.cli.session import EXIT_CODES, session
from hf_task2vec.errors import ZooIndexError

SOME_FAILED = 7


@click.group()
@common_options
def index() -> None:
    """Look into a zoo index (checkpoints, tasks, scores, embeddings), or build one."""


_index_path = click.argument("path", required=False)


@index.command(epilog=EXIT_CODES)
@_index_path
@common_options
@click.pass_context
def info(ctx: click.Context, /, path: str | None) -> None:
    """Say what the index at PATH (default: the shipped one) holds."""
    with session(ctx) as (_, answer):
        from hf_task2vec.zoo import ZooIndex

        facts = ZooIndex.load(path).info()
        answer(facts_report(facts, [f"{table}\t{rows}" for table, rows in facts["counts"].items()]))


@index.command(epilog=EXIT_CODES)
@_index_path
@common_options
@click.pass_context
def validate(ctx: click.Context, /, path: str | None) -> None:
    """Check every row, reference and checksum of the index at PATH (default: the shipped one)."""
    with session(ctx) as (_, answer):
        from hf_task2vec.zoo import ZooIndex

        zoo = ZooIndex.load(path)
        if problems := zoo.validate():
            click.echo("\n".join(problems), err=True)
            raise ZooIndexError(f"{len(problems)} of the index's facts are wrong or do not agree (listed above)")
        answer(facts_report({"valid": True, **zoo.info()}))


@index.command(epilog=EXIT_CODES)
@click.argument("out")
@build_options
@common_options
@click.pass_context
def build(
    ctx: click.Context,
    /,
    out: str,
    base: str | None,
    max_samples: int | str,
    dry_run: bool,
    ray_address: str | None,
    gpus_per_cell: float | None,
    cpus_per_cell: float | None,
    **options: Any,
) -> None:
    """Measure checkpoints on tasks and write an index to OUT, for `select --index OUT`.

    Every finished pair is kept: started again after whatever end, the same command goes on where it was. One that
    cannot be measured is reported with the reason, and the others go on.

    \b
    hf-task2vec index build my-index --tasks org/data,./photos --checkpoints timm/resnet18.a1_in1k --base shipped
    hf-task2vec index build my-index --tasks tasks.csv --checkpoints checkpoints.txt --ray-address auto
    """  # noqa: D301 (click wants the control character)
    shares = given({"gpus_per_cell": gpus_per_cell, "cpus_per_cell": cpus_per_cell})
    if shares and ray_address is None:
        raise click.UsageError("--gpus-per-cell and --cpus-per-cell go with --ray-address.", ctx)
    with session(ctx) as (settings, answer):
        from hf_task2vec.build import Build, Cluster
        from hf_task2vec.zoo import ZooIndex

        plan = Build(
            out,
            base=ZooIndex.load() if base == "shipped" else base,
            max_samples=None if isinstance(max_samples, str) else max_samples,
            cluster=None if ray_address is None else Cluster(ray_address, **shares),
            **given(options),
        )
        cost = plan.estimate()
        if dry_run:
            return answer(facts_report(cost.to_dict(), [f"{cost.hours:.4g}"], [f"{cost}."]))
        if not settings.quiet:
            click.echo(f"{cost}.", err=True)
        report = plan.run(progress=settings.progress)
        reasons = [f"{f['checkpoint']} on {f['task']}: {f['reason']}" for f in report.failures]
        if report.path is None:
            raise ZooIndexError(f"no cell could be measured, so there is no index; the first: {reasons[0]}")
        answer(facts_report(report.to_dict(), [str(report.path)]))
        if reasons:
            more = f"; all are in {report.cells_file}" if len(reasons) > 1 else ""
            click.echo(f"error: {report.failed} cells failed: {reasons[0]}{more}", err=True)
            raise click.exceptions.Exit(SOME_FAILED)
        return None
