"""Rankings for the tests of reports: of a small dataset by a tiny probe, with names that try to break out of a page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import datasets

from hf_task2vec.selection.ranking import Ranking
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.task import Task
from tests.support.pages import CLOSING, QUOTED, SCRIPT
from tests.support.synthetic import as_dataset, pictures, tiny_probe, zoo

TOKEN = "hf_" + "a1B2" * 9


def named(names: list[str], count: int = 24) -> datasets.Dataset:
    """Return a small dataset with classes of these names."""
    plain = as_dataset(pictures(count, len(names)), [i % len(names) for i in range(count)], len(names))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    return plain.cast(features)


def ranking(data: Any = None, **options: Any) -> Ranking:
    """Return a ranking of every checkpoint of the small index."""
    probe = tiny_probe()
    data = named(["red", "green", "blue"]) if data is None else data
    return select_backbone(
        data, probe=probe, index=zoo(weights_hash=probe.weights_hash), top_k=20, **{"cache": False, **options}
    )


def hostile() -> Ranking:
    """Return a ranking whose classes, dataset, warnings, titles and evidence are hostile."""
    found = ranking(Task.from_dataset(named([SCRIPT, QUOTED, CLOSING])))
    table = found.table.copy()
    table.loc[1, ["evidence", "license"]] = [SCRIPT, QUOTED]
    task = {**found.provenance["task"], "dataset": SCRIPT, "skipped": [{"row": 3, "reason": QUOTED}]}
    explanations = {
        name: replace(why, neighbours=tuple(replace(n, title=QUOTED + CLOSING) for n in why.neighbours))
        for name, why in found.explanations.items()
    }
    return replace(
        found,
        table=table,
        dataset=CLOSING + SCRIPT,
        warnings=(SCRIPT, QUOTED),
        provenance=found.provenance | {"task": task},
        explanations=explanations,
    )
