"""Model cards in the forms that are found on the Hub, all made up, and what they state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from hf_task2vec.evidence.cards import Outcome, read_card, split_card

BASE, DATA = "acme/vit-base-16", "acme/leaf-photos"
Expected = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Form:
    """A card, and the outcomes that it states or the reason for leaving it out."""

    name: str
    card: str
    expected: Expected | str
    repository: str = "acme/net"
    tags: tuple[str, ...] = ()


def readme(text: str = "", **metadata: Any) -> str:
    """Return a card of metadata and text."""
    names = {name.replace("model_index", "model-index"): value for name, value in metadata.items()}
    return f"---\n{yaml.safe_dump(names, sort_keys=False)}---\n\n# A card\n\n{text}"


def trainer(base: str = BASE, data: str = "leaves", bullets: str = "- Loss: 0.2\n- Accuracy: 0.9211\n") -> str:
    """Return the text that the Trainer of transformers writes."""
    return (
        f"This model is a fine-tuned version of [{base}](https://huggingface.co/{base}) on the {data} dataset.\n"
        f"It achieves the following results on the evaluation set:\n{bullets}\n"
        "## Training procedure\n\n### Training hyperparameters\n\n"
        "The following hyperparameters were used during training:\n- learning_rate: 5e-05\n- train_batch_size: 32\n"
        "- seed: 42\n- optimizer: Adam with betas=(0.9,0.999)\n- num_epochs: 3.0\n\n### Training results\n\n"
        "| Training Loss | Epoch | Step | Validation Loss | Accuracy |\n|:---:|:---:|:---:|:---:|:---:|\n"
        "| 0.3 | 1.0 | 190 | 0.4 | 0.7 |\n| 0.2 | 2.0 | 380 | 0.2 | 0.8 |\n"
    )


def index(value: Any = 0.9211, *, metrics: list[dict[str, Any]] | None = None, **dataset: Any) -> list[dict[str, Any]]:
    """Return a ``model-index`` with one result."""
    found: dict[str, Any] = {"task": {"name": "Image Classification", "type": "image-classification"}}
    if dataset:
        found["dataset"] = dataset
    found["metrics"] = metrics or [{"name": "Accuracy", "type": "accuracy", "value": value}]
    return [{"name": "some-net", "results": [found]}]


LEAVES = {"name": "leaves", "type": "leaves", "config": "default", "split": "validation", "args": "default"}
FOLDER = {"name": "imagefolder", "type": "imagefolder", "config": "default", "split": "train", "args": "default"}
EMPTY = [{"name": "some-net", "results": []}]


def _one(value: float = 0.9211, **facts: Any) -> list[dict[str, Any]]:
    return [{"base": BASE, "value": value, **facts}]


def _indexed(name: str, expected: Expected | str, **metadata: Any) -> Form:
    repository, tags = metadata.pop("repository", "acme/net"), metadata.pop("tags_of_hub", ())
    base = {"base_model": BASE, "datasets": [DATA], "model_index": index(**LEAVES)}
    whole = {key: value for key, value in (base | metadata).items() if value is not None}
    return Form(name, readme(**whole), expected, repository, tags)


def _told(name: str, text: str, expected: Expected | str, repository: str = "acme/net", **metadata: Any) -> Form:
    whole = {key: value for key, value in ({"base_model": BASE, "datasets": [DATA]} | metadata).items() if value}
    return Form(name, readme(text, **whole), expected, repository)


_TWO = [
    {"name": "Accuracy", "type": "accuracy", "value": 0.9215},
    {"name": "F1", "type": "f1", "value": 0.9375},
    {"name": "Recall", "type": "recall", "value": 1.0},
]
_VERIFIED = index(0.9788, name="leaves", type="leaves", args="plain_text")
_VERIFIED[0]["results"] += index(
    metrics=[
        {"name": "Accuracy", "type": "accuracy", "value": 0.9507, "verified": True},
        {"name": "Precision Macro", "type": "precision", "value": 0.9528, "verified": True},
        {"name": "loss", "type": "loss", "value": 0.3652, "verified": True},
    ],
    name="leaves", type="leaves", config="plain_text", split="test",
)[0]["results"]  # fmt: skip
_SEVERAL = ["acme/leaves", "acme/signs", "acme/cars"]
_MERGED = (
    "| Model | Leaves | Signs | Cars | Average |\n|---|---|---|---|---|\n| pre-trained | 30.0 | 40.0 | 50.0 | 40.0 |\n"
)

_RIVALS = "| Model | Accuracy |\n|---|---|\n| ours | 0.98 |\n\n| Model | Accuracy |\n|---|---|\n| rival | 0.5 |\n"

FORMS = [
    _indexed("A1", _one(base_from="metadata")),
    _indexed("A2", _one(), base_model=[BASE]),
    _told(
        "A3",
        trainer(),
        _one(base_from="text", learning_rate=5e-05, epochs=3.0, dataset="leaves"),
        datasets=None,
        base_model=None,
        tags=["generated_from_trainer"],
    ),
    _indexed("A4", [{"base": "vit-base-16-384"}], base_model="vit-base-16-384"),
    _indexed(
        "A5",
        [{"base": "timm/vit_small_16.orig_ft"}],
        base_model=None,
        tags=["image-classification", "timm/vit_small_16.orig_ft"],
    ),
    _indexed("A5-hub", _one(), base_model=None, tags_of_hub=("base_model:" + BASE, "base_model:finetune:" + BASE)),
    _told("A6", trainer("/content/out/run7/checkpoint-60"), "in no repository", base_model=None),
    _indexed("A7", [{"base": "acme/vit-faces-v1"}], base_model="acme/vit-faces-v1"),
    _indexed("A7-self", "itself", base_model="acme/vit-faces-v1", repository="acme/vit-faces-v1"),
    _told(
        "A8",
        "Finetuned from model: [vit-base](https://huggingface.co/acme/vit-base-16)\n\n- Accuracy: 0.9211\n",
        _one(base_from="text"),
        base_model=None,
    ),
    _told(
        "A8-misspelt",
        "**Model Architecture:** a pretrained vit-base-patch16-224-21k\n\n- Accuracy: 0.9211\n",
        [{"base": "vit-base-patch16-224-in21k", "base_from": "text"}],
        base_model=None,
    ),
    _told("A9", "- Accuracy: 0.9\n", "no base", base_model=None, tags=["huggingpics"]),
    _indexed(
        "A9-name",
        [{"base": "vit-base-patch16-224", "base_from": "name"}],
        base_model=None,
        repository="acme/vit-base-patch16-224-finetuned-leaves",
    ),
    _indexed("A10", "contradicts", repository="acme/leaves-swin-small"),
    _indexed("A11", _one(method="adapter"), library_name="peft"),
    _indexed("A11-name", _one(method="adapter"), repository="acme/vit-base-lora-leaves"),
    _indexed("several-bases", "several bases", base_model=[BASE, "acme/other"]),
    _indexed("B1", _one(dataset="leaves", split="validation", config=None), datasets=["leaves"]),
    _indexed(
        "B1-2022",
        _one(dataset="leaves", split=None),
        datasets=["leaves"],
        model_index=index(name="leaves", type="leaves", args="default"),
    ),
    _indexed(
        "B2",
        _one(dataset="rust", dataset_from="name"),
        datasets=["imagefolder"],
        model_index=index(**FOLDER),
        repository="acme/vit-base-16-finetuned-rust",
    ),
    _indexed(
        "B3", _one(dataset=DATA, dataset_from="card"), datasets=None, model_index=index(**FOLDER | {"name": DATA})
    ),
    _indexed("B4", _one(dataset=DATA), model_index=index(**FOLDER)),
    _indexed(
        "B5",
        _one(dataset="leafmnist-v2", config="0.25"),
        datasets=["leafmnist-v2"],
        model_index=index(name="leafmnist-v2", type="leafmnist-v2", config="0.25", split="validation", args="0.25"),
    ),
    _indexed("B6", _one(dataset=DATA), datasets=["imagefolder", DATA], model_index=index(**FOLDER)),
    _indexed(
        "B7",
        _one(dataset="leaves10"),
        datasets="leaves10",
        model_index=[
            {
                "name": "m",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": "LEAVES-10", "type": "leaves10"},
                        "metrics": [{"type": "accuracy", "value": 0.9211}],
                    }
                ],
            }
        ],
    ),
    _indexed("B8", _one(dataset="acme/leaves"), datasets=["acme/leaves"]),
    _told("B9", trainer(), _one(dataset="leaves"), datasets=None, model_index=EMPTY),
    _told("B10", trainer(data="None"), "no dataset", datasets=None, repository="acme/my_awesome_model"),
    _told(
        "B10-name",
        trainer(data="unknown"),
        _one(dataset="wood_rust", dataset_from="name"),
        datasets=None,
        repository="acme/my_wood_rust_model",
    ),
    _told(
        "B11",
        trainer(data="imagefolder"),
        "no dataset",
        datasets=["photos, of what we saw in 2019"],
        repository="acme/my-net",
    ),
    Form("B12", readme(base_model=BASE, model_index=index(**FOLDER), datasets=[DATA]), _one(dataset=DATA)),
    _told(
        "B13",
        trainer(data="imagefolder") + "\nDataset Source: https://www.kaggle.com/datasets/x/wood-rust\n",
        _one(dataset="wood-rust", dataset_from="card"),
        datasets=None,
    ),
    _indexed(
        "B14",
        _one(dataset="food101"),
        datasets=["food101"],
        model_index=index(name="food101", type="food101"),
        repository="acme/vit-base-16-finetuned-eurosat",
    ),
    _indexed(
        "C1", _one(0.9351), model_index=index(metrics=[{"type": "accuracy", "value": 0.9351, "name": "A"}], **LEAVES)
    ),
    _indexed("C2", _one(0.9215, metric="top1"), model_index=index(metrics=_TWO, **LEAVES)),
    _indexed("C3", _one(1.0), model_index=index(1, **LEAVES)),
    _indexed(
        "C4",
        [{"value": 0.9788, "split": None}, {"value": 0.9507, "split": "test"}],
        datasets=["leaves"],
        model_index=_VERIFIED,
    ),
    _indexed(
        "C5",
        _one(0.8955, dataset=DATA),
        model_index=index(
            metrics=[{"name": "Accuracy", "type": "accuracy", "value": 0.8955}, {"type": "AUC", "value": 0.9948}]
        ),
    ),
    _told("C6", trainer(), _one(), model_index=EMPTY),
    _told("C7", trainer(bullets="- eval_loss: 0.3\n- eval_accuracy: 0.8418\n- step: 60\n"), _one(0.8418)),
    _told("C7-untrained", trainer(bullets="- eval_accuracy: 0.0031\n- step: 0\n"), "broke"),
    _told("C8", trainer(bullets="- Loss: 0.4\n- Accuracy: {'accuracy': 0.8683}\n"), _one(0.8683)),
    _told("C9", trainer(bullets="- F1\n    - Weighted: 0.8\n    - Macro: 0.7\n- Accuracy: 0.81\n"), _one(0.81)),
    _told("C9-f1", trainer(bullets="- F1\n    - Weighted: 0.8\n    - Micro: 0.7\n"), _one(0.8, metric="f1")),
    _told(
        "C10",
        trainer(
            bullets="- Train Loss: 0.1\n- Train Accuracy: 0.99\n- Validation Accuracy: 0.95\n"
            "- Validation Top-3-accuracy: 1.0\n- Epoch: 4\n"
        ),
        _one(0.95, split="validation"),
    ),
    _told("C10-train", trainer(bullets="- Train Accuracy: 0.99\n- Epoch: 4\n"), "training split only"),
    _told("C11", "- Accuracy: 93.64%\n", _one(0.9364)),
    _told("C11-prose", "It reaches around 86% on the testing set.\n", _one(0.86, split="test")),
    _told("C11-short", "A net with 98% acc.\n", _one(0.98)),
    _told("C11-table", "| Metric | Value |\n|---|---|\n| Accuracy | 72.3 |\n", _one(0.723)),
    _told(
        "C12",
        "- **Validation set accuracy:** 0.7113\n- **Test set accuracy:** 0.7116\n",
        [{"value": 0.7113, "split": "validation"}, {"value": 0.7116, "split": "test"}],
    ),
    _told(
        "C13",
        _MERGED + "| fine-tuned | 70.0 | 80.0 | 90.0 | 80.0 |\n",
        [{"value": v, "dataset": d, "method": "multitask"} for v, d in zip((0.7, 0.8, 0.9), _SEVERAL, strict=True)],
        datasets=_SEVERAL,
    ),
    _told("C14", "- pre-trained: 0.3012\n- fine-tuned: 0.9911\n", _one(0.9911)),
    _told("C14-table", _RIVALS, _one(0.98)),
    _told(
        "C15",
        "About 93.4%.\n```\n              precision    recall  f1-score   support\n\n    accuracy"
        "                         0.9342     10000\n```\n",
        _one(0.9342, n_test=10000),
    ),
    Form(
        "C16",
        readme("Reaches 94.97% accuracy.", base_model=BASE, datasets=[DATA], model_index=index(0.8929, **LEAVES)),
        _one(0.8929),
    ),
    _told("C17", trainer(), _one(0.9211)),  # in no row of the table
    _indexed("C18", _one(0.77, metric="f1"), model_index=index(metrics=[{"type": "f1", "value": 0.77}], **LEAVES)),
    _told("C19", trainer(bullets="- Accuracy K: 0.99\n- Memory Allocated (gb): 1.2\n- Accuracy: 0.6\n"), _one(0.6)),
    _told("C20", trainer(bullets=""), "no result"),
    _told("C21", trainer(bullets="- Loss: nan\n- Accuracy: 0.1\n"), "broke"),
    _told("C21-rate", "- Accuracy: 0.09\n- learning_rate: 5\n", "broke"),
    Form("C22", trainer(), _one(dataset="leaves")),
    Form("C22-braces", "---\n{}\n---\n" + trainer(), _one(dataset="leaves")),
    _indexed("per-cent", _one(0.9215), model_index=index(92.15, **LEAVES)),
    _indexed(
        "per-cent-by-another",
        _one(0.01),
        model_index=index(metrics=[{"type": "accuracy", "value": 1.0}, {"type": "f1", "value": 2.5}], **LEAVES),
    ),
    _indexed("D1", _one(split="train"), model_index=index(**FOLDER)),
    _indexed("D2", _one(split="train[:5000]"), model_index=index(**LEAVES | {"split": "train[:5000]"})),
    _indexed("D3", _one(split="Training"), model_index=index(**LEAVES | {"split": "Training"})),
    _told("E1", trainer().replace("num_epochs: 3.0", "training_steps: 1000"), _one(epochs=None, learning_rate=5e-05)),
    _told("E2", "- Accuracy: 0.9211\n\nTrained with 5e-5, effective batch size 32.\n", _one(learning_rate=5e-05)),
    _told("E2-lines", "- Accuracy: 0.9211\n- lr:\n  0.01\n- epochs:\n  10\n", _one(learning_rate=0.01, epochs=10.0)),
    _told(
        "E2-keras",
        "- Accuracy: 0.9211\n\noptimizer: {'learning_rate': {'class_name': 'PolynomialDecay', 'config': "
        "{'initial_learning_rate': 3e-05}}}\n",
        _one(learning_rate=3e-05),
    ),
    _told("E3", "- Accuracy: 0.9211\n\nPlanned epochs 12, trained 5 (early stopping).\n", _one(epochs=5.0)),
    *(
        _indexed(
            f"own-{protocol}",
            _one(split="test", n_train=400, n_test=120, dataset="org/data", method=method),
            datasets=["org/data"],
            model_index=index(
                name="org/data",
                type="org/data",
                split="test",
                args={"protocol": protocol, "n_train": 400, "n_test": 120, "seed": 0},
            ),
        )
        for protocol, method in (("full_finetune", "full"), ("linear_probe_full", "frozen"))
    ),
    _indexed(
        "own-local", _one(dataset="x", dataset_from="name"), datasets=None, model_index=index(name="x", type="local")
    ),
]

_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "references": f"---\n{_BOMB}base_model: *i\n---\n{trainer()}",
    "merged": "---\na: &a {x: 1}\nb: {<<: [*a, *a, *a]}\n---\n" + trainer(),
    "nested": "---\n" + "[" * 30000 + "\n---\n" + trainer(),
    "huge number": readme(base_model=BASE, datasets=[DATA]).replace("---\n\n", "n: " + "9" * 20000 + "\n---\n\n")
    + trainer(),
    "huge values": readme(base_model=BASE, datasets=[DATA], model_index=index(10**300, **LEAVES)),
    "infinite": readme(base_model=BASE, datasets=[DATA], model_index=index(float("inf"), **LEAVES)),
    "tag": "---\nx: !!python/object/apply:os.system [true]\n---\n" + trainer(),
    "html": "<script>alert(1)</script>" * 100,
    "10 MB": readme(trainer(), base_model=BASE) + "x" * (10 << 20),
    "long head": readme(trainer(), base_model=BASE, tags=["x" * 90] * 1000),
    "bullets": "- Accuracy" * 20000,
    "spaces": "- Accuracy:" + " " * 200000,
    "blank lines": "\n" * 250000,
    "open brackets": "fine-tuned version of x(" * 10000,
    "rates": "lr " * 80000,
    "a path": readme(trainer(), base_model="../../../etc/passwd"),
    "binary": "".join(map(chr, range(1, 256))) * 50,
    "table": "|" * 100000 + "\n" + "|" * 100000,
}


def read(repository: str, text: str, tags: Sequence[str] = ()) -> tuple[Outcome, ...]:
    """Read a README as harvest does."""
    metadata, body = split_card(text)
    return read_card(repository, metadata, body, tags)


def card_of(row: Mapping[str, str]) -> str:
    """Return the card that would state a row of the shared table of outcomes."""
    data, text = row["dataset_name"] or "unknown", row["base_from"] == "text"
    facts = "".join(
        f"- {name}: {value}\n"
        for name, value in (("learning_rate", row["learning_rate"]), ("num_epochs", row["epochs"]))
        if value
    )
    metadata: dict[str, Any] = {} if text else {"base_model": row["base_model"]}
    if row["dataset_id"]:
        metadata["datasets"] = [row["dataset_id"]]
    base = row["base_model"]
    said = f"fine-tuned version of [{base}](https://huggingface.co/{base}) on the {data} dataset."
    if row["split"]:
        dataset = {"name": data, "type": row["dataset_id"] or "imagefolder", "split": row["split"]}
        metadata["model_index"] = json.loads(json.dumps(index(float(row["value"]), **dataset)))
        return readme((said if text else "") + "\n\n" + facts, **metadata)
    return readme(f"{said if text else ''}\n\n- Loss: 0.3\n- Accuracy: {row['value']}\n\n{facts}", **metadata)
