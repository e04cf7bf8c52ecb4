"""Embeddings and indexes from the Hub; from the cache when it cannot be reached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hf_task2vec.errors import EmbeddingError, HubCorruptError, HubNotFoundError, ZooIndexError
from hf_task2vec.files import sha256_file
from hf_task2vec.zoo import MANIFEST, read_manifest

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.hub import HubSession
    from hf_task2vec.zoo import ZooIndex

#: Where an embedding lies, in a repository of its own or in the one of its dataset.
EMBEDDING = "task2vec/embedding.safetensors"


def pull(session: HubSession) -> TaskEmbedding | ZooIndex:
    """Return what the session's repository holds."""
    from hf_task2vec.zoo import ZooIndex

    found = session.download_first((EMBEDDING, MANIFEST))
    if found is None:
        raise HubNotFoundError(f"{session.place} holds no task embedding ({EMBEDDING}) and no zoo index ({MANIFEST})")
    return ZooIndex.load(pull_index(session)) if found.name == MANIFEST else pull_embedding(session)


def pull_embedding(session: HubSession, cache_dir: str | os.PathLike[str] | None = None) -> TaskEmbedding:
    """Return the embedding in the session's repository; see ``TaskEmbedding.from_pretrained``."""
    from hf_task2vec.embedding import TaskEmbedding

    path = session.download_first((EMBEDDING,), cache_dir=cache_dir)
    if path is None:
        raise HubNotFoundError(f"{session.place} holds no task embedding: it has no {EMBEDDING}")
    try:
        return TaskEmbedding.load(path)
    except EmbeddingError as error:
        _forget(path)
        raise EmbeddingError(
            f"the embedding in {session.place} is damaged, or was on the way; it was removed from the cache ({error})"
        ) from error


def pull_index(session: HubSession, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the index in the session's repository, in the cache; each file has its checksum."""
    manifest = session.download_first((MANIFEST,), cache_dir=cache_dir)
    if manifest is None:
        raise ZooIndexError(f"{session.place} is no zoo index: it has no {MANIFEST}")
    folder = manifest.parent
    try:
        files = read_manifest(folder).files
    except ZooIndexError as error:
        _forget(manifest)
        raise ZooIndexError(f"{session.place} holds no usable zoo index: {error}") from error
    for name, expected in files.items():
        # The cache names the folder after the commit: all files are of the same one, even if the branch moves now.
        path = session.download(name, revision=folder.name, cache_dir=cache_dir)
        if sha256_file(path) != expected:
            _forget(path)
            raise HubCorruptError(
                f"{name} of {session.place} is not the file that {MANIFEST} there describes: damaged on the way, or "
                "changed by hand. It was removed from the cache; try again, and if that does not help, whoever keeps "
                "the index should load, save and push it again"
            )
    return folder


def _forget(path: Path) -> None:
    """Remove a file from the Hub cache: the link and what it leads to."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    content.unlink(missing_ok=True)
