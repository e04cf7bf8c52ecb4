"""What a command line names: an index in a folder or on the Hub, and embeddings in files, on the Hub or in an index."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import EmbeddingError, HubError, ZooIndexError
from hf_task2vec.files import expanded

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import ZooIndex

_REPOSITORY = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)


def index_folder(place: str | None, *, token: str | None = None, timeout: float | None = None) -> str | None:
    """Return the folder of an index: `place` or, where there is none, a download of the Hub's ``org/name[@revision]``.

    None (and ``"shipped"``) stands for the shipped index, here and in what it is handed on to.
    """
    if place is None or place == "shipped":
        return None
    if (path := expanded(place)).exists():
        return str(path)
    missing = f"there is no folder {place!r} here ({Path.cwd()})"
    match = _REPOSITORY.fullmatch(place)
    if match is None:
        raise ZooIndexError(f"{missing}, and an index on the Hub is named org/name or org/name@revision")
    from hf_task2vec.hub import HubSession
    from hf_task2vec.sharing import pull_index

    try:
        return str(pull_index(HubSession(match[1], revision=match[2], token=token, timeout=timeout)))
    except HubError as error:
        raise type(error)(f"{error}; and {missing}") from error


def load_index(place: str | None, **hub: Any) -> ZooIndex:
    """Read an index: see :func:`index_folder`."""
    from hf_task2vec.zoo import ZooIndex

    return ZooIndex.load(index_folder(place, **hub))


def load_embeddings(names: Sequence[str], index: str | None = None, **hub: Any) -> list[TaskEmbedding]:
    """Return the embedding that each name stands for.

    A name is a file written by `embed` or `pull`, if there is one; else ``org/name`` is a repository of the
    Hub, and anything else a task of the index (see :func:`load_index`), which is read only for that. `hub` are
    ``token`` and ``timeout``.
    """
    table = functools.cache(lambda: load_index(index, **hub).embeddings)
    return [_load(name, table, hub) for name in names]


def _load(name: str, table: Callable[[], TaskEmbedding], hub: dict[str, Any]) -> TaskEmbedding:
    from hf_task2vec.embedding import TaskEmbedding

    path = expanded(name)
    if path.exists():
        return TaskEmbedding.load(path)
    if _REPOSITORY.fullmatch(name):
        try:
            return TaskEmbedding.from_pretrained(name, **hub)
        except HubError as error:
            raise type(error)(f"{error}; and there is no folder or file {name!r} here ({Path.cwd()})") from error
    if name in table().names:
        return table()[name]
    known = ", ".join(sorted(table().names))
    raise EmbeddingError(f"{name!r} is neither a file nor a task of the index, which has: {known}")
