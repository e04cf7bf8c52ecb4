"""The end of every example: predicted against obtained, the model card, the Hub, and the index that learns."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import Choice, Data

from hf_task2vec import linear_probe
from hf_task2vec.evidence.own_scores import add_score
from hf_task2vec.files import write_json
from hf_task2vec.sharing.cards import escape

TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def finish(
    args: argparse.Namespace,
    data: Data,
    choice: Choice,
    metrics: dict[str, float],
    *,
    protocol: str,
    how: str,
    library: str,
    extra: dict[str, Any] | None = None,
    companions: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Print predicted against obtained accuracy; write ``result.json`` and the card; push and add to an index if asked.

    `companions` are accuracies of other checkpoints by the same protocol on the same images, by Hub id.
    """
    candidate, n_test = choice.candidate, len(data.test)
    result = {
        "dataset": data.test.dataset,
        "checkpoint": choice.hub_id,
        "protocol": protocol,
        **metrics,
        "std_error": float(np.sqrt(metrics["accuracy"] * (1.0 - metrics["accuracy"]) / n_test)),
        "predicted": None if candidate is None else {k: v for k, v in asdict(candidate).items() if v is not None},
        "n_ranked": None if choice.ranking is None else choice.ranking.n_ranked,
        "n_train": len(data.train),
        "n_validation": len(data.validation),
        "n_test": n_test,
        "seed": args.seed,
        **(extra or {}),
    }
    write_json(args.output / "result.json", result)
    choice.embedding.save(args.output / "task-embedding")
    print(_text(result, how), flush=True)
    _write_card(args.output / "model", data, choice, result, how=how, library=library)
    if args.add_to_index is not None:
        _teach(args, data, choice, {**(companions or {}), choice.hub_id: metrics["accuracy"]}, protocol)
    if args.push_to_hub:
        from huggingface_hub import HfApi

        api = HfApi()
        repo = api.create_repo(args.push_to_hub, private=args.private or None, exist_ok=True).repo_id
        api.upload_folder(
            repo_id=repo, folder_path=args.output / "model", commit_message="Model fine-tuned from a ranking"
        )
        print(f"pushed to         {api.endpoint}/{repo}")
    return result


def _text(result: dict[str, Any], how: str) -> str:
    facts, lines = result["predicted"], []
    if facts is None:
        lines.append(f"checkpoint        {result['checkpoint']} (the index does not know it, so nothing was predicted)")
    else:
        lines.append(f"checkpoint        {result['checkpoint']} (rank {facts['rank']} of {result['n_ranked']})")
        lines.append(
            f"predicted         {100 * facts['score']:.1f} % (80 % interval {100 * facts['low']:.1f} to "
            f"{100 * facts['high']:.1f}) for a linear probe on a sample of the training images"
        )
    lines.append(
        f"obtained          {100 * result['accuracy']:.1f} % ± {100 * result['std_error']:.1f} on {result['n_test']} "
        f"test images, {how} on {result['n_train']} (macro F1 {result['f1_macro']:.3f})"
    )
    return "\n".join(lines)


def _write_card(folder: Path, data: Data, choice: Choice, result: dict[str, Any], *, how: str, library: str) -> None:
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    on_hub = data.train.revision is not None
    values = {"accuracy": result["accuracy"], "f1": result["f1_macro"]}
    # What `hf-task2vec index harvest` reads, besides base model, data and values (docs/growing.md).
    how_measured = {name: result[name] for name in ("protocol", "n_train", "n_test", "seed")}
    facts = ModelCardData(
        model_name=folder.parent.name,
        base_model=choice.hub_id,
        datasets=[data.train.dataset] if on_hub else None,
        license=choice.candidate.license if choice.candidate else None,
        library_name=library,
        pipeline_tag="image-classification",
        tags=["image-classification", "task2vec"],
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=data.train.dataset if on_hub else "local",
                dataset_name=data.train.dataset,
                dataset_config=data.test.config_name,
                dataset_split=data.test.split,
                dataset_revision=data.test.revision,
                dataset_args=how_measured,
                metric_type=name,
                metric_value=value,
            )
            for name, value in values.items()
        ],
    )
    explanation = choice.ranking.explain(choice.hub_id) if choice.ranking and choice.candidate else None
    card = ModelCard.from_template(
        facts,
        template_path=str(TEMPLATE),
        how=how,
        result=result,
        candidate=choice.candidate,
        ranking=choice.ranking,
        explanation=explanation,
        names=[escape(name) for name in data.names],
        dataset=escape(data.train.dataset),
        escape=escape,
    )
    folder.mkdir(parents=True, exist_ok=True)
    card.save(folder / "README.md")


def _teach(args: argparse.Namespace, data: Data, choice: Choice, accuracies: dict[str, float], protocol: str) -> None:
    """Add the result, and the checkpoint's linear probe on the sample, to a local index.

    A fine-tuned accuracy can only be compared with others of its kind. The linear probe is what the index ranks by,
    and the probe network's own is known: so the index learns from the first run on.
    """
    linear = linear_probe(choice.hub_id, data.sample)
    rows = [
        *((hub_id, value, protocol, "test", len(data.train), len(data.test)) for hub_id, value in accuracies.items()),
        (choice.hub_id, linear.value, "linear_probe_loo", "sample", len(data.sample) - 1, len(data.sample)),
    ]
    task: Any = choice.embedding
    for hub_id, value, by, split, n_train, n_test in rows:
        added = add_score(
            args.add_to_index, task=task, checkpoint=hub_id, score=value, protocol=by, split=split, n_train=n_train,
            n_test=n_test, base="shipped", replace=True, name=args.task_name,
        )  # fmt: skip
        print(f"added             {hub_id} on {added.row.task}: {100 * value:.1f} % by {by}, to {args.add_to_index}")
