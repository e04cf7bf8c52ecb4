"""Train only a linear classifier on frozen features, with scikit-learn: seconds where fine-tuning takes minutes.

    python examples/linear_probe.py --dataset sklearn:digits --no-flip --output out

``--checkpoint auto`` takes the first of the ranking. Features of the training images and of ``--views`` random crops
of each are extracted once and kept in ``OUTPUT/features``, so the same command never extracts them twice.
Regularisation is weakened step by step until the validation loss has not got better for ``--patience`` steps.
``OUTPUT/model`` holds the classifier as safetensors: ``features @ weight.T + bias``.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from common import finish, options, read_data, same_settings, take, told
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from hf_task2vec.errors import Task2VecError
from hf_task2vec.evidence.finetune import Images, Parts, augmented, judge
from hf_task2vec.files import atomic_path, write_json
from hf_task2vec.probes.checkpoint_files import DEFAULT_PROBE
from hf_task2vec.probes.probe import Probe
from hf_task2vec.sharing.outcome import Outcome

Array = NDArray[np.float32]
STRENGTHS = tuple(float(10.0**exponent) for exponent in np.arange(-3.0, 4.01, 0.5))


def extract(checkpoint: Probe, images: Images, batch_size: int) -> Array:
    """Return the pooled features of a task's images, shape (N, d)."""
    loader = tqdm(DataLoader(images, batch_size), desc=checkpoint.name, disable=not sys.stderr.isatty(), leave=False)
    with torch.inference_mode():
        return torch.cat([checkpoint.module(batch["pixel_values"]) for batch in loader]).numpy()


def features_of(args: argparse.Namespace, data: Parts, hub_id: str) -> dict[str, Array]:
    """Return the features of each split, and of the random views of the training images; from disk if kept there."""
    checkpoint = Probe.from_pretrained(hub_id)
    views = augmented(checkpoint.transform, flip=not args.no_flip)
    parts = {
        "train": (data.train, checkpoint.transform),
        "validation": (data.validation, checkpoint.transform),
        "test": (data.test, checkpoint.transform),
        **{f"view{i}": (data.train, views) for i in range(args.views)},
    }
    found = {}
    for number, (name, (task, transform)) in enumerate(parts.items()):
        path = args.output / "features" / hub_id.replace("/", "--") / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(args.seed + number)
            with atomic_path(path) as temporary:
                save_file({"features": extract(checkpoint, Images(task, transform), args.batch_size)}, temporary)
        found[name] = load_file(path)["features"]
    return found


def fit(features: dict[str, Array], data: Parts, patience: int) -> tuple[LogisticRegression, list[dict[str, float]]]:
    """Fit logistic regressions from strong to weak regularisation until validation gets no better."""
    views = [name for name in features if name not in ("validation", "test")]
    x, y = np.concatenate([features[name] for name in views]), np.tile(data.train.labels, len(views))
    scale = float(np.sqrt(np.mean(np.square(x - x.mean(axis=0)).sum(axis=1))))  # so that a strength means the same
    seen = np.isin(data.validation.labels, y)  # a class without training images has no probability
    x_val, y_val = features["validation"][seen] / scale, data.validation.labels[seen]
    best, history, model = None, [], LogisticRegression(max_iter=300, warm_start=True)
    for strength in STRENGTHS:
        model.set_params(C=strength).fit(x / scale, y)
        # The loss, since the accuracy of a few dozen images stands still over decades of strengths.
        loss = float(log_loss(y_val, model.predict_proba(x_val), labels=model.classes_))
        if best is None or loss < min(row["loss"] for row in history):
            best = LogisticRegression()
            best.classes_, best.coef_, best.intercept_ = model.classes_, *_rows(model.coef_ / scale, model.intercept_)
        history.append({"C": strength, "loss": loss})
        losses = [row["loss"] for row in history]
        if len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience]):
            break
    assert best is not None
    return best, history


def logits_of(model: LogisticRegression, features: Array, num_classes: int) -> Array:
    """Return logits, shape (N, C); a class without training images is never chosen."""
    found = np.full((len(features), num_classes), -np.inf, dtype=np.float32)
    found[:, model.classes_] = features @ model.coef_.T + model.intercept_
    return found


def _rows(weight: Array, bias: Array) -> tuple[Array, Array]:
    """One row a class, where scikit-learn has a single one for two classes; in C order, as safetensors needs it."""
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2.0, np.concatenate([-bias, bias]) / 2.0
    return np.ascontiguousarray(weight, dtype=np.float32), np.array(bias, dtype=np.float32)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Choose, extract, fit, report."""
    parser = options(__doc__ or "", epochs=None, lr=None)
    parser.add_argument(
        "--views", type=int, default=1, metavar="N", help="random crops of each training image (default: 1)"
    )
    parser.add_argument("--patience", type=int, default=3, help="steps without a better validation loss")
    args = parser.parse_args(arguments)
    same_settings(args)
    data = read_data(args)
    choice = take(args, data, library=None)
    print(told(choice, data), flush=True)
    features = features_of(args, data, choice.hub_id)
    model, history = fit(features, data, args.patience)
    metrics = judge(logits_of(model, features["test"], len(data.names)), data.test.labels)
    folder = args.output / "model"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": model.coef_, "bias": model.intercept_}, folder / "classifier.safetensors")
    classes = [data.names[i] for i in model.classes_]
    write_json(folder / "config.json", {"features_of": choice.hub_id, "classes": classes})
    companions = {}
    if args.add_to_index is not None and choice.hub_id != DEFAULT_PROBE:
        # Two checkpoints by the same protocol can be compared; the probe is on this machine anyway.
        others = features_of(args, data, DEFAULT_PROBE)
        probe = fit(others, data, args.patience)[0]
        companions[DEFAULT_PROBE] = judge(logits_of(probe, others["test"], len(data.names)), data.test.labels)[
            "accuracy"
        ]
    how = "a linear probe trained"
    outcome = Outcome(data, choice, {**metrics, "history": history}, "linear_probe_full", how, args.seed)
    return finish(args, outcome, library="scikit-learn", companions=companions)


if __name__ == "__main__":
    try:
        main()
    except Task2VecError as error:
        sys.exit(f"error: {error}")
