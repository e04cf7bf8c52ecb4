"""Fine-tune a timm checkpoint with a plain loop and Accelerate, in one process or several.

    python examples/finetune_timm.py --dataset sklearn:digits --no-flip --output out
    torchrun --nproc-per-node 2 examples/finetune_timm.py --dataset ./photos --output out

``--checkpoint auto`` takes the first of the ranking. The head starts as a logistic regression on frozen features, then
all weights train: AdamW, cosine rate after a warm-up, label smoothing, random crops, BatchNorm with its stored
statistics. The weights of the best validation loss are kept, in ``OUTPUT/model`` as timm reads it from a folder or the
Hub. Killed at any moment, the same command goes on after the last finished epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from typing import Any

import numpy as np
import timm
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed
from common import finish, options, read_data, same_settings, take, told
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hf_task2vec.errors import Task2VecError
from hf_task2vec.evidence.finetune import (
    Choice,
    Images,
    Parts,
    augmented,
    judge,
    keep_statistics,
    parameter_groups,
    start_head,
)
from hf_task2vec.files import atomic_path, write_json
from hf_task2vec.probes.probe import load_classifier
from hf_task2vec.sharing.outcome import Outcome


def build(args: argparse.Namespace, hub_id: str, num_classes: int) -> tuple[Any, Any]:
    """Return the network with a new head, and its own preprocessing."""
    model: Any = load_classifier(hub_id, num_classes)[0]
    if not hasattr(model, "pretrained_cfg"):
        raise Task2VecError(f"{hub_id!r} is no timm checkpoint; examples/finetune_trainer.py takes it")
    config = timm.data.resolve_model_data_config(model)
    if args.image_size is not None:
        if hasattr(model, "set_input_size"):  # position embeddings are interpolated
            model.set_input_size(img_size=args.image_size)
        config["input_size"] = (3, args.image_size, args.image_size)
    return model, config


def train(args: argparse.Namespace, accelerator: Accelerator, data: Parts, choice: Choice) -> dict[str, Any]:
    """Train until it stops getting better; return the metrics on the test images."""
    model, config = build(args, choice.hub_id, len(data.names))
    transform = timm.data.create_transform(**config, is_training=False)
    plain = DataLoader(Images(data.train, transform), args.batch_size)
    loader = DataLoader(
        Images(data.train, augmented(transform, flip=not args.no_flip)), args.batch_size, shuffle=True,
        generator=torch.Generator().manual_seed(args.seed),
    )  # fmt: skip
    keep_statistics(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, args.lr, len(data.names)))
    # Each process takes its share of every epoch, so the rate falls once for all of them.
    steps = math.ceil(len(loader) / accelerator.num_processes) * args.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    if not (args.output / "state").exists():
        start_head(model.to(accelerator.device).eval(), batches(plain, accelerator.device), len(data.names))
    parts = [DataLoader(Images(task, transform), args.batch_size) for task in (data.validation, data.test)]
    model, optimizer, loader, *parts = accelerator.prepare(model, optimizer, loader, *parts)
    accelerator.register_for_checkpointing(schedule)
    history, seen = resume(args, accelerator), 0
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    while len(history) < args.epochs and not over(history, args.patience):
        set_seed(args.seed + 1000 * len(history) + accelerator.process_index)
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(len(history))
        model.train()
        seen = 0
        hidden = not accelerator.is_main_process or not sys.stderr.isatty()
        for batch in tqdm(loader, desc=f"epoch {len(history) + 1}", disable=hidden, leave=False):
            accelerator.backward(loss_of(model(batch["pixel_values"]), batch["labels"]))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            seen += len(batch["labels"])
        logits, labels = predict(model, parts[0], accelerator)
        loss = float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))
        history.append({"loss": loss, **judge(logits, labels)})
        accelerator.print(f"epoch {len(history)}: validation loss {loss:.4f}, accuracy {history[-1]['accuracy']:.3f}")
        keep(args, accelerator, model, history)
    shares = accelerator.gather(torch.tensor([seen], device=accelerator.device)).tolist()
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).load_state_dict(torch.load(args.output / "best.pt", weights_only=True))
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:  # all judge with the weights of the first
        for value in accelerator.unwrap_model(model).state_dict().values():
            torch.distributed.broadcast(value, 0)
    logits, labels = predict(model, parts[1], accelerator)
    assert len(labels) == len(data.test), (len(labels), len(data.test))
    metrics = judge(logits, labels)
    if accelerator.is_main_process:
        save(args, accelerator.unwrap_model(model), data, config)
    extra = {
        "epochs": len(history),
        "history": history,
        "images_by_process": shares,
        "image_size": config["input_size"][1],
    }
    return {"metrics": metrics, "extra": extra}


def rate(step: int, steps: int, warm_up: float = 0.1) -> float:
    """Share of the peak rate: up in a line, then down by a half cosine."""
    first = max(warm_up * steps, 1.0)
    return (
        (step + 1) / first
        if step < first
        else 0.5 * (1.0 + math.cos(math.pi * min((step - first) / max(steps - first, 1), 1.0)))
    )


def batches(loader: Any, device: torch.device) -> Any:
    """Yield a loader's batches on a device."""
    return ({name: value.to(device) for name, value in batch.items()} for batch in loader)


def predict(model: Any, loader: Any, accelerator: Accelerator) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, C) and labels (N,) of all images, from all processes, each image once."""
    model.eval()
    found = []
    with torch.inference_mode():
        for batch in loader:
            both = accelerator.gather_for_metrics((model(batch["pixel_values"]).float(), batch["labels"]))
            found.append(tuple(x.cpu().numpy() for x in both))
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def over(history: list[dict[str, float]], patience: int) -> bool:
    """Say whether the last `patience` epochs brought no better validation loss."""
    losses = [row["loss"] for row in history]
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def keep(args: argparse.Namespace, accelerator: Accelerator, model: Any, history: list[dict[str, float]]) -> None:
    """Keep what the next epoch needs, and the best weights; whole or not at all."""
    losses = [row["loss"] for row in history]
    if accelerator.is_main_process and losses[-1] == min(losses):
        with atomic_path(args.output / "best.pt") as path:
            torch.save(accelerator.unwrap_model(model).state_dict(), path)
    new, old = args.output / f"state-{len(history)}", args.output / f"state-{len(history) - 1}"
    accelerator.save_state(str(new))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_json(args.output / "state", {"folder": new.name, "history": history})
        shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def resume(args: argparse.Namespace, accelerator: Accelerator) -> list[dict[str, float]]:
    """Load what was kept; return the epochs done."""
    path = args.output / "state"
    if not path.exists():
        return []
    kept = json.loads(path.read_text(encoding="utf-8"))
    accelerator.load_state(str(args.output / kept["folder"]))
    accelerator.print(f"going on after epoch {len(kept['history'])}")
    history: list[dict[str, float]] = kept["history"]
    return history


def save(args: argparse.Namespace, model: Any, data: Parts, config: dict[str, Any]) -> None:
    """Write ``OUTPUT/model`` as timm reads it: ``timm.create_model("local-dir:OUTPUT/model", pretrained=True)``."""
    timm.models.save_for_hf(
        model, str(args.output / "model"), model_config={"label_names": list(data.names)}, safe_serialization=True,
        data_config=config,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, Any] | None:
    """Choose, train, report; the result in the main process, None in the others."""
    args = options(__doc__ or "", epochs=10, lr=2e-4).parse_args(arguments)
    # Where there is no GPU, Accelerate leaves the processes alone unless told to use the CPU.
    cpu = not getattr(torch, "accelerator", torch.cuda).is_available()
    loading = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed)
    accelerator = Accelerator(cpu=cpu, dataloader_config=loading)
    set_seed(args.seed)
    same_settings(args)
    with accelerator.main_process_first():  # the first fills the caches for the others
        data = read_data(args)
        choice = take(args, data, library="timm")
    accelerator.print(told(choice, data))
    found = train(args, accelerator, data, choice)
    result = None
    if accelerator.is_main_process:
        metrics = {**found["metrics"], **found["extra"]}
        result = finish(args, Outcome(data, choice, metrics, seed=args.seed), library="timm")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return result


if __name__ == "__main__":
    try:
        main()
    except Task2VecError as error:
        sys.exit(f"error: {error}")
