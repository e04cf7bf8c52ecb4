"""Tasks cut from the shared ones, and their embeddings, kept in a folder between runs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.index.local_checkpoints import CHECKPOINTS, load_local
from hf_task2vec.embedding.distance import log_profile, relative_fisher, symmetric, trivial_embedding
from hf_task2vec.embedding.embed import embed_task
from hf_task2vec.embedding.task_embedding import TaskEmbedding, embedding_config
from hf_task2vec.errors import EmbeddingError, SchemaVersionError
from hf_task2vec.files import canonical_json, sha256_bytes
from hf_task2vec.fisher.head import stratified_folds
from hf_task2vec.probes.checkpoint_files import Transform
from hf_task2vec.probes.probe import Probe
from hf_task2vec.tasks.task import Task

ROOT = Path(__file__).resolve().parents[1]
TASKS = ROOT.parent / "shared" / "tasks"


@dataclass(frozen=True)
class Rows:
    """Labelled encoded images of one dataset."""

    name: str
    images: list[bytes]
    labels: list[str]

    @classmethod
    def of(cls, *tasks: str, splits: Sequence[str] = ("train",)) -> Rows:
        """Read all rows of shared tasks; WordNet ids before class names are dropped."""
        import datasets

        images: list[bytes] = []
        labels: list[str] = []
        for task in tasks:
            for split in splits:
                file = str(TASKS / task / f"{split}.parquet")
                data = datasets.Dataset.from_parquet(file).cast_column("image", datasets.Image(decode=False))
                names = data.features["label"].names
                images += [cell["bytes"] for cell in data["image"]]
                labels += [_plain(names[label]) for label in data["label"]]
        return cls("+".join(tasks), images, labels)

    def cut(self, name: str, classes: Sequence[str], images: int, *, seed: int = 0) -> Task:
        """Draw a task of some of the classes."""
        chosen = [i for i, label in enumerate(self.labels) if label in classes]
        return task_of(name, [self.images[i] for i in chosen], [self.labels[i] for i in chosen], images, seed=seed)


def _plain(name: str) -> str:
    first, _, rest = name.partition(" ")
    return rest if first[0] == "n" and first[1:].isdigit() else name


def task_of(
    name: str, images: Sequence[bytes], labels: Sequence[str], max_samples: int | None = None, *, seed: int = 0
) -> Task:
    """Make a task of encoded images and class names, numbered in alphabetical order."""
    import datasets

    classes = sorted(set(labels))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    data = datasets.Dataset.from_dict(
        {"image": [{"bytes": image, "path": None} for image in images], "label": [classes.index(x) for x in labels]},
        features=features,
    )
    data.info.dataset_name = name
    return Task.from_dataset(data, max_samples=max_samples, seed=seed)


def shared_task(name: str, images: int, *, seed: int = 0) -> Task:
    """Draw from the training part of a shared task."""
    return Task.from_dataset(TASKS / name, split="train", max_samples=images, seed=seed)


def png(image: Image.Image) -> bytes:
    """Encode without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def transformed(task: Task, change: Callable[[Image.Image], Image.Image], what: str) -> Task:
    """Return the same sample with other pixels."""
    names = [task.label_names[label] for label in task.labels]
    return task_of(f"{task.dataset} {what}", [png(change(image)) for image in task.images], names)


def shrunk(side: int) -> Callable[[Image.Image], Image.Image]:
    """Return a function that shrinks images until their shorter side has `side` pixels, and never enlarges."""

    def shrink(image: Image.Image) -> Image.Image:
        scale = side / min(image.size)
        if scale >= 1:
            return image
        return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)

    return shrink


def at_input_size(probe: Probe, side: int) -> Probe:
    """Return a convolutional probe that sees images of another size, cropped and normalised as before."""
    from timm.data import create_transform

    settings = {**probe.preprocessing, "input_size": (3, side, side)}
    transform: Transform = create_transform(**settings, is_training=False)
    return Probe.wrap(
        probe.module, transform=transform, feature_dim=probe.feature_dim, input_size=(3, side, side), name=probe.name
    )


def embedded(task: Task, probe: Probe, cache: Path, **settings: Any) -> TaskEmbedding:
    """Embed a task, or read the embedding from an earlier run; `settings` are those of `embedding_config`.

    The package's own cache serves neither other label samplings nor probes that differ in preprocessing alone.
    """
    identity = {"task": task.fingerprint, "probe": probe.config, "config": embedding_config(**settings)}
    folder = cache / sha256_bytes(canonical_json(identity))[:32]
    try:
        return TaskEmbedding.load(folder)
    except (EmbeddingError, SchemaVersionError):
        embedding = embed_task(task, probe, **settings)
        embedding.save(folder)
        return embedding


def halves_of(task: Task) -> tuple[Task, Task]:
    """Split into two disjoint tasks of the same mix of classes."""
    side = stratified_folds(task.labels, 2, seed=1)
    return task.subset(np.flatnonzero(side == 0)), task.subset(np.flatnonzero(side == 1))


def permuted(task: Task, *, seed: int) -> Task:
    """Give the classes other numbers."""
    to = np.random.default_rng(seed).permutation(task.num_classes)
    back = np.argsort(to)
    names = tuple(task.label_names[i] for i in back)
    return task.with_labels(to[task.labels], names, task.class_counts[back])


def coarsened(task: Task, count: int, *, seed: int) -> Task:
    """Merge classes at random into `count` groups of about equal size; images and their order stay."""
    group = np.random.default_rng(seed).permutation(task.num_classes) % count
    counts = np.bincount(group, weights=task.class_counts, minlength=count).astype(np.int64)
    names = tuple(f"group {i}" for i in range(count))
    return task.with_labels(group[task.labels], names, counts)


def norm_forms(e: TaskEmbedding) -> dict[str, float]:
    """Norms of an embedding: raw; of per-layer relative values; of their logarithms; distance from a flat embedding."""
    values, sizes = e.values.astype(np.float64), e.layer_sizes
    return {
        "raw_l2": float(np.linalg.norm(values)),
        "raw_l1": float(values.sum()),
        "relative_l2": float(np.sqrt(np.mean(relative_fisher(values, sizes) ** 2))),
        "log_spread": float(np.std(log_profile(values, sizes))),
        "from_trivial": float(symmetric(values, trivial_embedding(values, sizes))[0, 0]),
    }


def local_probe(name: str) -> Probe:
    """Load weights that are on no Hub."""
    return load_local(CHECKPOINTS / name)
