"""``finetune``: from a dataset to a trained model, its card, and predicted against obtained accuracy."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from hf_task2vec.cli.command import Settings, command, options, written
from hf_task2vec.cli.console import Report, facts_report
from hf_task2vec.cli.inputs import index_folder
from hf_task2vec.cli.options import POSITIVE, Quantity, index_option, seed_option, split_commas, token_option

logger = logging.getLogger(__name__)

_recipe = options(
    click.option("--epochs", type=click.IntRange(1), default=10, show_default=True, help="At most so many."),
    click.option(
        "--patience",
        type=click.IntRange(1),
        default=3,
        show_default=True,
        help="Epochs without a better validation loss before it stops.",
    ),
    click.option(
        "--lr", type=POSITIVE, default=2e-4, show_default=True, help="Peak rate; five times that for the head."
    ),
    click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Images in one step."),
    click.option("--label-smoothing", type=click.FloatRange(0, 1), default=0.1, show_default=True),
    click.option(
        "--no-flip",
        "flip",
        is_flag=True,
        default=True,
        flag_value=False,
        help="Never mirror images: for text, digits …",
    ),
    seed_option,
)


@command()
@click.argument("dataset", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--checkpoint", metavar="auto|ID", default="auto", show_default=True, help="What to train.")
@click.option("--max-params", type=Quantity(), default="100M", show_default=True, help="Largest that auto takes.")
@click.option("--candidates", multiple=True, callback=split_commas, metavar="ID", help="Choose among these only.")
@click.option("--name", metavar="NAME", help="Configuration of a dataset that has several.")
@click.option("--image-column", metavar="COLUMN")
@click.option("--label-column", metavar="COLUMN")
@click.option(
    "--test-split", metavar="NAME", help="To judge by [default: test, else validation, else a fifth of train]."
)
@click.option("--max-train", type=click.IntRange(2), metavar="N", help="Train on so many, balanced over the classes.")
@click.option("--add-to-index", metavar="FOLDER", help="Add the result to this index, begun from the one ranked by.")
@click.option("--task-name", metavar="NAME", help="What that index shall call the dataset.")
@_recipe
@index_option
@token_option
@click.pass_obj
def finetune(
    settings: Settings,
    /,
    dataset: str,
    output: Path,
    checkpoint: str,
    max_params: int,
    candidates: list[str] | None,
    index: str | None,
    test_split: str | None,
    max_train: int | None,
    add_to_index: str | None,
    task_name: str | None,
    **chosen: Any,
) -> Report:
    """Fine-tune the recommended checkpoint for DATASET (see `select`), or the one named, and judge it.

    All weights are trained, with crops, early stopping, and mixed precision on a GPU. The same command goes on where it
    was stopped. DIR gets the model with its card, result.json with predicted and obtained accuracy, and the embedding.

    \b
    Examples:
      hf-task2vec finetune ./photos -o photos-model
      hf-task2vec finetune org/data -o model --checkpoint timm/resnet18.a1_in1k
      hf-task2vec finetune ./photos -o photos-model --add-to-index my-index
    """  # noqa: D301 (click wants the control character)
    from hf_task2vec.evidence import Parts, Recipe, choose, train
    from hf_task2vec.sharing import Outcome

    recipe = Recipe(**{f.name: chosen[f.name] for f in fields(Recipe)})
    place = {key: chosen[key] for key in ("name", "image_column", "label_column", "token")}
    same = {
        "dataset": dataset,
        "checkpoint": checkpoint,
        "max_params": max_params,
        "candidates": candidates,
        "index": index,
        "test_split": test_split,
        "max_train": max_train,
        **{key: chosen[key] for key in ("name", "image_column", "label_column")},
        **vars(recipe),
    }
    _same_run(output, json.loads(json.dumps(same)))
    logger.info("reading %s", dataset)
    parts = Parts.of_dataset(dataset, test_split=test_split, max_train=max_train, seed=recipe.seed, **place)
    folder = index_folder(index, token=chosen["token"])
    choice = choose(parts.sample, checkpoint, folder, candidates, max_params=max_params, library="transformers")
    logger.warning("%s: %d images to train on, %d to validate", choice.hub_id, len(parts.train), len(parts.validation))
    outcome = Outcome(parts, choice, train(choice.hub_id, parts, output, recipe, chosen["token"]), seed=recipe.seed)
    outcome.write(output)
    notes = outcome.text().split("\n")
    exit_code = 0
    if add_to_index:
        exit_code = written(lambda: notes.extend(outcome.teach(add_to_index, name=task_name, base=folder or "shipped")))
    result = {key: value for key, value in outcome.to_dict().items() if key != "history"}
    report = facts_report({"model": str(output / "model"), **result}, [str(output / "model")], read=parts.sample.read)
    shown = [row for row in report.items if not row[0].startswith("predicted.")]
    return Report(report.document, report.lines, shown, report.columns, notes, exit_code, report.read)


def _same_run(folder: Path, now: dict[str, Any]) -> None:
    """Refuse to go on in a folder with a run of other settings; otherwise remember these there."""
    from hf_task2vec.files import write_json

    path = folder / "settings.json"
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != now:
        changed = ", ".join(sorted(key for key in now if before.get(key) != now[key]))
        raise click.UsageError(f"{folder} holds a run with other settings ({changed}); choose another --output.")
    write_json(path, now)
