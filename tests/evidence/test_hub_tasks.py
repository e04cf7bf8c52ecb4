"""Datasets of the Hub as tasks of an index."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from hf_task2vec.errors import TaskError
from hf_task2vec.evidence.build import build_index
from hf_task2vec.evidence.hub_tasks import add_tasks
from hf_task2vec.zoo.index import ZooIndex
from hf_task2vec.zoo.schema import HUB_CARDS, TaskRow
from tests.support.cards import LEAVES, index, readme
from tests.support.cli_stub import run
from tests.support.hub import HubServer, card
from tests.support.hub_tables import shards, table


@pytest.fixture
def own(hub: HubServer, tasks: list[str], nets: list[str], own_cache: Path, tmp_path: Path) -> Path:
    """An index with two tasks and one network of the Hub, which is its probe too."""
    hub.create_model("lab/probe", {path.name: path.read_bytes() for path in Path(nets[0]).iterdir()})
    build_index(tmp_path / "index", tasks, ["lab/probe"], max_samples=20, probe="lab/probe")
    return tmp_path / "index"


def pictures(seed: int = 0, **metadata: Any) -> dict[str, bytes]:
    """A dataset of Parquet files: cuts of two photographs, a class each."""
    photographs = load_sample_images().images
    data, rng, cells = table([0, 1] * 20), np.random.default_rng(seed), []
    for label in data["label"].to_pylist():
        x, y = rng.integers(0, 360, 2)
        stream = io.BytesIO()
        Image.fromarray(photographs[label][x : x + 48, y : y + 48]).save(stream, "PNG")
        cells.append({"bytes": stream.getvalue(), "path": None})
    kind = data.schema.field("image")
    return {"README.md": card(**metadata), **shards(data.set_column(0, kind, pa.array(cells, kind.type)), 1, {})}


def test_datasets_of_the_hub_are_embedded(hub: HubServer, own: Path) -> None:
    commit = hub.create_dataset("org/leaves", pictures(license="cc-by-4.0"))
    answer = run("index", "add-task", str(own), "org/leaves", "org/none")
    assert answer.exit_code == 0, answer.output
    assert "org/none is left out" in answer.output
    zoo = ZooIndex.load(own)
    row = zoo.by_name(TaskRow)["leaves"]
    assert (row.source, row.source_revision, row.license, row.embedded) == ("org/leaves", commit, "cc-by-4.0", True)
    assert (row.n_classes, row.n_images) == (2, 40)
    assert not [path for path in own.iterdir() if path.suffix not in (".csv", ".json", ".safetensors")]
    assert len(zoo.score_rows) == 2  # nothing is measured
    assert run("index", "add-task", str(own), "org/none").exit_code == 5


def test_what_is_too_large_or_gated_is_left_alone(hub: HubServer, own: Path) -> None:
    hub.create_dataset("org/zips", {"a.zip": b"x" * 2000})
    with pytest.raises(TaskError, match=r"can only be downloaded whole.*--most-gb"):
        add_tasks(own, ["org/zips"], most_gb=1e-6)
    hub.create_dataset("org/gated", pictures(), gated=True)
    assert run("index", "add-task", str(own), "org/gated").exit_code != 0
    assert "gated" in run("index", "add-task", str(own), "org/gated").output
    assert "gated" not in ZooIndex.load(own).by_name(TaskRow)


def test_datasets_with_most_outcomes_are_embedded(hub: HubServer, own: Path) -> None:
    zoo = ZooIndex.load(own).add_checkpoints(
        [
            {
                "hub_id": f"lab/net{i}",
                "library": "timm",
                "architecture": "net",
                "family": "net",
                "facts_source": "hf_task2vec_measured",
            }
            for i in range(2)
        ]
    )
    zoo.save(own)
    for i, data in enumerate(("org/leaves", "org/leaves", "org/rare")):
        metadata = {"pipeline_tag": "image-classification", "base_model": f"lab/net{i % 2}", "datasets": [data]}
        text = readme(**metadata, model_index=index(0.8 + i / 100, **LEAVES))
        hub.create_model(f"user{i}/net", {"README.md": text.encode()})
    hub.create_dataset("org/leaves", pictures())
    answer = run("index", "harvest", str(own), "--embed-datasets", "1")
    assert answer.exit_code == 0, answer.output
    rows = ZooIndex.load(own).by_name(TaskRow)
    assert (rows["org_leaves"].embedded, rows["org_rare"].embedded) == (True, False)
    assert sum(row.source == HUB_CARDS for row in ZooIndex.load(own).score_rows) == 3


@pytest.mark.slow
def test_thirty_datasets(hub: HubServer, own: Path) -> None:
    known = {"library": "timm", "architecture": "net", "family": "net", "facts_source": "hf_task2vec_measured"}
    ZooIndex.load(own).add_checkpoints([{**known, "hub_id": "lab/net"}]).save(own)
    for i in range(30):
        metadata = {"pipeline_tag": "image-classification", "base_model": "lab/net", "datasets": [f"org/data{i}"]}
        text = readme(**metadata, model_index=index(0.5 + i / 100, **LEAVES))
        hub.create_model(f"user{i}/net", {"README.md": text.encode()})
        hub.create_dataset(f"org/data{i}", pictures(i))
    answer = run("index", "harvest", str(own), "--embed-datasets", "30")
    assert answer.exit_code == 0, answer.output
    rows = ZooIndex.load(own).by_name(TaskRow)
    assert all(rows[f"org_data{i}"].embedded for i in range(30))
    assert ZooIndex.load(own).validate() == []
