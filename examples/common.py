"""What the three examples share: options, the choice of a checkpoint, and the end of every one of them.

The data, the start of training and the metrics are those of ``hf-task2vec finetune``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from hf_task2vec import ZooIndex
from hf_task2vec.errors import SelectionError, Task2VecError
from hf_task2vec.evidence.finetune import Choice, Parts, choose
from hf_task2vec.files import write_json
from hf_task2vec.sharing.outcome import Outcome


def options(description: str, *, epochs: int | None, lr: float | None) -> argparse.ArgumentParser:
    """Return the parser of the options that all examples have; `epochs` and `lr` only where something is trained."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", required=True, help="Hub id, folder (one subfolder a class, or parquet), or sklearn:digits")
    add("--checkpoint", default="auto", help="Hub id; auto takes the first of the ranking (default)")
    add("--output", type=Path, required=True, help="folder of the result; the same command again goes on from there")
    add("--name", help="configuration of the dataset")
    add("--image-column")
    add("--label-column")
    add("--test-split", help="split to judge by (default: test, else validation, else a fifth of train)")
    add("--max-train", type=int, metavar="N", help="train on N images, balanced over the classes (default: all)")
    add("--index", type=Path, help="index to rank by (default: the shipped one)")
    add("--candidates", nargs="+", metavar="ID", help="rank only these")
    add(
        "--max-params", type=float, default=30e6, metavar="N", help="largest checkpoint that auto takes (default: 30e6)"
    )
    add("--no-flip", action="store_true", help="never mirror images: for text, digits, and anything with a side")
    add("--batch-size", type=int, default=16, metavar="N")
    add("--seed", type=int, default=0)
    add("--add-to-index", type=Path, metavar="FOLDER", help="add the result to this index (begun from the shipped one)")
    add("--task-name", metavar="NAME", help="what that index shall call the dataset (default: its name)")
    add("--push-to-hub", metavar="ORG/NAME", help="put the result on the Hub")
    add("--private", action="store_true", help="make the repository on the Hub private")
    if epochs is not None and lr is not None:
        add("--epochs", type=int, default=epochs, help=f"at most so many (default: {epochs})")
        add("--patience", type=int, default=3, help="epochs without a better validation loss before it stops")
        add(
            "--lr",
            type=float,
            default=lr,
            help=f"peak rate of the pretrained weights; the head's is 5 times (default: {lr:g})",
        )
        add("--label-smoothing", type=float, default=0.1)
        add("--image-size", type=int, metavar="PX", help="side of the images (default: the checkpoint's own)")
    return parser


def same_settings(args: argparse.Namespace) -> None:
    """Refuse to go on in a folder with a run of other settings; otherwise remember these there."""
    path = args.output / "settings.json"
    free = ("output", "add_to_index", "task_name", "push_to_hub", "private")
    now = json.loads(json.dumps({k: v for k, v in vars(args).items() if k not in free}, default=str))
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != now:
        changed = ", ".join(sorted(k for k in now if before.get(k) != now[k]))
        raise Task2VecError(f"{args.output} holds a run with other settings ({changed}); choose another --output")
    write_json(path, now)


def read_data(args: argparse.Namespace) -> Parts:
    """Read and divide the dataset."""
    return Parts.of_dataset(
        args.dataset, test_split=args.test_split, max_train=args.max_train, seed=args.seed, name=args.name,
        image_column=args.image_column, label_column=args.label_column,
    )  # fmt: skip


def take(args: argparse.Namespace, data: Parts, *, library: str | None) -> Choice:
    """Rank checkpoints for the dataset, and take the first or the one asked for."""
    choice = choose(
        data.sample, args.checkpoint, args.index, args.candidates, max_params=args.max_params, library=library
    )
    if args.add_to_index is not None:  # say before any training if the result could not be added after it
        table = ZooIndex.load(args.add_to_index if args.add_to_index.exists() else None).embeddings
        name = args.task_name or choice.embedding.name.lower()
        if name in table.names and not np.array_equal(table[name].values, choice.embedding.values):
            raise SelectionError(
                f"{args.add_to_index} has another task {name!r} already; give yours a name by --task-name"
            )
    return choice


def told(choice: Choice, data: Parts) -> str:
    """Return what is going to be trained."""
    return f"{choice.hub_id}: {len(data.train)} images to train on, {len(data.validation)} to validate"


def finish(
    args: argparse.Namespace, outcome: Outcome, *, library: str, companions: dict[str, float] | None = None
) -> dict[str, Any]:
    """Print predicted against obtained accuracy; write result and card; push and add to an index if asked."""
    outcome.write(args.output, library=library)
    print(outcome.text(), flush=True)
    if args.add_to_index is not None:
        print(*outcome.teach(args.add_to_index, name=args.task_name, companions=companions), sep="\n")
    if args.push_to_hub:
        from huggingface_hub import HfApi

        api = HfApi()
        repo = api.create_repo(args.push_to_hub, private=args.private or None, exist_ok=True).repo_id
        api.upload_folder(
            repo_id=repo, folder_path=args.output / "model", commit_message="Model fine-tuned from a ranking"
        )
        print(f"pushed to         {api.endpoint}/{repo}")
    return outcome.to_dict()
