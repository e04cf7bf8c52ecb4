"""A task: a balanced sample of labelled images of one dataset, and where it came from."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from hf_task2vec.errors import ImageDecodeError
from hf_task2vec.files import canonical_json, sha256_bytes
from hf_task2vec.tasks.hub_datasets import reading
from hf_task2vec.tasks.images import ImageSample, ImageStore, StoredImage, identify, settle
from hf_task2vec.tasks.labels import LabelKind, Labels
from hf_task2vec.tasks.progress import stage
from hf_task2vec.tasks.rows import Rows, open_rows
from hf_task2vec.tasks.sampling import Filled, Unusable
from hf_task2vec.tasks.source import Reading, Sampling, Source
from hf_task2vec.tasks.sources import open_source
from hf_task2vec.tasks.text import counted, listed, shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SkippedImage:
    """An image that was drawn and found broken; the name of its file, with the folder, where it has one."""

    row: int
    reason: str
    name: str = ""


@dataclass(frozen=True, eq=False)
class Sample:
    """The images of a task that could be decoded, and their labels; see `Task` for the attributes."""

    labels: np.ndarray
    indices: np.ndarray
    images: ImageSample
    skipped: tuple[SkippedImage, ...]
    notes: tuple[str, ...] = ()  # what the pixels are, where not plain 8-bit colours
    warnings: tuple[str, ...] = ()  # what makes the images less fit to judge by
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)  # black and white by kind, where not 8 bits

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 over the images' encoded bytes and the labels, in order."""
        digest = hashlib.sha256()
        for sha256, label in zip(self.images.sha256, self.labels, strict=True):
            digest.update(bytes.fromhex(sha256))
            digest.update(np.ascontiguousarray(label).astype("<i8").tobytes())
        return digest.hexdigest()

    def take(self, positions: np.ndarray) -> Sample:
        """Return the images at `positions`."""
        images = self.images.take(positions.tolist())
        return replace(self, labels=self.labels[positions], indices=self.indices[positions], images=images)


@dataclass(frozen=True, eq=False)
class Task:
    """A seeded sample of a dataset of images with classes, balanced between them.

    Made by `Task.from_dataset`, which finds the columns and labels; images are read when they are first needed. N is
    the number of images, C of classes.
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
    n_rows: int
    """Rows in the split; of a stream, rows taken."""
    class_counts: np.ndarray
    """Shape (C,), int64: labelled rows of each class among all `n_rows`."""
    n_unlabelled: int
    """Rows without a label, which are never drawn."""
    fingerprint: str
    """SHA-256 of what defines the sample, known before an image is read: dataset, columns, labels, rows drawn, seed;
    and the commit of a Hub dataset, else the size and time of change of the image or Parquet files, or the bytes of
    images that other data hold."""
    seed: int
    draw: Callable[[], Sample] = field(repr=False)
    """Reads the images."""
    drawn_from: str | None = None
    """Which rows the sample was drawn from, where not from all: see `from_dataset`."""
    other_splits: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading, repr=False)
    """What was read of the dataset, and what was left out."""

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        name: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        streaming: bool = False,
        image_column: str | None = None,
        label_column: str | None = None,
        labels_from: str | None = None,
        max_samples: int | None = 256,
        seed: int = 0,
    ) -> Task:
        """Find the columns of a dataset and draw a sample.

        Only the label column is read, and the images drawn when they are first needed. The sample is shuffled and
        shares `max_samples` as evenly among the classes as their sizes allow; every prefix of it is balanced in the
        same way, and a smaller sample with the same seed is the beginning of a larger one. Of several labels an image,
        the one that the sample holds fewest of is drawn for. What is chosen is logged at level INFO.

        Of a dataset of Parquet files on the Hub only the footers, the labels and the images drawn are transferred, and
        kept in the cache folder. Where reading any row would cost more than 32 MB, the sample is drawn from the rows
        near the start of a row group or page (see `parquet.remote`), which `drawn_from` then says.

        Parameters
        ----------
        dataset
            A Hub dataset id, or the address of its page; a local folder (one subfolder of images a class, optionally
            inside ``train``/``test``; images and a table that names them; WebDataset tars; Parquet or Arrow files; or
            saved by ``save_to_disk``); a file of these: zip, tar, table, Parquet, Arrow; an object of the `datasets`
            library, a DataFrame or Arrow table with a column of paths, bytes or Pillow images, a torch dataset of
            (image, class), arrays (X, y), a list of (image, label), a dictionary of any of these by split; or
            ``"sklearn:digits"``, an offline sample of 8x8 digits. An existing folder is never taken for a Hub id.
            Nothing local is copied; `reading` says how it was understood.
        name
            Configuration of a dataset that has several.
        split
            By default ``"train"``, else the only split.
        revision
            Branch, tag or commit of a Hub dataset.
        token
            Hub token for private and gated datasets.
        streaming
            Read a Hub dataset that is not Parquet row by row instead of downloading all splits of it first. The sample
            is then drawn from eight times as many rows as it holds (at least 1,024), shuffled as `datasets` shuffles a
            stream.
        image_column, label_column
            Columns to use where they cannot be found by type and name. A label column of `ClassLabel`, integers,
            strings or booleans makes a task with one label an image, one of lists of these (or of zeros and ones) a
            task with several; columns of flags are named together, with commas.
        labels_from
            Of a local folder that can be read in several ways: ``"folders"``, ``"subfolders"`` (the innermost),
            ``"names"`` (of the files, up to their number), the name of a table in it, or a column; see `reading`.
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
        TaskError
            For an empty split, a dataset made by a script, or an argument out of range. Base class of those above.
        HubError
            If the Hub cannot be reached.

        Notes
        -----
        Images that cannot be decoded are replaced by others of their class when the sample is read. If none is left,
        or of one class only, that raises `ImageDecodeError`.

        Examples
        --------
        >>> task = Task.from_dataset("sklearn:digits", max_samples=20)
        >>> len(task), task.num_classes, task.images[0].size
        (20, 10, (8, 8))
        """
        sampling = Sampling(
            name, split, revision, image_column, label_column, labels_from, streaming, max_samples, seed
        )
        warnings: list[str] = []

        def warn(text: str) -> None:
            logger.warning("%s", text)
            warnings.append(text)

        with stage("reading the dataset"):
            source = open_source(dataset, sampling, token, warn)
            with reading(source.dataset, token):
                rows = open_rows(source, sampling, warn)
                fingerprint = _fingerprint(source, rows, seed)
        labels = rows.labels
        return cls(
            dataset=source.dataset,
            revision=source.revision,
            config_name=source.config_name,
            split=source.split,
            image_column=rows.image_column,
            label_column=rows.label_column,
            label_kind=labels.kind,
            label_names=labels.names,
            n_rows=len(labels.labelled),
            class_counts=labels.counts,
            n_unlabelled=labels.n_unlabelled,
            fingerprint=fingerprint,
            seed=seed,
            draw=partial(_read_sample, source, rows, token),
            drawn_from=rows.note,
            other_splits=source.other_splits,
            reading=replace(
                source.reading,
                labels_from=source.reading.labels_from or f"column {rows.label_column!r}",
                warnings=tuple(warnings),
            ),
        )

    @cached_property
    def sample(self) -> Sample:
        """The images and their labels, read when first asked for."""
        return self.draw()

    @property
    def labels(self) -> np.ndarray:
        """``single_label``: shape (N,), int64 in [0, C). ``multi_label``: shape (N, C), uint8 zeros and ones."""
        return self.sample.labels

    @property
    def indices(self) -> np.ndarray:
        """Shape (N,), int64: rows of the split that were drawn."""
        return self.sample.indices

    @property
    def images(self) -> ImageSample:
        """N RGB images."""
        return self.sample.images

    @property
    def skipped(self) -> tuple[SkippedImage, ...]:
        """Broken images met while drawing; each was replaced by another of its class while there was one."""
        return self.sample.skipped

    @property
    def read(self) -> str:
        """What was read, in a line that every answer starts with: images, classes, labels, split, what was left out."""
        parts = [
            f"{len(self):,} of {counted(self.n_rows, 'image')} (seed {self.seed})",
            f"{self.num_classes:,} classes ({listed(self.label_names)})",
            f"labels from {shown(self.reading.labels_from, 80)}",
        ]
        if self.other_splits:
            parts.append(f"split {shown(self.split)!r} of {listed((self.split, *self.other_splits))}")
        left = {**self.reading.left_out, "broken": len(self.skipped), "without a label": self.n_unlabelled}
        left = {reason: count for reason, count in left.items() if count}
        what = ", ".join(f"{count:,} {reason}" for reason, count in left.items())
        out = [f"{sum(left.values()):,} left out: {what}"] if left else []
        return "; ".join([", ".join(parts), *self.sample.notes, *out])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of how the dataset was read, and what makes the sample less fit to judge by."""
        return (*self.reading.warnings, *self.sample.warnings)

    @property
    def content_digest(self) -> str:
        """SHA-256 over the images' encoded bytes and the labels, in order."""
        return self.sample.content_digest

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
            f"Task({self.dataset!r}, split={self.split!r}, {self.n_rows} rows, {self.num_classes} classes, "
            f"{self.label_kind})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # What is drawn travels with the task, not the open dataset.
        return {**vars(self), "draw": partial(replace, self.sample)}

    def with_labels(
        self, labels: np.ndarray, label_names: Sequence[str], class_counts: np.ndarray | None = None
    ) -> Task:
        """Return the task of the same images under other labels.

        Parameters
        ----------
        labels
            As :attr:`labels`, in the order of the images.
        label_names
            Names of the classes.
        class_counts
            Rows of each class in the split; by default, the images in the sample.
        """
        names, digest = tuple(label_names), sha256_bytes(np.ascontiguousarray(labels).astype("<i8").tobytes())
        task = replace(
            self,
            label_names=names,
            fingerprint=sha256_bytes(canonical_json([self.fingerprint, names, digest])),
            draw=lambda: replace(self.sample, labels=labels),
        )
        return replace(task, class_counts=task.sample_counts if class_counts is None else class_counts)

    def subset(self, positions: Iterable[int]) -> Task:
        """Return the task of the images at `positions` (0 to N - 1) of this sample, with the same classes.

        What describes the whole split (`n_rows`, `class_counts`, `n_unlabelled`, `skipped`) stays as it is.
        """
        chosen = np.fromiter(positions, dtype=np.int64)
        fingerprint = sha256_bytes(canonical_json([self.fingerprint, chosen.tolist()]))
        return replace(self, fingerprint=fingerprint, draw=lambda: self.sample.take(chosen))

    def describe(self) -> dict[str, Any]:
        """Return provenance and counts as plain JSON types, without any local path."""
        plain = ("dataset", "revision", "config_name", "split", "image_column", "label_column", "label_kind")
        return {
            **{name: getattr(self, name) for name in plain},
            "label_names": list(self.label_names),
            "n_rows": self.n_rows,
            "n_unlabelled": self.n_unlabelled,
            "n_samples": len(self),
            "class_counts": self.class_counts.tolist(),
            "sample_counts": self.sample_counts.tolist(),
            "skipped": [{"row": image.row, "reason": image.reason} for image in self.skipped],
            "seed": self.seed,
            "read": self.read,
            "warnings": list(self.warnings),
            "reading": {
                "labels_from": self.reading.labels_from,
                "alternatives": list(self.reading.alternatives),
                "left_out": dict(self.reading.left_out),
                "examples": {reason: list(names) for reason, names in self.reading.examples.items()},
                "broken": _broken(self.sample),
                "other_splits": list(self.other_splits),
            },
            **({"values": values} if (values := {k: list(v) for k, v in self.sample.values.items()}) else {}),
            **({} if self.drawn_from is None else {"drawn_from": self.drawn_from}),
            "content_digest": self.content_digest,
            "fingerprint": self.fingerprint,
        }


def _fingerprint(source: Source, rows: Rows, seed: int) -> str:
    labels = hashlib.sha256()
    for array in (rows.labels.rows, rows.labels.classes, np.flatnonzero(rows.labels.labelled)):
        labels.update(array.astype("<i8").tobytes() + b";")
    drawn, images = rows.draw.rows, rows.stamp
    if images is None and source.revision is None:  # at a commit, the numbers of rows say which images they are
        images = [identify(cell) for cell in rows.read(drawn)]
    identity = {
        "dataset": source.dataset,
        "revision": source.revision,
        "config_name": source.config_name,
        "split": source.split,
        "columns": [rows.image_column, rows.label_column],
        "label_kind": rows.labels.kind,
        "label_names": list(rows.labels.names),
        "labels": labels.hexdigest(),
        "seed": seed,
        "rows": drawn,
        "images": images,
    }
    return sha256_bytes(canonical_json(identity))


def _read_sample(source: Source, rows: Rows, token: str | bool | None) -> Sample:
    store, labels = ImageStore(token=token, may_read=source.may_read), rows.labels

    def load(wanted: Sequence[int]) -> list[StoredImage | Unusable]:
        return store.store_all(rows.read(wanted))

    with stage("reading %d images", len(rows.draw.slots)), reading(source.dataset, token):
        filled = rows.draw.fill(load, content=lambda image: image.pixels)
    images, values, notes, warnings = settle(filled.loaded)
    indices = np.asarray(filled.rows, dtype=np.int64)
    sample = Sample(
        labels.of(indices),
        indices,
        images,
        tuple(SkippedImage(row, image.reason, image.name) for row, image in filled.skipped.items()),
        notes,
        (*_warnings(filled, labels), *warnings),
        values,
    )
    count, dataset = len(sample.skipped), source.dataset
    reasons = "; ".join(f"{listed(names, 3)}: {reason[:120]}" for reason, names in [*_broken(sample).items()][:3])
    if not len(images):
        raise ImageDecodeError(f"all {count} images of {dataset!r} are broken ({reasons})")
    if labels.kind == "single_label" and len(np.unique(sample.labels)) == 1:
        why = f"{count} images of {dataset!r} are broken ({reasons})" if count else "; ".join(sample.warnings)
        raise ImageDecodeError(f"{why}, and only one class is left")
    if count:
        logger.warning("%d broken images of %s skipped (%s)", count, dataset, reasons)
    for warning in sample.warnings:
        logger.warning("%s", warning)
    return sample


def _warnings(filled: Filled[StoredImage], labels: Labels) -> Iterator[str]:
    """Say which pictures occur again, and of which classes every picture met is broken."""
    if filled.repeated:
        yield f"drawn once: {counted(len(filled.repeated), 'picture')} that equal others pixel by pixel"
        pairs = np.array(list(filled.repeated.items()), dtype=np.int64)
        later, first = labels.of(pairs[:, 0]), labels.of(pairs[:, 1])
        differ = (later != first).reshape(len(pairs), -1).any(axis=1)
        if count := len(np.unique(pairs[differ, 1])):
            yield f"under several labels, of which one must be wrong, occur {counted(count, 'picture')} of the sample"
    if filled.skipped and labels.kind == "single_label":
        drawn, broken = (labels.of(np.array(rows, dtype=np.int64)) for rows in (filled.rows, [*filled.skipped]))
        if lost := sorted({*broken.tolist()} - {*drawn.tolist()}):
            yield (
                f"no picture of {listed([labels.names[i] for i in lost])} can be read, so nothing is said of "
                f"{'it' if len(lost) == 1 else 'them'}: {next(iter(filled.skipped.values())).reason[:100]}"
            )


def _broken(sample: Sample) -> dict[str, list[str]]:
    """Return the files or rows that are broken, by the reason."""
    found: dict[str, list[str]] = defaultdict(list)
    for image in sample.skipped:
        found[image.reason].append(image.name or f"row {image.row}")
    return dict(found)
