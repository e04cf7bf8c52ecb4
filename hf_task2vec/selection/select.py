"""The main job: a dataset in, a ranked list of Hub checkpoints with evidence out."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hf_task2vec.embedding import Computing, TaskEmbedding, cached_embedding, load_probe
from hf_task2vec.errors import ProbeMismatchError, SelectionError, check_count
from hf_task2vec.metric import check_domain, check_protocol, load_metric
from hf_task2vec.probes import DEFAULT_PROBE
from hf_task2vec.selection.limits import Budget, Constraints, Eligible
from hf_task2vec.selection.ranking import Ranking
from hf_task2vec.selection.recommendation import Recommender
from hf_task2vec.tasks import Sampling, Task
from hf_task2vec.zoo import ZooIndex

if TYPE_CHECKING:
    from hf_task2vec.probes import Probe


def select_backbone(
    dataset: Any,
    *,
    name: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    labels_from: str | None = None,
    streaming: bool = False,
    max_samples: int | None = 256,
    probe: Probe | str | None = None,
    index: ZooIndex | str | os.PathLike[str] | None = None,
    candidates: str | Sequence[str] | None = None,
    max_params: float | None = None,
    max_gmacs: float | None = None,
    device_memory: float | None = None,
    latency: float | None = None,
    licenses: Sequence[str] | None = None,
    library: str | None = None,
    input_size: int | None = None,
    experts: bool = False,
    top_k: int = 10,
    refine: int = 0,
    refine_bytes: float | None = None,
    refine_seconds: float | None = None,
    metric: str = "trained",
    protocol: str = "fine-tune",
    domain: str | None = None,
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
    dataset, name, split, revision, image_column, label_column, labels_from, streaming, seed, token
        What to rank for: see :meth:`Task.from_dataset`. A :class:`Task` or :class:`TaskEmbedding` is taken as it is.
    max_samples
        Images to draw, at least 2; None for all.
    probe
        Probe network or its id; it must be the one of the index's embeddings. None takes the default.
    index
        A :class:`ZooIndex` or the folder of one. None takes the shipped index.
    candidates, max_params, max_gmacs, device_memory, latency, licenses, library, input_size
        Limits: see :class:`Constraints`. `candidates` are Hub ids, also of checkpoints that the index does not know, or
        queries such as ``"author:timm license:apache-2.0 params:<30M"``: see
        :func:`~hf_task2vec.zoo.hub_candidates.parse_query`. What is not in the index is judged by its family.
    experts
        Rank fine-tuned checkpoints too: those that the index's scores of model cards name, and `candidates` whose card
        names a base that the index knows and data with an embedding. Each is judged by its base's evidence, and by how
        near your task is to what it was fine-tuned on (:attr:`Candidate.gain`).
    top_k
        Number of candidates to return, ≥ 1.
    refine
        Measure that many promising candidates on the sample itself (this downloads their weights), each chosen in the
        light of those before, and rank all again by predictions and measurements together; 0 for none.
    refine_bytes, refine_seconds
        Limits on what `refine` downloads and how long it takes: see :class:`~hf_task2vec.selection.limits.Budget`.
    metric
        What predicts the accuracies: ``"trained"``, or ``"static"``, the mean standing of each checkpoint on the
        tasks of the index, which ignores the task.
    protocol
        What the accuracies are predicted for: ``"fine-tune"``, all weights trained on the whole dataset, or
        ``"linear-probe"``, a linear classifier on frozen features of the sample. Other checkpoints are good at either.
    domain
        What the images show, for those who know: ``"natural"``, ``"fine-grained"``, ``"nature"``, ``"satellite"``,
        ``"histology"``, ``"radiology"``, ``"medical"`` (skin, cells, eyes), ``"synthetic"``, ``"glyphs"`` or
        ``"texture"``. It says which encoders made for one domain are at home. None tells it from the embedding.
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
    check_count(SelectionError, 1, top_k=top_k)
    check_count(SelectionError, 0, refine=refine)
    check_protocol(protocol)
    check_domain(domain)
    sampling = Sampling(name, split, revision, image_column, label_column, labels_from, streaming, max_samples, seed)
    computing = Computing(device, batch_size, token, cache, progress)
    limits = Constraints(max_params, max_gmacs, device_memory, latency, licenses, library, input_size)  # type: ignore[arg-type]
    budget = Budget(refine_bytes, refine_seconds)
    zoo = index if isinstance(index, ZooIndex) else ZooIndex.load(index)
    eligible = Eligible.of(zoo, limits, candidates, token, experts=experts)
    ranker = load_metric(metric, eligible.index)
    task, embedding = _embedded(dataset, sampling, probe, eligible.index, computing, measurable=refine > 0)
    recommender = Recommender(embedding, ranker, eligible, protocol, domain)
    if refine and task is not None:
        from hf_task2vec.selection.refinement import refine_ranking

        ranking = refine_ranking(recommender, task, refine, budget, computing, top_k=top_k)
    else:
        ranking = recommender.rank({}, top_k=top_k)
    wanted = {
        "candidates": candidates,
        "probe": probe,
        "index": index,
        "top_k": top_k,
        "metric": metric,
        "experts": experts,
        "protocol": protocol,
        "domain": domain,
    }
    request = _request({"dataset": dataset, **vars(sampling), **vars(limits), **wanted})
    return replace(ranking, request=request, sample=task)


def _embedded(
    dataset: Any,
    sampling: Sampling,
    probe: Probe | str | None,
    zoo: ZooIndex,
    computing: Computing,
    *,
    measurable: bool,
) -> tuple[Task | None, TaskEmbedding]:
    """Return the task of a dataset, unless this is an embedding itself, and its embedding by the index's probe."""
    if isinstance(dataset, TaskEmbedding):
        if measurable:
            raise SelectionError("refine needs the images: pass the dataset or a Task instead of an embedding")
        return None, dataset
    network, known_hash = _checked(probe, zoo, computing.token)
    task = dataset if isinstance(dataset, Task) else Task.from_dataset(dataset, **vars(sampling), token=computing.token)
    if measurable:
        from hf_task2vec.probes import check_measurable

        check_measurable(task)
    return task, cached_embedding(task, network, known_hash=known_hash, seed=sampling.seed, computing=computing)


def _request(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for and is no default, in plain values; None is an object in memory, or all images."""
    defaults, found = inspect.signature(select_backbone).parameters, dict[str, Any]()
    for name, value in asked.items():
        if isinstance(value, os.PathLike):
            found[name] = os.fspath(value)
        elif name in ("dataset", "probe", "index") and value is not None and not isinstance(value, str):
            found[name] = None
        elif value != defaults[name].default:
            found[name] = value
    return found


def _checked(probe: Probe | str | None, zoo: ZooIndex, token: str | None) -> tuple[Probe | str | None, str]:
    """Return the probe and its weight hash; one that the index knows by name need not be loaded for that."""
    name = DEFAULT_PROBE if probe is None else probe
    reference = zoo.probe
    if reference is not None and reference.name == name:
        return probe, reference.weights_hash
    found = load_probe(probe, token=token)
    if reference is not None and found.weights_hash != reference.weights_hash:
        raise ProbeMismatchError(
            f"asked for probe {found.name!r} (weights {found.weights_hash[:12]}…), but the tasks of the index were "
            f"embedded with {reference.name!r} (weights {reference.weights_hash[:12]}…); use that one"
        )
    return found, found.weights_hash
