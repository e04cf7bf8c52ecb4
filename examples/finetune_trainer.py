"""Fine-tune a checkpoint with the Trainer of transformers; timm checkpoints through its TimmWrapper.

    python examples/finetune_trainer.py --dataset sklearn:digits --no-flip --output out

``--checkpoint auto`` takes the first of the ranking that can be trained so. It is what ``hf-task2vec finetune`` does,
as a script to change: how the head starts and what is trained how is in ``hf_task2vec/evidence/finetune.py``. Killed at
any moment, the same command goes on after the last finished epoch.
"""

from __future__ import annotations

import sys
from typing import Any

from common import finish, options, read_data, same_settings, take, told

from hf_task2vec.errors import Task2VecError
from hf_task2vec.evidence.finetune import Recipe, train
from hf_task2vec.sharing.outcome import Outcome


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Choose, train, report."""
    args = options(__doc__ or "", epochs=10, lr=2e-4).parse_args(arguments)
    same_settings(args)
    data = read_data(args)
    choice = take(args, data, library="transformers")
    print(told(choice, data), flush=True)
    recipe = Recipe(
        epochs=args.epochs, patience=args.patience, lr=args.lr, batch_size=args.batch_size,
        label_smoothing=args.label_smoothing, flip=not args.no_flip, seed=args.seed,
    )  # fmt: skip
    metrics = train(choice.hub_id, data, args.output, recipe)
    if metrics["resumed"]:
        print("went on after the last finished epoch", flush=True)
    return finish(args, Outcome(data, choice, metrics, seed=args.seed), library="transformers")


if __name__ == "__main__":
    try:
        main()
    except Task2VecError as error:
        sys.exit(f"error: {error}")
