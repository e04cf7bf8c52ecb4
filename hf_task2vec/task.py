"""A task: a balanced sample of labelled images of one dataset, and where it came from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ImageDecodeError, TaskError
from .files import canonical_json, sha256_bytes
from .images import ImageSample, ImageStore, StoredImage
from .labels import LabelKind, Labels
from .rows import SplitRows, open_rows
from .sampling import BalancedSampler, draw_sample
from .sources import Source, open_source, reading

if TYPE_CHECKING:
    import os

    import datasets

logger = logging.getLogger(__name__)

_READ_AT_ONCE = 64  # rows whose encoded bytes are in memory before they are decoded


@dataclass(frozen=True)
class SkippedImage:
    """An image that was drawn and found broken."""

    row: int
    reason: str


@dataclass(frozen=True, eq=False)
class Task:
    """A seeded sample of a dataset of images with classes, balanced between them.

    Made by `Task.from_dataset`. N is the number of images, C of classes.
    """

    dataset: str
    """Hub id, folder name, ``"sklearn:digits"``, or for in-memory data its name, else ``"dataset"``."""
    revision: str | None
    """Commit of a Hub dataset; None for other data, and where the Hub could not be asked."""
    config_name: str | None
    split: str | None
    image_column: str
    label_column: str
    label_kind: LabelKind
    label_names: tuple[str, ...]
    """Length C, including classes that have no row in the split."""
    labels: np.ndarray
    """``single_label``: shape (N,), int64 in [0, C). ``multi_label``: shape (N, C), uint8 zeros and ones."""
    indices: np.ndarray
    """Shape (N,), int64: rows of the split that were drawn."""
    images: ImageSample
    """N RGB images."""
    n_rows: int
    """Rows in the split; of a stream, rows looked at."""
    class_counts: np.ndarray
    """Shape (C,), int64: labelled rows of each class among all `n_rows`."""
    skipped: tuple[SkippedImage, ...]
    """Broken images met while drawing; each was replaced by another of its class while there was one."""
    n_unlabelled: int
    """Rows without a label, which are never drawn."""
    content_digest: str
    """SHA-256 over the images' encoded bytes and the labels, in order."""
    seed: int
    drawn_from: str | None = None
    """Which rows the sample was drawn from, where not from all: see `from_dataset`."""

    @classmethod
    def from_dataset(
        cls,
        dataset: (
            str
            | os.PathLike[str]
            | datasets.Dataset
            | datasets.DatasetDict
            | datasets.IterableDataset
            | datasets.IterableDatasetDict
        ),
        *,
        name: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        streaming: bool = False,
        image_column: str | None = None,
        label_column: str | None = None,
        max_samples: int | None = 256,
        seed: int = 0,
    ) -> Task:
        """Find the columns of a dataset and draw a sample.

        Only the label column and the images drawn are read. The sample is shuffled and shares `max_samples` as evenly
        among the classes as their sizes allow; every prefix of it is balanced in the same way, and a smaller sample
        with the same seed is the beginning of a larger one. Of several labels an image, the one that the sample holds
        fewest of is drawn for. What is chosen is logged at level INFO.

        Of a dataset of Parquet files on the Hub only the footers, the labels and the images drawn are transferred, and
        kept in the cache folder. Where reading any row would cost more than 32 MB, the sample is drawn from the rows
        near the start of a row group or page (see `hub_dataset`), which `drawn_from` then says.

        Parameters
        ----------
        dataset
            A Hub dataset id, a local folder (one subfolder of images a class, optionally inside ``train``/``test``;
            parquet files; or saved by ``save_to_disk``), an object of the `datasets` library, or ``"sklearn:digits"``,
            an offline sample of 8x8 digits. An existing folder is never taken for a Hub id.
        name
            Configuration of a dataset that has several.
        split
            By default ``"train"``, else the only split.
        revision
            Branch, tag or commit of a Hub dataset.
        token
            Hub token for private and gated datasets.
        streaming
            Read a folder, or a Hub dataset that is not Parquet, row by row instead of downloading all splits of it
            first: one pass over at most `rows.MAX_SCAN_ROWS` (50,000) rows, in bounded memory.
        image_column, label_column
            Columns to use where they cannot be found by type and name. A label column of `ClassLabel`, integers,
            strings or booleans makes a task with one label an image, one of lists of these (or of zeros and ones) a
            task with several.
        max_samples
            Images to draw, at least 2; None for all.
        seed
            Seed of the sample.

        Raises
        ------
        DatasetNotFoundError
            If there is no such dataset, folder, configuration, split or revision.
        ColumnError
            If a column is missing or ambiguous, or holds the boxes or masks of detection or segmentation, which are not
            supported; the message lists the columns and says what would work.
        LabelError
            If the labels are no classes (such as floats), all missing, or all the same.
        ImageDecodeError
            If no image can be decoded.
        TaskError
            For an empty split, a dataset made by a script, or an argument out of range. Base class of those above.
        HubError
            If the Hub cannot be reached.

        Examples
        --------
        >>> task = Task.from_dataset("sklearn:digits", max_samples=20)
        >>> len(task), task.num_classes, task.images[0].size
        (20, 10, (8, 8))
        """
        if max_samples is not None and max_samples < 2:
            raise TaskError(f"max_samples={max_samples}: at least 2 images are needed, or None for all")
        logger.info("reading the dataset")
        source = open_source(dataset, name=name, split=split, revision=revision, token=token, streaming=streaming)
        with reading(source.dataset, token):
            split_rows = open_rows(source, image_column, label_column, max_samples, seed)
            return _draw(cls, source, split_rows, max_samples, seed, token)

    @property
    def num_classes(self) -> int:
        """C, counting classes without a row."""
        return len(self.label_names)

    @property
    def sample_counts(self) -> np.ndarray:
        """Shape (C,), int64: images of each class in the sample."""
        if self.label_kind == "multi_label":
            return self.labels.sum(axis=0, dtype=np.int64)
        return np.bincount(self.labels, minlength=self.num_classes)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return (
            f"Task({self.dataset!r}, split={self.split!r}, {len(self)} of {self.n_rows} rows, "
            f"{self.num_classes} classes, {self.label_kind})"
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what defines the task: dataset, revision, columns, sample, label names and content."""
        identity = {
            "dataset": self.dataset,
            "revision": self.revision,
            "config_name": self.config_name,
            "split": self.split,
            "image_column": self.image_column,
            "label_column": self.label_column,
            "label_kind": self.label_kind,
            "label_names": list(self.label_names),
            "indices": self.indices.tolist(),
            "content_digest": self.content_digest,
        }
        return sha256_bytes(canonical_json(identity))

    def subset(self, positions: Iterable[int]) -> Task:
        """Return the task of the images at `positions` (0 to N - 1) of this sample, with the same classes.

        What describes the whole split (`n_rows`, `class_counts`, `n_unlabelled`, `skipped`) stays as it is.
        """
        chosen = np.fromiter(positions, dtype=np.int64)
        images, labels = self.images.take(chosen.tolist()), self.labels[chosen]
        digest = _content_digest(images, labels)
        return replace(self, labels=labels, indices=self.indices[chosen], images=images, content_digest=digest)

    def describe(self) -> dict[str, Any]:
        """Return provenance and counts as plain JSON types, without any local path."""
        return {
            "dataset": self.dataset,
            "revision": self.revision,
            "config_name": self.config_name,
            "split": self.split,
            "image_column": self.image_column,
            "label_column": self.label_column,
            "label_kind": self.label_kind,
            "label_names": list(self.label_names),
            "n_rows": self.n_rows,
            "n_unlabelled": self.n_unlabelled,
            "n_samples": len(self),
            "class_counts": self.class_counts.tolist(),
            "sample_counts": self.sample_counts.tolist(),
            "skipped": [{"row": image.row, "reason": image.reason} for image in self.skipped],
            "seed": self.seed,
            **({} if self.drawn_from is None else {"drawn_from": self.drawn_from}),
            "content_digest": self.content_digest,
            "fingerprint": self.fingerprint,
        }


def _draw(
    cls: type[Task], source: Source, split_rows: SplitRows, max_samples: int | None, seed: int, token: str | bool | None
) -> Task:
    labels = split_rows.labels
    _warn_of_uncovered_classes(labels, max_samples)
    rows, classes = labels.sampling_pairs()
    if split_rows.rows_with_image is not None:
        kept = np.isin(rows, split_rows.rows_with_image)
        rows, classes = rows[kept], classes[kept]
    store = ImageStore()

    def load(wanted: Sequence[int]) -> list[StoredImage | str]:
        found: list[StoredImage | str] = []
        for start in range(0, len(wanted), _READ_AT_ONCE):
            logger.info("drawing the sample: %d of %d images", start, len(wanted))
            cells = split_rows.read(wanted[start : start + _READ_AT_ONCE])
            found += store.store_all(cells, token=token, may_read=source.may_read)
        return found

    sampler = BalancedSampler(rows, classes, np.random.default_rng(seed))
    drawn, stored, skipped = draw_sample(sampler, max_samples, load)
    _check_drawn(source, drawn, skipped, labels)
    indices = np.asarray(drawn, dtype=np.int64)
    images, sample_labels = ImageSample(stored), labels.of(indices)
    n_rows = len(labels.labelled)
    logger.info("%d of %d rows of %s drawn, %d classes", len(indices), n_rows, source.dataset, len(labels.names))
    return cls(
        dataset=source.dataset,
        revision=source.revision,
        config_name=source.config_name,
        split=source.split,
        image_column=split_rows.image_column,
        label_column=split_rows.label_column,
        label_kind=labels.kind,
        label_names=labels.names,
        labels=sample_labels,
        indices=indices,
        images=images,
        n_rows=n_rows,
        class_counts=labels.counts,
        skipped=tuple(SkippedImage(row, reason) for row, reason in skipped),
        n_unlabelled=labels.n_unlabelled,
        content_digest=_content_digest(images, sample_labels),
        seed=seed,
        drawn_from=split_rows.note,
    )


def _warn_of_uncovered_classes(labels: Labels, max_samples: int | None) -> None:
    present = int(np.count_nonzero(labels.counts))
    if max_samples is not None and max_samples < present:
        logger.warning(
            "max_samples=%d covers at most %d of %d classes; max_samples=%d would cover all",
            max_samples,
            max_samples,
            present,
            present,
        )


def _check_drawn(source: Source, drawn: Sequence[int], skipped: Sequence[tuple[int, str]], labels: Labels) -> None:
    if not skipped:
        return
    reasons = "; ".join(f"row {row}: {reason}" for row, reason in skipped[:3])
    if not drawn:
        raise ImageDecodeError(f"all {len(skipped)} images of {source.dataset!r} are broken ({reasons}, …)")
    if labels.kind == "single_label" and len(np.unique(labels.of(np.asarray(drawn)))) == 1:
        raise ImageDecodeError(
            f"{len(skipped)} images of {source.dataset!r} are broken ({reasons}, …), and only one class is left"
        )
    logger.warning("%d broken images of %s skipped (%s)", len(skipped), source.dataset, reasons)


def _content_digest(images: ImageSample, labels: np.ndarray) -> str:
    digest = hashlib.sha256()
    for sha256, label in zip(images.sha256, labels, strict=True):
        digest.update(bytes.fromhex(sha256))
        digest.update(np.ascontiguousarray(label).astype("<i8").tobytes())
    return digest.hexdigest()
