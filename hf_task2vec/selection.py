"""The main job: a dataset in, a ranked list of Hub checkpoints with evidence out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_task2vec.bundled import DEFAULT_PROBE
from hf_task2vec.cache import cached_embedding
from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.errors import SelectionError
from hf_task2vec.ranking import Constraints, Ranking
from hf_task2vec.recommendation import rank
from hf_task2vec.task import Task
from hf_task2vec.zoo import ZooIndex

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.probe import Probe

logger = logging.getLogger(__name__)


def select_backbone(
    dataset: Any,
    *,
    name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    streaming: bool = False,
    max_samples: int | None = 256,
    probe: Probe | str | None = None,
    index: ZooIndex | str | os.PathLike[str] | None = None,
    candidates: Sequence[str] | None = None,
    max_params: float | None = None,
    max_gmacs: float | None = None,
    licenses: Sequence[str] | None = None,
    library: str | None = None,
    input_size: int | None = None,
    top_k: int = 10,
    refine: int = 0,
    seed: int = 0,
    device: str | None = None,
    token: str | None = None,
    batch_size: int = 16,
    cache: bool = True,
    progress: bool = False,
) -> Ranking:
    """Rank pretrained checkpoints of the Hub for an image classification dataset.

    A sample of the dataset is embedded with one pass of a small probe network; a metric trained on the index predicts
    every checkpoint's accuracy from the embedding. No checkpoint is downloaded, and no data leaves the machine.

    Parameters
    ----------
    dataset, name, split, revision, image_column, label_column, streaming, max_samples, seed, token
        What to rank for: see :meth:`Task.from_dataset`. A :class:`Task` or :class:`TaskEmbedding` is taken as it is.
    probe
        Probe network or its id; it must be the one of the index's embeddings. None takes the default.
    index
        A :class:`ZooIndex` or the folder of one. None takes the shipped index.
    candidates, max_params, max_gmacs, licenses, library, input_size
        Limits: see :class:`Constraints`.
    top_k
        Number of candidates to return, ≥ 1.
    refine
        Measure that many of the best on the sample itself (this downloads their weights) and rank them again by
        prediction and measurement together; 0 for none.
    device
        Torch device of the probe; None takes a GPU if there is one.
    batch_size
        Images per pass of the probe.
    cache
        Keep the embedding in the cache folder, and reuse one kept there for the same sample, probe and settings.
    progress
        Show progress bars on stderr.

    Returns
    -------
    Ranking
        Best first.

    Raises
    ------
    SelectionError
        An argument is out of range, or no checkpoint of the index meets the limits.
    TaskError
        The dataset cannot be used; the message says why and what would work.
    ZooIndexError, MetricError
        The index cannot be used.

    Examples
    --------
    >>> ranking = select_backbone("sklearn:digits", max_samples=64, max_params=30e6)  # doctest: +SKIP
    >>> model, transform = ranking.best.load(num_classes=10)  # doctest: +SKIP
    """
    if top_k < 1 or refine < 0:
        raise SelectionError(f"top_k={top_k} must be at least 1, and refine={refine} at least 0")
    limits = Constraints(
        max_params, max_gmacs, _strings("licenses", licenses), library, input_size, _strings("candidates", candidates)
    )
    zoo = index if isinstance(index, ZooIndex) else ZooIndex.load(index)
    eligible = _eligible(zoo, limits)
    task = dataset if isinstance(dataset, Task) else None
    if isinstance(dataset, TaskEmbedding):
        if refine:
            raise SelectionError("refine needs the images: pass the dataset or a Task instead of an embedding")
        embedding = dataset
    else:
        if task is None:
            task = Task.from_dataset(
                dataset,
                name=name,
                split=split,
                revision=revision,
                token=token,
                streaming=streaming,
                image_column=image_column,
                label_column=label_column,
                max_samples=max_samples,
                seed=seed,
            )
        embedding = cached_embedding(
            task,
            probe,
            known_hash=_default_hash(zoo) if probe is None else None,
            seed=seed,
            device=device,
            token=token,
            batch_size=batch_size,
            cache=cache,
            progress=progress,
        )
    ranking = rank(embedding, zoo, eligible, limits, top_k=max(top_k, refine))
    if refine and task is not None:
        from hf_task2vec.refinement import refine_ranking

        ranking = refine_ranking(ranking, task, refine, device=device, token=token, progress=progress)
    return ranking.head(top_k)


def _strings(name: str, values: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(values, str):
        raise SelectionError(f"{name} takes a list of strings, found the string {values!r}; pass [{values!r}]")
    return None if values is None else tuple(values)


def _eligible(zoo: ZooIndex, limits: Constraints) -> pd.DataFrame:
    frame, dropped = zoo.filter(
        max_params=limits.max_params,
        max_gmacs=limits.max_gmacs,
        licenses=limits.licenses,
        library=limits.library,
        input_size=limits.input_size,
        ids=limits.candidates,
    )
    if frame.empty:
        given = {k: v for k, v in vars(limits).items() if v is not None}
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items(), key=lambda x: -x[1]))
        raise SelectionError(
            f"no checkpoint of the index meets the limits {given}: left out {reasons or 'nothing, the index is empty'}; "
            "loosen a limit"
        )
    if limits.candidates is not None and (missing := set(limits.candidates) - set(zoo.checkpoints["hub_id"])):
        logger.warning("not in the index, so not ranked: %s", ", ".join(sorted(missing)))
    return frame


def _default_hash(zoo: ZooIndex) -> str | None:
    """Weight hash of the default probe, as the index knows it: a cached embedding is then found without torch."""
    return zoo.embeddings(DEFAULT_PROBE).weights_hash if DEFAULT_PROBE in zoo.probes else None
