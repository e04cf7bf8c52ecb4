"""Tasks of an index from datasets of the Hub: what their repositories say of them, and their embeddings."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence

from hf_task2vec.errors import HubError, TaskError
from hf_task2vec.evidence.build import BuildReport, build_index
from hf_task2vec.evidence.inputs import TaskSpec
from hf_task2vec.evidence.own_scores import open_index
from hf_task2vec.hub import REQUEST_TIMEOUT, HubSession
from hf_task2vec.zoo import HUB_CARDS, TaskRow, ZooIndex, as_slug, check_rows

logger = logging.getLogger(__name__)

#: Gigabytes of a dataset of which no part can be read by itself, beyond which it is left alone.
MOST_GB = 5.0


def add_tasks(
    path: str | os.PathLike[str],
    datasets: Sequence[str],
    *,
    base: ZooIndex | str | os.PathLike[str] | None = None,
    most_gb: float = MOST_GB,
    device: str | None = None,
    batch_size: int | None = None,
    token: str | None = None,
    progress: bool = False,
) -> BuildReport:
    """Embed datasets of the Hub and add them to an index of one's own, each with its licence and commit.

    Of Parquet files only what the sample needs is transferred. Images are never stored in the index.

    Parameters
    ----------
    path, base
        Folder of the index, and the one to begin with if there is none.
    datasets
        Hub ids. One that the index knows from outcomes keeps the name it has there.
    most_gb
        Gigabytes of a dataset that is not of Parquet files, and has to be downloaded whole.
    device, batch_size, token, progress
        As for `build_index`.

    Raises
    ------
    TaskError, HubError
        None of the datasets can be embedded. If some can, the others are told in the report or warned of.
    ZooIndexError
        The index cannot be read or written.
    """
    index, specs, errors = open_index(path, base), list[TaskSpec](), list[Exception]()
    for dataset in datasets:
        try:
            specs.append(_spec(dataset, index, most_gb, token))
        except (HubError, TaskError) as error:
            logger.warning("%s is left out: %s", dataset, error)
            errors.append(error)
    if not specs:
        raise errors[0] if errors else TaskError("no dataset to embed; name one of the Hub, org/name")
    more = {"device": device, "batch_size": batch_size, "token": token, "progress": progress}
    return build_index(path, specs, (), base=index, **more)  # type: ignore[arg-type]


def most_reported(index: ZooIndex, count: int) -> list[str]:
    """Return the datasets of the Hub with the most outcomes of those that the index has no embedding of."""
    outcomes = Counter(row.task for row in index.score_rows if row.source == HUB_CARDS)
    rows = [row for row in index.by_name(TaskRow).values() if row.source and not row.embedded and outcomes[row.task]]
    return [str(row.source) for row in sorted(rows, key=lambda row: -outcomes[row.task])][:count]


def _spec(dataset: str, index: ZooIndex, most_gb: float, token: str | None) -> TaskSpec:
    session = HubSession(dataset, token=token)
    info = session.call(
        "looking it up", session.api.dataset_info, dataset, files_metadata=True, limit=REQUEST_TIMEOUT, attempts=3
    )
    files = [(str(part.rfilename), part.size or 0) for part in info.siblings or ()]
    size = sum(n for _, n in files) / 1e9
    if size > most_gb and not any(name.endswith(".parquet") for name, _ in files):
        raise TaskError(
            f"dataset {dataset!r} holds {size:.1f} GB that can only be downloaded whole, more than {most_gb:g} GB; "
            "allow it with most_gb=… (--most-gb), or convert it to Parquet"
        )
    card = info.card_data.to_dict() if info.card_data else {}
    license_ = card.get("license")
    known = {row.source: name for name, row in index.by_name(TaskRow).items()}
    name = dataset.rpartition("/")[2]
    slug = as_slug(name) if as_slug(name) not in index.by_name(TaskRow) else as_slug(dataset.replace("/", "_"))
    record = {
        "dataset": dataset,
        "task": known.get(dataset, slug),
        "title": dataset,
        "license": license_ if isinstance(license_, str) and license_ else None,
        "flags": ("gated",) if info.gated else (),
    }
    return check_rows(TaskSpec, [record], "tasks")[0]
