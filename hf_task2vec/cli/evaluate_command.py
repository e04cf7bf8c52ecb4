"""``hf-task2vec evaluate``: how good are the rankings?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from hf_task2vec.cli.command import Settings, command
from hf_task2vec.cli.console import Column, Report
from hf_task2vec.cli.inputs import load_index
from hf_task2vec.cli.options import device_option, index_option, seed_option, split_commas

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.metric import OwnCases


@command()
@index_option
@click.option(
    "--tasks", type=click.Path(), metavar="FOLDER", help="Folder with one dataset folder for each task of --scores."
)
@click.option("--scores", type=click.Path(), metavar="CSV", help="Scores to judge by: columns task, checkpoint, score.")
@click.option(
    "--metric", "metrics", multiple=True, callback=split_commas, metavar="NAME", help="Metrics to judge [default: all]."
)
@click.option("--source", metavar="SOURCE/PROTOCOL", help="Scores of the index to judge by, without --scores.")
@click.option(
    "--protocol",
    type=click.Choice(("fine-tune", "linear-probe")),
    help="What the scores are of [default: fine-tune with --scores, else as --source says].",
)
@click.option("--max-samples", type=click.IntRange(2), default=256, show_default=True, help="Images to draw of a task.")
@seed_option
@device_option
@click.pass_obj
def evaluate(
    settings: Settings,
    /,
    index: str | None,
    tasks: str | None,
    scores: str | None,
    metrics: list[str] | None,
    source: str | None,
    protocol: str | None,
    max_samples: int,
    seed: int,
    device: str | None,
) -> Report:
    """Judge the trained metric and its alternatives by scores.

    With --tasks and --scores: by your own scores, on tasks that the index has never seen. Without: by the index's own,
    leaving out one task (and its near duplicates) at a time; then each checkpoint, and each family of checkpoints.

    \b
    Examples:
      hf-task2vec evaluate
      hf-task2vec evaluate --tasks ./datasets --scores scores.csv
    """  # noqa: D301 (click wants the control character)
    if (tasks is None) != (scores is None):
        raise click.UsageError("--tasks and --scores go together.")
    if scores is not None and source is not None:
        raise click.UsageError("--source is for the index's own scores; leave out --scores or it.")
    from hf_task2vec.metric import (
        METRICS,
        PROTOCOLS,
        RankingMetric,
        always,
        cold_start,
        evaluate_metric,
        evidence,
        inverse_covariance,
        is_tuned,
        judge,
        leave_one_out_cases,
        load_metric,
        summarise,
    )
    from hf_task2vec.metric.own_cases import OwnCases, own_cases, read_scores

    zoo = load_index(index)
    # The rule to beat is always among them.
    judged = [load_metric(name, zoo) for name in dict.fromkeys([*(metrics or METRICS), "static"])]
    if tasks is not None and scores is not None:
        options: dict[str, Any] = {"max_samples": max_samples, "seed": seed, "device": device}
        own = own_cases(zoo, read_scores(scores), tasks, **options, progress=settings.progress)
    else:
        own = OwnCases(tuple(leave_one_out_cases(zoo, evidence(zoo)[1], *([source] if source else []))), (), {})
    trained = next((metric for metric in judged if isinstance(metric, RankingMetric)), None)
    inverse = None if trained is None or scores is not None else inverse_covariance(trained)
    by_default = PROTOCOLS[0] if scores is not None or is_tuned(source or "") else PROTOCOLS[1]
    asked: dict[str, Any] = {"protocol": protocol or by_default, "progress": settings.progress}
    predicted = {metric.name: evaluate_metric(metric, own.cases, inverse=inverse, **asked) for metric in judged}
    best, picks = always(own.cases)
    rows = judge(own.cases, predicted | ({f"always:{best}": picks} if best else {}))
    cold = None if inverse is None or trained is None else cold_start(trained, zoo)
    return _report(summarise(rows), rows, own, cold)


_COLUMNS = (
    Column("method", lambda r: r["method"], False),
    Column("accuracy of pick", lambda r: f"{100 * r['accuracy']:.2f}"),
    Column("error increase", lambda r: f"{100 * r['error_increase']:.1f} %"),
    Column("regret@1", lambda r: f"{100 * r['regret_1']:.2f}"),
    Column("regret@3", lambda r: f"{100 * r['regret_3']:.2f}"),
    Column("tau_w", lambda r: f"{r['tau']:.3f}"),
    Column("Rel@1", lambda r: f"{r['rel_1']:.3f}"),
    Column("gain (95 %)", lambda r: "{gain:+.2%} ({gain_low:+.2%} to {gain_high:+.2%})".format(**r).replace("%", "")),
    Column("worst task", lambda r: r["worst_task"], False),
)


def _report(summary: pd.DataFrame, rows: pd.DataFrame, own: OwnCases, cold: pd.DataFrame | None) -> Report:
    methods: list[dict[str, Any]] = summary.to_dict("records")
    base = methods[0]["base"]
    count = methods[0]["tasks"]
    notes = [
        f"{count} tasks. Accuracies and regrets in points; gain over {base} with its bootstrap interval over tasks.",
        f"Of the rules that do not look at the task, {base} does best.",
    ]
    cold_rows: list[dict[str, Any]] = []
    if cold is not None:
        notes.append(
            "The scores of one task and its near duplicates were left out at a time, but the trained metric's "
            "variances and length-scales have seen them."
        )
        found = cold.groupby(["question", "limit", "protocol", "method"])["tau"].agg(["mean", "size"]).reset_index()
        cold_rows = [_plain(record) for record in found.to_dict("records")]
        for (question, protocol), part in found[found["limit"] == math.inf].groupby(["question", "protocol"]):
            taus = ", ".join(f"{row.method} {row.mean:.2f}" for row in part.itertuples())
            notes.append(f"{question}, {protocol} ({part['size'].iloc[0]} groups of scores): Kendall's tau {taus}.")
    if own.unknown:
        notes.append(f"Checkpoints that the index does not know, left out: {', '.join(own.unknown)}.")
    notes += [f"{name} left out: {why}." for name, why in own.skipped.items()]
    document = {
        "base": base,
        "methods": [_plain(record) for record in summary.drop(columns="base").to_dict("records")],
        "tasks": [_plain(record) for record in rows.to_dict("records")],
        "unknown_checkpoints": list(own.unknown),
        "skipped_tasks": own.skipped,
        "cold_start": cold_rows,
    }
    lines = [f"{record['method']}\t{record['accuracy']:.6g}" for record in methods]
    return Report(document, lines, methods, _COLUMNS, notes)


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN and no infinity."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
