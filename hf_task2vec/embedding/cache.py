"""Embeddings kept from earlier runs: found without the probe where its weights are known."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hf_task2vec.embedding.computing import Computing
from hf_task2vec.embedding.task_embedding import DESCRIPTORS, SUFFIX, TaskEmbedding, embedding_config, embedding_key
from hf_task2vec.errors import EmbeddingError
from hf_task2vec.files import cache_dir, warn_not_kept
from hf_task2vec.tasks import stage

if TYPE_CHECKING:
    from hf_task2vec.probes import Probe
    from hf_task2vec.tasks import Task

logger = logging.getLogger(__name__)


def cached_embedding(
    task: Task,
    probe: Probe | str | None = None,
    *,
    known_hash: str | None = None,
    seed: int = 0,
    computing: Computing = Computing(),  # noqa: B008 (frozen)
) -> TaskEmbedding:
    """Embed a task, or return the embedding kept from an earlier time.

    Parameters
    ----------
    task, probe, seed
        As in :func:`~hf_task2vec.embedding.embed.embed_task`; `probe` may also be an id.
    known_hash
        Weight hash of the probe if known without loading it.
    computing
        Where, and whether kept ones are used.
    """
    config = embedding_config(seed=seed)
    # The same weights may look at other sizes or crops: a probe loaded by its id looks as its checkpoint says.
    given = probe.config if probe is not None and not isinstance(probe, str) else {}
    preprocessing = {name: given[name] for name in ("input_size", "preprocessing")} if given else None

    def path(weights_hash: str) -> Path:
        key = embedding_key(task, weights_hash, config, preprocessing)
        return cache_dir() / "embeddings" / f"{key}{SUFFIX}"

    if computing.cache and known_hash is not None and (found := _kept(path(known_hash))) is not None:
        return found
    from hf_task2vec.embedding.embed import embed_task
    from hf_task2vec.probes import default_device

    network = load_probe(probe, token=computing.token)
    if (
        computing.cache
        and known_hash != network.weights_hash
        and (found := _kept(path(network.weights_hash))) is not None
    ):
        return found
    embedding = embed_task(
        task,
        network,
        seed=seed,
        device=computing.device or (None if network is probe else default_device()),
        batch_size=computing.batch_size,
        progress=computing.progress,
    )
    if computing.cache:
        try:
            embedding.save(path(network.weights_hash))
        except EmbeddingError as error:
            warn_not_kept(error.__cause__ if isinstance(error.__cause__, OSError) else error)
    return embedding


def _kept(path: Path) -> TaskEmbedding | None:
    """Return the embedding in a file of the cache, if there is a usable one."""
    if not os.path.isfile(path):  # noqa: PTH113 (False, not an error, where the folder may not be read)
        return None
    try:
        embedding = TaskEmbedding.load(path)
    except EmbeddingError as error:
        logger.warning("a cached embedding is not usable and is made again: %s", error)
        return None
    if set(DESCRIPTORS) - set(embedding.descriptors):  # made by an earlier version
        return None
    logger.info("embedding of %s found in the cache", embedding.name)
    return embedding


def load_probe(probe: Probe | str | None, *, token: str | None = None) -> Probe:
    """Return a probe as it is, or load it by its id; None loads the default one."""
    from hf_task2vec.probes import Probe as _Probe

    if isinstance(probe, _Probe):
        return probe
    with stage("loading the probe"):
        return _Probe.default() if probe is None else _Probe.from_pretrained(probe, token=token)
