"""Repositories of the Hub that share embeddings or indexes, and how near their tasks are to a given one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_task2vec.embedding import DEFAULT_DISTANCE, DISTANCES, pairwise, probe_slug
from hf_task2vec.errors import EmbeddingError, HubError, Task2VecError
from hf_task2vec.hub import REQUEST_TIMEOUT, HubSession
from hf_task2vec.sharing.cards import INDEX_TAG, TAG
from hf_task2vec.sharing.pull import pull_embedding

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.hub import Token


@dataclass(frozen=True)
class SharedTask:
    """A repository tagged ``task2vec``; what its card does not say is None."""

    repo_id: str
    kind: str  # "embedding", "dataset" (with an embedding beside its data), or "index"
    dataset: str | None
    probe: str | None
    n_classes: int | None
    private: bool
    last_modified: str | None  # YYYY-MM-DD
    distance: float | None = None
    problem: str | None = None
    """Why there is no distance, if one was asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def search_hub(
    text: str | None = None,
    *,
    near: TaskEmbedding | None = None,
    kind: str = DEFAULT_DISTANCE,
    probe: str | None = None,
    author: str | None = None,
    limit: int = 100,
    token: Token = None,
    timeout: float | None = None,
    on_done: Callable[[], object] = lambda: None,
) -> list[SharedTask]:
    """List the repositories of the Hub that are tagged ``task2vec``, or rank them by distance to a task.

    Parameters
    ----------
    text
        Text that their ids must hold.
    near
        Rank by distance to this embedding; the embedding in each repository is downloaded (some ten kilobytes) unless
        it is cached. Repositories without one by the same probe come last, with the reason.
    kind
        Name of the distance, one of ``hf_task2vec.DISTANCES``, from each of them to `near`.
    probe
        Only repositories with an embedding by this probe.
    author
        Only those of this user or organization.
    limit
        How many to look at, the most recently changed first.
    token
        Hub token: private repositories that it can read are listed too.
    timeout
        Seconds that the whole may take (default: ``$HF_TASK2VEC_HUB_TIMEOUT``, or 300).
    on_done
        Called after each repository that was compared.

    Returns
    -------
    list of SharedTask
        The most recently changed first; with `near` the nearest first.

    Raises
    ------
    HubError
        The list cannot be had. A single repository that cannot be read is no error but has a `problem`.
    EmbeddingError
        The distance is unknown.
    """
    if kind not in DISTANCES:
        raise EmbeddingError(f"distance {kind!r} is unknown; choose one of {', '.join(DISTANCES)}")
    if limit < 1:
        raise HubError(f"limit={limit!r} must be at least 1")
    session = HubSession(None, token=token, timeout=timeout)

    def listed() -> list[Any]:
        filters = [TAG, *([] if probe is None else [probe_slug(probe)])]
        options: dict[str, Any] = {"sort": "last_modified", "limit": limit, "full": True}
        return list(session.api.list_datasets(filter=filters, search=text, author=author, **options))

    found = [_shared(info) for info in session.call("searching", listed, limit=REQUEST_TIMEOUT)]
    if near is None:
        return found
    compared = []
    for shared in found:
        compared.append(_compared(shared, near, kind, session))
        on_done()
    return sorted(compared, key=lambda shared: math.inf if shared.distance is None else shared.distance)


def _shared(info: Any) -> SharedTask:
    """Return what a list answer says of one repository. Cards are written by anyone: nothing in them is relied on."""
    said = (info.card_data.to_dict() if info.card_data is not None else {}).get(TAG)
    own = said if isinstance(said, dict) else {}
    kind = "index" if INDEX_TAG in (info.tags or ()) else "embedding" if own else "dataset"
    dataset = info.id if kind == "dataset" else own.get("dataset")
    probe, n_classes = own.get("probe"), own.get("n_classes")
    return SharedTask(
        repo_id=info.id,
        kind=kind,
        dataset=dataset if isinstance(dataset, str) else None,
        probe=probe if isinstance(probe, str) else None,
        n_classes=n_classes if type(n_classes) is int else None,
        private=bool(info.private),
        last_modified=info.last_modified.date().isoformat() if info.last_modified else None,
    )


def _compared(shared: SharedTask, near: TaskEmbedding, kind: str, session: HubSession) -> SharedTask:
    """Add the distance from a shared task to `near`, or why there is none."""
    if shared.kind == "index":
        return replace(shared, problem="an index; its tasks are compared by `hf-task2vec distance`")
    if not session.left:
        return replace(shared, problem="time was over before it could be read")
    try:
        found = pull_embedding(HubSession(shared.repo_id, token=session.token, timeout=session.left))
        return replace(shared, distance=float(pairwise(found, kind, to=near)[0, 0]))
    except Task2VecError as error:
        return replace(shared, problem=str(error))
