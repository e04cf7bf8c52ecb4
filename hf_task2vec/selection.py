"""The main job: a dataset in, a ranked list of Hub checkpoints with evidence out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

from hf_task2vec.bundled import DEFAULT_PROBE
from hf_task2vec.cache import cached_embedding, load_probe
from hf_task2vec.call import Call
from hf_task2vec.candidates import filter_checkpoints
from hf_task2vec.embedding import TaskEmbedding
from hf_task2vec.errors import ProbeMismatchError, SelectionError
from hf_task2vec.hub_candidates import EVIDENCE, Candidates, resolve_candidates
from hf_task2vec.limits import Budget, Constraints
from hf_task2vec.metric import load_metric
from hf_task2vec.ranking import Ranking
from hf_task2vec.recommendation import check_descriptors, predict, rank
from hf_task2vec.task import Task
from hf_task2vec.zoo import ZooIndex

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.probe import Probe

logger = logging.getLogger(__name__)

_PICTURES = 40  # of the sample, for a report


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
    candidates: str | Sequence[str] | None = None,
    max_params: float | None = None,
    max_gmacs: float | None = None,
    licenses: Sequence[str] | None = None,
    library: str | None = None,
    input_size: int | None = None,
    top_k: int = 10,
    refine: int = 0,
    refine_bytes: float | None = None,
    refine_seconds: float | None = None,
    metric: str = "trained",
    seed: int = 0,
    device: str | None = None,
    token: str | None = None,
    batch_size: int | None = None,
    cache: bool = True,
    progress: bool = False,
) -> Ranking:
    """Rank pretrained checkpoints of the Hub for an image classification dataset, with one or several labels an image.

    A sample of the dataset is embedded with one pass of a small probe network; a metric trained on the index predicts
    every checkpoint's accuracy from the embedding. No checkpoint is downloaded, and no data leaves the machine.

    Parameters
    ----------
    dataset, name, split, revision, image_column, label_column, streaming, seed, token
        What to rank for: see :meth:`Task.from_dataset`. A :class:`Task` or :class:`TaskEmbedding` is taken as it is.
    max_samples
        Images to draw, at least 2; None for all.
    probe
        Probe network or its id; it must be the one of the index's embeddings. None takes the default.
    index
        A :class:`ZooIndex` or the folder of one. None takes the shipped index.
    candidates, max_params, max_gmacs, licenses, library, input_size
        Limits: see :class:`Constraints`. `candidates` are Hub ids, also of checkpoints that the index does not know, or
        queries such as ``"author:timm license:apache-2.0 params:<30M"``: see
        :func:`~hf_task2vec.hub_candidates.parse_query`. What is not in the index is judged by its family.
    top_k
        Number of candidates to return, ≥ 1.
    refine
        Measure that many promising candidates on the sample itself (this downloads their weights), each chosen in the
        light of those before, and rank all again by predictions and measurements together; 0 for none.
    refine_bytes, refine_seconds
        Limits on what `refine` downloads and how long it takes: see :class:`~hf_task2vec.limits.Budget`.
    metric
        What predicts the accuracies: ``"trained"``, or ``"static"``, the mean standing of each checkpoint on the
        tasks of the index, which ignores the task.
    device
        Torch device of the probe; None takes a GPU if there is one, and leaves a :class:`Probe` where it is.
    batch_size
        Images per pass of the probe; None takes what suits the device.
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
        The dataset cannot be used, such as one with numbers, boxes or masks for labels; the message says why and what
        would work.
    ZooIndexError, MetricError
        The index cannot be used.
    ProbeMismatchError
        The probe, or the embedding given, is not of the index's probe.

    Examples
    --------
    >>> ranking = select_backbone("sklearn:digits", max_samples=64, max_params=30e6)  # doctest: +SKIP
    >>> model, transform = ranking.best.load(num_classes=10)  # doctest: +SKIP
    """
    call = Call.of(select_backbone, locals())  # the arguments: no other name is bound yet
    _check_counts(top_k=top_k, refine=refine, seed=seed, batch_size=1 if batch_size is None else batch_size)
    limits = Constraints(max_params, max_gmacs, licenses, library, input_size)  # type: ignore[arg-type]
    budget = Budget(refine_bytes, refine_seconds)
    zoo = index if isinstance(index, ZooIndex) else ZooIndex.load(index)
    asked = resolve_candidates(candidates, zoo, token=token)
    limits = replace(limits, candidates=asked.ids)
    eligible = _eligible(zoo.add_checkpoints(asked.rows) if asked.rows else zoo, limits)
    chosen = load_metric(metric, zoo)
    task = dataset if isinstance(dataset, Task) else None
    if isinstance(dataset, TaskEmbedding):
        if refine:
            raise SelectionError("refine needs the images: pass the dataset or a Task instead of an embedding")
        embedding = dataset
        check_descriptors(embedding)
        _check_probe(zoo, embedding.weights_hash, f"{embedding.name!r} was embedded with", embedding.probe["name"])
    else:
        known_hash = _known_hash(zoo, probe)
        if known_hash is None:
            probe = load_probe(probe, token=token)
            _check_probe(zoo, probe.weights_hash, "asked for", probe.name)
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
        if refine:
            from hf_task2vec.refinement import check_refinable

            check_refinable(task)
        embedding = cached_embedding(
            task,
            probe,
            known_hash=known_hash,
            seed=seed,
            device=device,
            token=token,
            batch_size=batch_size,
            cache=cache,
            progress=progress,
        )
    ranking = rank(embedding, zoo, eligible, limits, top_k=top_k, metric=chosen)
    if refine and task is not None:
        from hf_task2vec.refinement import refine_ranking

        ranking = refine_ranking(
            ranking,
            task,
            refine,
            checkpoints=eligible,
            predict=lambda measured: predict(embedding, zoo, eligible, chosen, measured),
            rerank=lambda measured: rank(
                embedding, zoo, eligible, limits, top_k=top_k, metric=chosen, measured=measured
            ),
            known=[embedding.probe["name"]],
            budget=budget,
            device=device,
            token=token,
            progress=progress,
        )
    pictures = None if task is None else task.subset(range(min(_PICTURES, len(task))))
    return replace(_marked(ranking, asked), _call=call, _sample=pictures)


def _marked(ranking: Ranking, asked: Candidates) -> Ranking:
    """Say which candidates the index does not know, and what was asked for."""
    unknown = {row.hub_id for row in asked.rows}
    if not unknown and not asked.queries:
        return ranking
    marked = [replace(x, evidence=EVIDENCE) if x.hub_id in unknown else x for x in ranking.candidates]
    summary = ranking.summary
    if marked and marked[0].hub_id in unknown:
        summary = summary.replace(ranking.candidates[0].evidence, EVIDENCE, 1)
    provenance = ranking.provenance | {"candidates": {"queries": list(asked.queries), "not_in_index": sorted(unknown)}}
    return replace(ranking, candidates=tuple(marked), summary=summary, provenance=provenance)


def _check_counts(**values: Any) -> None:
    for name, value in values.items():
        least = 0 if name in ("refine", "seed") else 1
        if not isinstance(value, Integral) or value < least:
            raise SelectionError(f"{name}={value!r} must be a whole number of at least {least}")


def _eligible(zoo: ZooIndex, limits: Constraints) -> pd.DataFrame:
    frame, dropped = filter_checkpoints(
        zoo.checkpoints,
        max_params=limits.max_params,
        max_gmacs=limits.max_gmacs,
        licenses=limits.licenses,
        library=limits.library,
        input_size=limits.input_size,
        ids=limits.candidates,
    )
    if frame.empty:
        given = ", ".join(f"{name}={value!r}" for name, value in vars(limits).items() if value is not None)
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items(), key=lambda x: -x[1]))
        known = zoo.checkpoints["license"].value_counts().index[:8] if limits.licenses is not None else ()
        raise SelectionError(
            f"no checkpoint of the index meets the limits ({given or 'none were given'}); "
            f"left out: {reasons or 'none, the index is empty'}; loosen a limit"
            + (f" (the licences it knows most of: {', '.join(known)})" if len(known) else "")
        )
    if limits.candidates is not None and (missing := set(limits.candidates) - set(zoo.checkpoints["hub_id"])):
        logger.warning("not in the index, so not ranked: %s", ", ".join(sorted(missing)))
    return frame


def _known_hash(zoo: ZooIndex, probe: Probe | str | None) -> str | None:
    """Weight hash of a probe that the index knows by name: a cached embedding is then found without torch."""
    name = DEFAULT_PROBE if probe is None else probe
    return zoo.probe.weights_hash if zoo.probe is not None and zoo.probe.name == name else None


def _check_probe(zoo: ZooIndex, weights_hash: str, what: str, name: str) -> None:
    reference = zoo.probe
    if reference is not None and weights_hash != reference.weights_hash:
        raise ProbeMismatchError(
            f"{what} probe {name!r} (weights {weights_hash[:12]}…), but the tasks of the index were embedded with "
            f"{reference.name!r} (weights {reference.weights_hash[:12]}…); use that one"
        )
