"""What the three examples share: options, data, the choice of a checkpoint, the start of training, metrics."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from hf_task2vec import Task, TaskEmbedding, ZooIndex, fit_head, select_backbone
from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.embedding.computing import Computing
from hf_task2vec.errors import DatasetNotFoundError, SelectionError, Task2VecError, TaskError
from hf_task2vec.files import write_json
from hf_task2vec.selection.ranking import Candidate, Ranking

Transform = Callable[[Image.Image], Tensor]
SAMPLE = 256


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


# ---------------------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Data:
    """Training, validation and test images; and the sample of the training split that the ranking looks at."""

    train: Task
    validation: Task
    test: Task
    sample: Task

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.train.label_names


def read_data(args: argparse.Namespace) -> Data:
    """Read a dataset; what it lacks of validation and test images is taken from the training split, by class."""
    columns = {"name": args.name, "image_column": args.image_column, "label_column": args.label_column}
    read = partial(Task.from_dataset, args.dataset, **columns, seed=args.seed)
    full = read(max_samples=None)
    if full.label_kind != "single_label":
        raise TaskError("these examples are for images with one label each")
    test = _test_split(read, args.test_split, full.split)
    if test is None:
        full, test = _divided(full, 0.2, args.seed)
    rest, validation = _divided(full, 0.15, args.seed + 1)
    if args.max_train is not None:  # a beginning of a task is balanced over the classes
        rest = rest.subset(range(min(args.max_train, len(rest))))
    # The ranking sees training images only, never those that judge its advice.
    sample = full.subset(range(min(SAMPLE, len(full))))
    return Data(rest, validation, _with_names(test, full.label_names), sample)


def _test_split(read: Callable[..., Task], asked: str | None, used: str | None) -> Task | None:
    for split in (asked,) if asked else ("test", "validation"):
        if split == used:
            continue
        try:
            return read(split=split, max_samples=None)
        except DatasetNotFoundError:
            if asked:
                raise
    return None


def _divided(task: Task, share: float, seed: int) -> tuple[Task, Task]:
    """Take `share` of each class away, at least one image where a class has two; both parts keep their order."""
    rng = np.random.default_rng(seed)
    taken: list[int] = []
    for label in np.unique(task.labels):
        rows = np.flatnonzero(task.labels == label)
        count = max(round(share * len(rows)), 1) if len(rows) > 1 else 0
        taken += rng.choice(rows, count, replace=False).tolist()
    away = np.isin(np.arange(len(task)), taken)
    return task.subset(np.flatnonzero(~away)), task.subset(np.flatnonzero(away))


def _with_names(task: Task, names: tuple[str, ...]) -> Task:
    """Number the classes of a split as the training split does."""
    if task.label_names == names:
        return task
    if missing := sorted(set(task.label_names) - set(names)):
        raise TaskError(f"the split {task.split!r} has classes that train lacks: {', '.join(missing[:5])}")
    place = np.array([names.index(name) for name in task.label_names])
    return task.with_labels(place[task.labels], names)


class Images(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """A task's images after a transform, with their labels."""

    def __init__(self, task: Task, transform: Transform) -> None:
        self.task, self.transform = task, transform

    def __len__(self) -> int:
        return len(self.task)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"pixel_values": self.transform(self.task.images[i]), "labels": int(self.task.labels[i])}


def augmented(transform: Transform, *, flip: bool) -> Transform:
    """Crop and mirror at random, then do what the checkpoint does to any image: its own size, mean and deviation."""
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


def choose(args: argparse.Namespace, data: Data, *, library: str | None) -> Choice:
    """Rank checkpoints for the dataset, and take the first or the one asked for."""
    index = ZooIndex.load(args.index)
    table = index.embeddings
    embedding = cached_embedding(
        data.sample,
        str(table.probe["name"]),
        known_hash=table.weights_hash,
        computing=Computing(progress=sys.stderr.isatty()),
    )
    if args.add_to_index is not None:
        _check_name(args, embedding)
    limits: dict[str, Any] = {"candidates": args.candidates, "max_params": args.max_params, "library": library}
    if args.checkpoint != "auto":
        limits = {"candidates": args.candidates and [*args.candidates, args.checkpoint]}
    try:
        ranking = select_backbone(embedding, index=index, top_k=max(len(index.checkpoints), 1), **limits)
    except SelectionError:
        if args.checkpoint == "auto":
            raise
        return Choice(args.checkpoint, embedding, None, None)
    if args.checkpoint == "auto":
        candidate = next((c for c in ranking if c.library in ("timm", "transformers")), None)
        if candidate is None:
            raise SelectionError("no checkpoint of timm or transformers meets the limits; loosen --max-params")
    else:
        candidate = next((c for c in ranking if c.hub_id == args.checkpoint), None)
    return Choice(args.checkpoint if candidate is None else candidate.hub_id, embedding, ranking, candidate)


def _check_name(args: argparse.Namespace, embedding: TaskEmbedding) -> None:
    """Say before any training if the result could not be added to the index after it."""
    table = ZooIndex.load(args.add_to_index if args.add_to_index.exists() else None).embeddings
    name = args.task_name or embedding.name.lower()
    if name in table.names and not np.array_equal(table[name].values, embedding.values):
        raise SelectionError(f"{args.add_to_index} has another task {name!r} already; give yours a name by --task-name")


# --------------------------------------------------------------------------------------------------------- the training


def heads_of(model: nn.Module, num_classes: int) -> list[nn.Linear]:
    """Return the layers that make the logits (distilled networks have two); none where they are not plain linear ones.

    timm's networks tell; those of transformers keep them beside their base. Other layers may be as wide.
    """
    networks = list(model.modules())
    if (network := next((m for m in networks if hasattr(m, "get_classifier")), None)) is not None:
        found = network.get_classifier()
        parts = found if isinstance(found, (tuple, list)) else [found]
    else:
        network = next((m for m in networks if hasattr(m, "base_model")), model)
        parts = [part for part in network.children() if part is not getattr(network, "base_model", None)]
    last = [[m for m in part.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1:] for part in parts]
    return [m for found in last for m in found if isinstance(m, nn.Linear) and m.out_features == num_classes]


def start_head(model: nn.Module, batches: Iterable[dict[str, Tensor]], num_classes: int) -> bool:
    """Start the classifier as a logistic regression on the frozen features, not at random (arXiv 2202.10054).

    A random head first pulls good features apart. Returns False, and changes nothing, where the classifier is no plain
    linear layer.
    """
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
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,assignment,misc]


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


class _Classification(evaluate.Metric):
    """Metrics that need no download, unlike ``evaluate.load("accuracy")``."""

    def _info(self) -> evaluate.MetricInfo:
        labels = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description=type(self).__doc__, citation="", features=labels)


class Accuracy(_Classification):
    """Share of right answers."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        return {"accuracy": float(np.mean(np.asarray(predictions) == np.asarray(references)))}


class MacroF1(_Classification):
    """Mean over the classes of the F1 score."""

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        from sklearn.metrics import f1_score

        return {"f1_macro": float(f1_score(references, predictions, average="macro", zero_division=0))}


def judge(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy and macro F1 of logits, shape (N, C)."""
    predictions = np.asarray(logits).argmax(axis=1)
    metrics = evaluate.combine([Accuracy(), MacroF1()])
    found: dict[str, float] = metrics.compute(predictions=predictions.tolist(), references=np.asarray(labels).tolist())
    return found
