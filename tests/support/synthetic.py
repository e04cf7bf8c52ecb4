"""Small made-up embeddings, a tiny probe, datasets of coloured noise, and an index over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hf_task2vec.embedding.task_embedding import DESCRIPTORS, TaskEmbedding
from hf_task2vec.zoo.index import ZooIndex

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import datasets
    import pandas as pd
    from PIL import Image
    from torch import Tensor

    from hf_task2vec.probes.probe import Probe

TINY = "org/tiny-probe"
SIZES = (8, 16)


def embedding(seed: int = 0, *, weights_hash: str = "ab" * 32, **changes: Any) -> TaskEmbedding:
    """Return an embedding with the shape of `tiny_probe`'s, of random values."""
    rng = np.random.default_rng(seed)
    numbers = (3.0, 64.0, 90.0, 1.0, 0.6, 0.4, 0.2, 0.3, 0.35, 100.0, 0.0, 0.05)
    fields: dict[str, Any] = {
        "values": rng.lognormal(-6, 2, (1, sum(SIZES))).astype(np.float32),
        "layer_names": ("0", "2"),
        "layer_sizes": np.array(SIZES, dtype=np.int64),
        "feature_mean": rng.normal(size=(1, 16)).astype(np.float32),
        "feature_var": rng.random((1, 16)).astype(np.float32),
        "probe": {"name": TINY, "weights_hash": weights_hash, "input_size": [3, 16, 16]},
        "task": {"dataset": f"task{seed}", "label_names": ["é", "b"], "skipped": []},
        "descriptors": dict(zip(DESCRIPTORS, numbers, strict=True)),
        "config": {"label_sampling": "sketch", "seed": 0},
        "versions": {"torch": "2"},
    }
    fields |= changes
    fields |= {"tasks": (fields.pop("task"),), "task_descriptors": (fields.pop("descriptors"),)}
    return TaskEmbedding(**fields)


def tiny_probe(seed: int = 0) -> Probe:
    """Return a two-layer probe of 16 px images with random weights."""
    import torch
    from torch import nn

    from hf_task2vec.probes.probe import Probe

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
    return Probe.wrap(network, transform=to_tensor, feature_dim=16, input_size=(3, 16, 16), name=TINY)


def to_tensor(image: Image.Image) -> Tensor:
    import torch

    return torch.from_numpy(np.asarray(image.resize((16, 16)), dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1.0


def pictures(count: int = 24, classes: int = 3, *, seed: int = 0, size: tuple[int, int] = (20, 12)) -> list[np.ndarray]:
    """Return `count` noisy pictures of ``(width, height)``, the i-th in the colour of class ``i % classes``."""
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(1).integers(40, 200, (classes, 3))
    noise = rng.normal(0, 30, (count, size[1], size[0], 3))
    return [np.clip(colours[i % classes] + noise[i], 0, 255).astype(np.uint8) for i in range(count)]


def dataset(count: int = 24, classes: int = 3, **options: Any) -> datasets.Dataset:
    """Return `pictures` as a dataset with columns ``image`` and ``label``."""
    return as_dataset(pictures(count, classes, **options), [i % classes for i in range(count)], classes)


def image_folder(folder: Path, count: int = 24, classes: int = 3, **options: Any) -> Path:
    """Write `pictures` into a folder a class."""
    from PIL import Image

    for i, picture in enumerate(pictures(count, classes, **options)):
        (folder / f"class {i % classes}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"class {i % classes}" / f"{i}.png")
    return folder


def as_dataset(images: list[np.ndarray], labels: list[Any], classes: int) -> datasets.Dataset:
    import io

    import datasets
    from PIL import Image

    cells = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        cells.append({"bytes": stream.getvalue(), "path": None})
    names = [f"class {i}" for i in range(classes)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    return datasets.Dataset.from_dict({"image": cells, "label": labels}, features=features)


def broken_cells(data: datasets.Dataset, at: Iterable[int], cell: bytes = b"broken") -> datasets.Dataset:
    """Return the dataset with other bytes instead of some images."""
    import datasets

    cells = list(data.cast_column("image", datasets.Image(decode=False))["image"])
    for row in at:
        cells[row] = {"bytes": cell, "path": None}
    return datasets.Dataset.from_dict({"image": cells, "label": list(data["label"])}, features=data.features)


#: Hub id to facts; the higher in this list, the better on any task.
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "org/best-unknown": {},  # all optional facts unknown
    "org/huge": {"params_m": 300.0, "gmacs": 60.0, "input_px": 384, "license": "cc-by-nc-4.0", "in1k_top1": 0.88},
    "local:secret": {"params_m": 20.0, "gmacs": 4.0, "input_px": 224, "license": "mit", "in1k_top1": 0.87},
    "org/mid": {
        "params_m": 25.0,
        "gmacs": 4.1,
        "input_px": 224,
        "license": "mit",
        "in1k_top1": 0.8,
        "throughput_cpu": 40.0,
    },
    "org/hf": {"params_m": 22.0, "gmacs": 4.0, "input_px": 224, "license": "mit", "library": "transformers"},
    "org/small": {
        "params_m": 5.0,
        "gmacs": 0.4,
        "input_px": 224,
        "license": "apache-2.0",
        "in1k_top1": 0.75,
        "throughput_cpu": 50.0,
    },
    TINY: {"params_m": 1.0, "gmacs": 0.1, "input_px": 16, "license": "apache-2.0", "in1k_top1": 0.6},
}
UNSCORED = "org/unscored"
REFERENCES = tuple(f"task{i}" for i in range(4))


def files_in(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder by their relative names."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as an index takes them: without what is missing."""
    import pandas as pd

    rows = frame.to_dict("records")
    return [{k: v for k, v in row.items() if isinstance(v, tuple) or not pd.isna(v)} for row in rows]


def zoo(references: dict[str, TaskEmbedding] | None = None, *, weights_hash: str = "ab" * 32) -> ZooIndex:
    """Return an index of `CHECKPOINTS` and `UNSCORED`, measured on four made-up tasks and on `references`."""
    embeddings = {name: embedding(i + 1, weights_hash=weights_hash) for i, name in enumerate(REFERENCES)}
    embeddings |= references or {}
    source = {"source": "lab", "repo": "lab/results", "protocol": "probe", "split": "loo", "metric": "top-1"}
    shared = {"library": "timm", "architecture": "net", "family": "net", "facts_source": "lab"}
    checkpoints = [{**shared, "hub_id": hub_id, **facts} for hub_id, facts in {**CHECKPOINTS, UNSCORED: {}}.items()]
    rng = np.random.default_rng(0)
    scores = []
    for task in embeddings:
        for position, hub_id in enumerate(CHECKPOINTS):
            logit = 3.0 - 0.8 * position + rng.normal(0, 0.05)
            row = {"task": task, "checkpoint": hub_id, "score": round(float(1 / (1 + np.exp(-logit))), 4)}
            facts = {"metric": "top1", "protocol": "linear_probe_loo", "split": "loo", "source": "lab", "n_test": 500}
            scores.append({**row, **facts, "source_license": "mit", "checkpoint_match": "measured", "leak": False})
    index = ZooIndex(rows={}, created="2026-01-02", package_version="0.1.0")
    index = index.add_sources([{**source, "license": "mit"}]).add_checkpoints(checkpoints)
    index = index.add_tasks([{"task": name, "title": name, "domain": "made_up"} for name in embeddings])
    return index.add_scores(scores).with_embeddings(TaskEmbedding.stack(list(embeddings.values())), list(embeddings))


def with_experts(index: ZooIndex, *experts: tuple[str, str, str], **changes: Any) -> ZooIndex:
    """Return the index with scores on cards: of each repository its base and what it was fine-tuned on."""
    source = {"source": "hub_cards", "repo": "cards", "protocol": "any", "split": "any", "metric": "accuracy"}
    if "hub_cards" not in index.sources["source"].tolist():
        index = index.add_sources([{**source, "license": "facts only"}])
    shared = {"source": "hub_cards", "protocol": "full_finetune", "metric": "top1", "score": 0.9, "leak": False}
    shared |= {"source_license": "facts only", "checkpoint_match": "exact"}
    return index.add_scores(
        {"source_model": name, "checkpoint": base, "task": task, "split": f"by_{i}", **shared, **changes}
        for i, (name, base, task) in enumerate(experts)
    )


def measured_zoo(**groups: str) -> ZooIndex:
    """`zoo`, with scores of the source that defines the unit, a leaked score, and groups of near duplicates."""
    index = zoo()
    source = {"source": "hf_task2vec_measured", "repo": "a/b", "protocol": "probe", "split": "loo", "metric": "top-1"}
    scores = index.scores.copy()
    scores["source"] = "hf_task2vec_measured"
    leaked = scores[(scores["task"] == "task0") & (scores["checkpoint"] == "org/huge")].index
    scores.loc[leaked, "leak"] = True
    rows = index.tasks.copy()
    rows["near_duplicate_group"] = [groups.get(name) for name in rows["task"]]
    index = index.add_sources([{**source, "license": "mit"}]).add_tasks(records(rows), replace=True)
    return index.add_scores(records(scores))


def blobs(n: int, d: int, c: int = 3, *, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % c)
    return spread * rng.normal(size=(c, d))[labels] + rng.normal(size=(n, d)) + 1.0, labels
