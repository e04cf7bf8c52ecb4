"""What a cell measures: the sample of a task, and every evaluation of a checkpoint's features on it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hf_task2vec.errors import LabelError
from hf_task2vec.sources import open_source
from hf_task2vec.sweep_inputs import Checkpoint, SweepTask
from hf_task2vec.task import Task
from hf_task2vec.transfer import finite
from hf_task2vec.transferability import Score, ridge_leave_one_out

if TYPE_CHECKING:
    from hf_task2vec.probe import Probe

logger = logging.getLogger(__name__)

_TEST_SPLITS = ("test", "validation", "valid", "val", "dev", "eval")
# Modules of timm's registry whose family the index calls otherwise.
_FAMILIES = {
    "vision_transformer": "vit",
    "vision_transformer_hybrid": "vit_hybrid",
    "vision_transformer_relpos": "vit_relpos",
    "vision_transformer_sam": "vit_sam",
    "swin_transformer": "swin",
    "swin_transformer_v2": "swinv2",
    "swin_transformer_v2_cr": "swinv2_cr",
    "mlp_mixer": "mixer",
}


@dataclass(frozen=True, eq=False)
class Sample:
    """The images of a task that are measured: a training part, and a test part if the dataset has one.

    Attributes
    ----------
    labels
        Shape (N,), int64: of both parts, training part first, in one numbering of the classes.
    """

    train: Task
    test: Task | None
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]

    @classmethod
    def draw(cls, task: SweepTask, *, max_samples: int | None, seed: int, token: str | None) -> Sample:
        """Draw at most `max_samples` images of each split.

        Raises
        ------
        TaskError, HubError
            As :meth:`Task.from_dataset`.
        LabelError
            An image may have several labels.
        """
        spec = task.spec
        where: dict[str, Any] = {"name": spec.name, "revision": task.revision, "token": token}
        where["streaming"] = spec.streaming
        drawing = where | {"image_column": spec.image_column, "label_column": spec.label_column}
        drawing |= {"max_samples": max_samples, "seed": seed}
        train = Task.from_dataset(spec.dataset, split=spec.split, **drawing)
        if train.label_kind != "single_label":
            raise LabelError("measuring checkpoints on multi-label tasks is not supported yet; pick one label column")
        if spec.test_split is not None:
            return cls.join(train, Task.from_dataset(spec.dataset, split=spec.test_split, **drawing))
        others = open_source(spec.dataset, split=spec.split, **where).other_splits
        for name in (name for name in _TEST_SPLITS if name in others):
            try:
                return cls.join(train, Task.from_dataset(spec.dataset, split=name, **drawing))
            except LabelError as error:  # many benchmarks publish their test images without labels
                logger.info("split %r of %s is not used: %s", name, spec.dataset, error)
        return cls.join(train, None)

    @classmethod
    def join(cls, train: Task, test: Task | None) -> Sample:
        """Number the classes of both parts alike: by name."""
        if test is None or test.label_names == train.label_names:
            labels = train.labels if test is None else np.concatenate([train.labels, test.labels])
            return cls(train, test, labels, train.label_names)
        if test.label_kind != "single_label":
            raise LabelError(f"{test!r} has several labels an image, unlike the training split")
        names = (*train.label_names, *(name for name in test.label_names if name not in train.label_names))
        position = np.array([names.index(name) for name in test.label_names], dtype=np.int64)
        return cls(train, test, np.concatenate([train.labels, position[test.labels]]), names)

    @property
    def parts(self) -> tuple[Task, ...]:
        """The tasks whose images make up the sample."""
        return (self.train,) if self.test is None else (self.train, self.test)

    def describe(self) -> dict[str, Any]:
        """Return counts and provenance, JSON-able."""
        skipped = [image for part in self.parts for image in part.skipped]
        return {
            "n": len(self.labels),
            "n_train": len(self.train),
            "n_test": len(self.labels) - len(self.train),
            "n_classes": len(np.unique(self.labels)),
            "splits": [part.split for part in self.parts],
            "revision": self.train.revision,
            "fingerprints": [part.fingerprint for part in self.parts],
            "skipped": len(skipped),
            "skipped_reasons": sorted({image.reason for image in skipped})[:5],
        }


def evaluate(
    features: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[dict[str, float], dict[str, NDArray[np.bool_]]]:
    """Evaluate features, shape (N, d).

    Returns
    -------
    measurement
        ``linear`` and ``linear_se``, the leave-one-out accuracy of a linear probe and its standard error; and ``dim``.
    correct
        Which examples ``linear`` classified rightly.
    """
    correct = ridge_leave_one_out(finite(features), labels)
    score = Score.of_share(float(correct.mean()), len(labels))
    return {"dim": features.shape[1], "linear": score.value, "linear_se": score.std_error}, {"linear": correct}


def facts_of(checkpoint: Checkpoint, probe: Probe) -> dict[str, Any]:
    """Return columns of ``checkpoints.csv`` that loading shows; parameters are those of the feature extractor."""
    facts = dict(checkpoint.facts)
    if (architecture := facts.get("architecture")) and (family := family_of(facts.get("library"), architecture)):
        facts["family"] = family
    params = sum(parameter.numel() for parameter in probe.module.parameters())
    return facts | {"params_m": params / 1e6 or None, "input_px": probe.input_size[1]}


def family_of(library: str | None, architecture: str) -> str | None:
    """Return the family of an architecture: timm's module that defines it, or the model type of transformers."""
    if library != "timm":
        return re.sub(r"[^a-z0-9_.\-]", "_", architecture.lower()).lstrip("_.-") or None
    import timm

    if not timm.is_model(architecture):
        return None
    module = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    return _FAMILIES.get(module, module)
