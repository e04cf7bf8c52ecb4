"""The file format of a zoo index: one pydantic model per table, and the manifest.

The columns of a CSV file are the fields of its model, in order. An empty cell is ``None``, a list is joined with
``;``, a truth value is ``true`` or ``false``. Every share (accuracy, AUC, ...) is a fraction between 0 and 1.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

SCHEMA_VERSION = 3
LOCAL_PREFIX = "local:"

Library = Literal[
    "timm",
    "transformers",  # AutoModelForImageClassification loads it
    "transformers_features",  # AutoModel loads it, but there is no class with a classifier
    "open_clip",
    "other",
]
Pretraining = Literal[
    "in1k_supervised",  # ImageNet-1k labels only
    "in1k_distilled",  # ImageNet-1k with a teacher's outputs
    "in12k_ft_in1k",  # supervised on the 12k-class subset of ImageNet-22k, then ImageNet-1k
    "in12k_supervised",
    "in21k_ft_in1k",  # supervised on ImageNet-21k/22k, then ImageNet-1k
    "in21k_supervised",
    "in21k_distilled",  # ImageNet-21k/22k with a teacher's outputs (TinyViT)
    "web_ft_in1k",  # weak or pseudo labels of web images (Instagram, YFCC, JFT), then ImageNet-1k
    "web_supervised",  # labels of a corpus other than ImageNet (Bamboo, iNaturalist, JFT)
    "ssl_web",  # self-supervised on web images (SEER, Web-DINO)
    "ssl_web_ft_in1k",
    "mim",  # masked image modelling (MAE, BEiT, EVA, FCMAE)
    "mim_ft_in1k",
    "mim_ft_in21k",
    "mim_ft_in21k_ft_in1k",
    "clip",  # contrastive on image-text pairs, softmax loss (CLIP, OpenCLIP, ALIGN, EVA-CLIP)
    "clip_ft_in12k",
    "clip_ft_in1k",
    "siglip",  # contrastive on image-text pairs, sigmoid loss
    "siglip_ft_in1k",
    "blip",  # contrastive, matching and captioning losses
    "dino",
    "dinov2",
    "dinov3",
    "jepa",  # prediction of masked parts in feature space (I-JEPA, data2vec)
    "autoregressive",  # of pixels, or of pixels and text (AIM, AIMv2)
    "agglomerative",  # distilled from several foundation models (RADIO, EUPE)
    "moco",
    "cluster",  # pseudo-labels by clustering (UNICOM, MLCD)
    "sam",  # promptable segmentation on SA-1B
    "vlm",  # generative vision-language model
    "other",
]
Metric = Literal[
    "top1",
    "mean_per_class",  # mean of the classes' accuracies
    "map",  # mean average precision
    "map_11point",  # the VOC2007 interpolation
    "lrap",  # label ranking average precision
    "auc",  # area under the ROC curve
    "episode_acc",  # mean accuracy over few-shot episodes
    "mean_top1_top5",
    "macro_f1",
    "f1",  # of one kind or another, as the source states it
    "f1_multilabel",
    "balanced_accuracy",
    "user_loss",  # FungiCLEF's, normalised so that more is better
    "benchmark_main",  # what CLIP's benchmark states for the dataset: top-1, mean per class, ...
    "as_printed",  # a share that the source does not name
]
CheckpointMatch = Literal["exact", "likely", "family", "none", "measured"]
Objective = Literal[
    "supervised", "distilled", "image-text", "self-distillation", "masked", "contrastive", "generative", "segmentation"
]
Domain = Literal[
    "general", "histology", "radiology", "ophthalmology", "dermatology", "remote-sensing", "biology", "documents",
    "people",
]  # fmt: skip


def _split_list(value: object) -> object:
    return tuple(part.strip() for part in value.split(";") if part.strip()) if isinstance(value, str) else value


def _check_relative(name: str) -> str:
    """Refuse names that could leave the index folder on any operating system."""
    posix = PurePosixPath(name)
    leaves = posix.is_absolute() or ".." in posix.parts or "\\" in name or bool(PureWindowsPath(name).drive)
    if leaves or str(posix) != name or name == "manifest.json":
        raise ValueError("should be a plain relative path with forward slashes inside the index folder")
    return name


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.\-]*$", max_length=100)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$")]
HubId = Annotated[
    str, StringConstraints(pattern=r"^(local:[A-Za-z0-9][\w.\-]*|[A-Za-z0-9][\w.\-]*/[\w.\-]+)$", max_length=200)
]
Slugs = Annotated[tuple[Slug, ...], BeforeValidator(_split_list)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RelativeName = Annotated[str, StringConstraints(min_length=1), AfterValidator(_check_relative)]


def as_slug(text: str) -> str:
    """Return `text` as a name in the index: lower case, other signs as underscores; empty if nothing is left."""
    return re.sub(r"[^a-z0-9_.\-]+", "_", text.lower()).strip("_.-")[:100]


class Row(BaseModel):
    """A row of a table; `KEY` names the columns that together are unique."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    KEY: ClassVar[tuple[str, ...]] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """The values of the key columns as text, ``""`` where a value is missing (so that keys can be sorted)."""
        return tuple("" if (value := getattr(self, name)) is None else str(value) for name in self.KEY)


class Alias(BaseModel):
    """Another repository with the same weights; in a cell ``repository library match source``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hub_id: HubId
    library: Library
    match: Literal["exact", "likely"]
    source: Slug  # who says so: a row of sources.csv

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: object) -> object:
        parts = value.split() if isinstance(value, str) else value
        return dict(zip(cls.model_fields, parts, strict=False)) if isinstance(parts, list) else parts

    def __str__(self) -> str:
        return " ".join((self.hub_id, self.library, self.match, self.source))


class CheckpointRow(Row):
    """One set of weights: its names, and all that a ranking shows, reads or filters on without downloading it."""

    KEY: ClassVar[tuple[str, ...]] = ("hub_id",)
    hub_id: HubId  # the name most people use; or "local:<name>" for weights that are on no Hub
    library: Library  # that loads `hub_id`
    aliases: Annotated[tuple[Alias, ...], BeforeValidator(_split_list)] = ()
    architecture: Text
    family: Slug
    pretrain_tag: Text | None = None
    pretraining: Pretraining | None = None
    objective: Objective | None = None  # of the pretraining, before any fine-tuning
    corpus: Slug | None = None  # what it was pretrained on
    corpus_images_m: Positive | None = None  # million distinct images of the corpus
    domain: Domain | None = None  # of the corpus
    year: Annotated[int, Field(ge=2012, le=2100)] | None = None  # of publication
    trained_on: Slugs = ()  # datasets whose training images the weights have seen, subsets included
    params_m: Positive | None = None  # million parameters
    gmacs: NonNegative | None = None  # 10^9 multiply-accumulates of one image at `input_px`
    input_px: Annotated[int, Field(ge=8, le=4096)] | None = None
    license: Annotated[Text, StringConstraints(to_lower=True)] | None = None
    gated: bool | None = None
    in1k_top1: Share | None = None
    in1k_linear_probe: Share | None = None  # top-1 of a linear classifier on frozen features
    throughput_gpu: Positive | None = None  # images/s, RTX 4090, mixed precision
    throughput_cpu: Positive | None = None  # images/s, Core i9, float32, batch of one
    facts_source: Slugs  # rows of sources.csv

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the weights, the one most people use first."""
        return (self.hub_id, *(alias.hub_id for alias in self.aliases))

    def called(self, name: str) -> CheckpointRow:
        """Return the row with another of its names in front."""
        if name == self.hub_id:
            return self
        new = next(alias for alias in self.aliases if alias.hub_id == name)
        old = Alias(hub_id=self.hub_id, library=self.library, match=new.match, source=new.source)
        aliases = (old, *(alias for alias in self.aliases if alias is not new))
        return self.model_copy(update={"hub_id": name, "library": new.library, "aliases": aliases})

    def name_in(self, library: str) -> str | None:
        """Return the name that `library` loads; transformers loads timm's checkpoints too, through a wrapper.

        A twin that is only likely to be one is not named: nobody has compared its weights.
        """
        named: dict[str, str] = {
            alias.library: alias.hub_id for alias in reversed(self.aliases) if alias.match == "exact"
        }
        named |= {self.library: self.hub_id}
        return named.get(library) or (named.get("timm") if library == "transformers" else None)


class TaskRow(Row):
    """One classification task; published scores attach to the row of the full dataset, not to a subset's."""

    KEY: ClassVar[tuple[str, ...]] = ("task",)
    task: Slug
    title: Text
    domain: Slug
    n_classes: Annotated[int, Field(ge=1)] | None = None
    n_images: Annotated[int, Field(ge=1)] | None = None  # in the sample embedded or measured here, else in the dataset
    license: Text | None = None
    source: Text | None = None
    source_revision: Text | None = None
    benchmark_name: Slug | None = None  # the public benchmark this is, or is a subset or variant of
    near_duplicate_group: Slug | None = None  # tasks to be left out together in leave-one-out
    images_from: Slugs = ()  # datasets that the images are drawn from (see `is_leak`)
    flags: Slugs = ()
    embedded: bool = False


HUB_CARDS = "hub_cards"
"""Source of scores that model cards of the Hub state; `source_model` is then the repository that was fine-tuned."""

ZERO_SHOT = "zero_shot"
"""Protocol of scores that say what a checkpoint knows of a task without training: facts about it, no transfer."""


class ScoreRow(Row):
    """One measurement. Compare scores only within one (source, protocol, metric, task)."""

    KEY: ClassVar[tuple[str, ...]] = (
        "task",
        "checkpoint",
        "source",
        "source_model",
        "protocol",
        "metric",
        "split",
        "n_train",
    )
    task: Slug
    checkpoint: HubId
    score: Share
    score_std_error: NonNegative | None = None
    metric: Metric
    protocol: Slug
    split: Slug
    n_train: Count | None = None
    n_test: Count | None = None
    source: Slug
    source_model: Text | None = None  # the source's own name of the model
    source_license: Text
    checkpoint_match: CheckpointMatch  # how sure it is that the source used this very checkpoint
    leak: bool  # the checkpoint has seen training images of the task's dataset
    versions: Text | None = None
    address: Text | None = None  # where this very score is stated, if not where its source says


class SourceRow(Row):
    """Where scores or facts come from."""

    KEY: ClassVar[tuple[str, ...]] = ("source",)
    source: Slug
    repo: Text
    commit: Text | None = None
    path: Text | None = None
    protocol: Text
    split: Text
    metric: Text
    license: Text
    flags: Slugs = ()  # what to beware of: see `SOURCE_FLAGS` in benchmarks/index/facts_rules.py
    n_left_out: Count = 0  # rows of the source that are not here because their checkpoint is on no Hub
    n_published: Count | None = None  # rows that were read of the source, those left out included
    published_sha256: Sha256 | None = None  # of those rows (see `published_hash` in benchmarks/index/facts.py)


class ProbeEntry(BaseModel):
    """The network behind the embeddings of an index."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Text
    weights_hash: Sha256


class Manifest(BaseModel):
    """``manifest.json``: what belongs to the index and how to tell that it is unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: Literal[3] = 3  # SCHEMA_VERSION
    created: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    package_version: Text
    files: dict[RelativeName, Sha256]
    probe: ProbeEntry | None = None  # of the embeddings
    counts: dict[str, Count] = {}


ROW_TYPES: dict[str, type[Row]] = {
    "checkpoints": CheckpointRow,
    "tasks": TaskRow,
    "scores": ScoreRow,
    "sources": SourceRow,
}


def is_leak(task: TaskRow, checkpoint: CheckpointRow) -> bool:
    """Say whether `checkpoint` has seen training images of the dataset behind `task` (with or without labels)."""
    return not set(task.images_from).isdisjoint(checkpoint.trained_on)


def column_dtype(row_type: type[Row], name: str) -> str:
    """Return the pandas dtype of a column: ``float64``, ``Int64``, ``boolean``, ``bool`` or ``object``."""
    annotation: Any = row_type.model_fields[name].annotation
    optional = type(None) in get_args(annotation)
    while not isinstance(annotation, type) and get_args(annotation):
        annotation = get_args(annotation)[0]  # unwraps Optional and Annotated
    if annotation is bool:
        return "boolean" if optional else "bool"
    return {float: "float64", int: "Int64"}.get(annotation, "object")
