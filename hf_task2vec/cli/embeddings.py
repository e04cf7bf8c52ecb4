"""The tasks that a command line names: embeddings in files, on the Hub, and in an index."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import EmbeddingError, HubError

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.table import EmbeddingTable


def load_embeddings(
    names: Sequence[str],
    index: str | os.PathLike[str] | None = None,
    *,
    probe: str | None = None,
    token: str | None = None,
    timeout: float | None = None,
) -> list[TaskEmbedding]:
    """Return the embedding that each name stands for.

    A name is a folder or file written by `embed` or `pull`, if there is one; else ``org/name`` is a repository of the
    Hub, and anything else a task of the index, which is read only for that.

    Parameters
    ----------
    index
        Folder of the index (default: the shipped one).
    probe
        Of the embeddings in the index (default: the only one there is).
    token, timeout
        For the Hub: see :meth:`TaskEmbedding.from_pretrained`.

    Raises
    ------
    EmbeddingError
        A file holds no embedding, or a name stands for nothing.
    HubError
        A repository cannot be had.
    ZooIndexError
        The index cannot be read.
    """

    @functools.cache
    def table() -> EmbeddingTable:
        from hf_task2vec.zoo import ZooIndex

        zoo = ZooIndex.load(index)
        return zoo.embeddings() if probe is None else zoo.embeddings(probe)

    hub = {"token": token, "timeout": timeout}
    return [_load(name, table, hub) for name in names]


def _load(name: str, table: Callable[[], EmbeddingTable], hub: dict[str, Any]) -> TaskEmbedding:
    from hf_task2vec.embedding import TaskEmbedding

    path = Path(name).expanduser()
    if path.exists():
        return TaskEmbedding.load(path)
    if name.count("/") == 1 and name[0] not in "./~":
        try:
            return TaskEmbedding.from_pretrained(name, **hub)
        except HubError as error:
            raise type(error)(f"{error}; and there is no folder or file {name!r} here ({Path.cwd()})") from error
    if name in table().tasks:
        return table().embedding(name)
    known = ", ".join(sorted(table().tasks))
    raise EmbeddingError(f"{name!r} is neither a folder nor a task of the index, which has: {known}")
