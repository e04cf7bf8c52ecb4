"""The zoo index as code: files, checks, changes, filters and embeddings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import ProbeMismatchError, ZooIndexError
from hf_task2vec.zoo.index import ZooIndex
from hf_task2vec.zoo.records import read_csv, write_csv
from hf_task2vec.zoo.schema import ScoreRow
from tests.support.synthetic import embedding, files_in

FACTS = {"source": "lab", "repo": "lab/results", "protocol": "probe", "split": "test", "metric": "top-1"}
SOURCE = FACTS | {"license": "mit"}


def checkpoint(hub_id: str, **facts: Any) -> dict[str, Any]:
    return {"hub_id": hub_id, "library": "timm", "architecture": "a", "family": "f", "facts_source": "lab", **facts}


def score(task: str, hub_id: str, value: float, **facts: Any) -> dict[str, Any]:
    fixed = {"metric": "top1", "protocol": "linear_probe", "split": "test", "source": "lab", "source_license": "mit"}
    row = {"task": task, "checkpoint": hub_id, "score": value, "checkpoint_match": "measured", "leak": False}
    return fixed | row | facts


def table(tasks: tuple[str, ...] = ("birds", "cars"), seed: int = 0, **changes: Any) -> TaskEmbedding:
    return TaskEmbedding.stack([embedding(seed + i, **changes) for i in range(len(tasks))], tasks)


@pytest.fixture
def index() -> ZooIndex:
    empty = ZooIndex(rows={}, created="2026-01-02", package_version="0.1.0")
    tasks = [
        {"task": name, "title": name.title(), "domain": "objects", "images_from": name, "flags": "small;noisy"}
        for name in ("birds", "cars")
    ]
    checkpoints = [
        checkpoint("org/big", params_m=90.5, gmacs=16.0, license="MIT", input_px=384),
        checkpoint("org/small", params_m=5, gmacs=0.3, license="apache-2.0", input_px=224, trained_on="birds"),
        checkpoint("org/unknown", library="transformers"),
        checkpoint("local:mine", params_m=1, gmacs=0.1, license="mit", input_px=224),
    ]
    scores = [score("birds", "org/big", 0.9), score("birds", "org/small", 0.7, leak=True, n_test=50)]
    return empty.add_sources([SOURCE]).add_tasks(tasks).add_checkpoints(checkpoints).add_scores(scores)


@pytest.fixture
def folder(index: ZooIndex, tmp_path: Path) -> Path:
    index.with_embeddings(table()).with_attachments({"metric.json": b"{}"}).save(tmp_path / "zoo")
    return tmp_path / "zoo"


def edit(folder: Path, name: str, old: str, new: str) -> None:
    """Change the first such text in a file of an index."""
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1))


def edit_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


# ---------------------------------------------------------------------- round trips


def test_save_and_load_give_the_same_index(folder: Path, tmp_path: Path) -> None:
    first = ZooIndex.load(folder)
    first.save(tmp_path / "copy")
    second = ZooIndex.load(tmp_path / "copy")
    assert first.rows == second.rows
    assert first.fingerprint == second.fingerprint
    assert second.attachments == {"metric.json": b"{}"}
    assert second.validate() == []
    np.testing.assert_array_equal(second.embeddings.values, table().values)
    assert files_in(folder) == files_in(tmp_path / "copy")
    # The Hub's cache is a folder of links to blobs elsewhere.
    (tmp_path / "copy" / "scores.csv").unlink()
    (tmp_path / "copy" / "scores.csv").symlink_to(folder / "scores.csv")
    assert ZooIndex.load(tmp_path / "copy").rows == first.rows


def test_fingerprint_of_memory_equals_that_of_files_and_follows_content(index: ZooIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    assert ZooIndex.load(tmp_path).fingerprint == index.fingerprint
    assert index.add_scores([score("cars", "org/big", 0.5)]).fingerprint != index.fingerprint


def test_an_index_does_not_change(index: ZooIndex) -> None:
    index.add_scores([score("cars", "org/big", 0.5)])
    index.with_embeddings(table())
    assert len(index.scores) == 2
    assert index.probe is None
    with pytest.raises(TypeError):
        index.rows["scores"] = ()  # type: ignore[index]


def test_frames_have_stable_types(index: ZooIndex) -> None:
    assert index.scores["score"].dtype == "float64"
    assert index.scores["n_train"].dtype == "Int64"
    assert index.scores["leak"].dtype == "bool"
    assert index.tasks["flags"].tolist() == [("small", "noisy")] * 2
    assert index.checkpoints.set_index("hub_id").loc["org/unknown", "license"] is None


texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.builds(
            ScoreRow,
            task=st.from_regex(r"[a-z0-9][a-z0-9_.\-]{0,10}", fullmatch=True),
            checkpoint=st.sampled_from(["org/x", "local:y"]),
            score=st.floats(0, 1),
            score_std_error=st.none() | st.floats(0, 1e6),
            metric=st.sampled_from(["top1", "auc"]),
            protocol=st.just("lp"),
            split=st.just("test"),
            n_train=st.none() | st.integers(0, 10**9),
            n_test=st.none(),
            source=st.just("lab"),
            source_model=st.none() | texts,
            source_license=texts,
            checkpoint_match=st.sampled_from(["exact", "measured"]),
            leak=st.booleans(),
            versions=st.none() | texts,
        ),
        max_size=8,
    )
)
def test_any_rows_survive_csv(rows: list[ScoreRow]) -> None:
    data = write_csv(ScoreRow, rows)
    back = read_csv(ScoreRow, data, "scores.csv")
    assert sorted(map(repr, back)) == sorted(map(repr, rows))
    assert write_csv(ScoreRow, back) == data


# ---------------------------------------------------------------------- what loading refuses


def test_changed_files_are_found_by_validate(folder: Path) -> None:
    edit(folder, "scores.csv", "0.7", "0.8")
    edited = ZooIndex.load(folder)
    (problem,) = edited.validate()
    assert re.match(r"scores\.csv: its SHA-256 is [0-9a-f]{64} but manifest.json says .*: load and save", problem)
    edited.save(folder)
    assert ZooIndex.load(folder).validate() == []
    assert ZooIndex.load(folder).scores["score"].tolist() == [0.9, 0.8]


@pytest.mark.parametrize("version", [1, 0, "2", None])
def test_unknown_schema_version(folder: Path, version: object) -> None:
    edit_manifest(folder, schema_version=version)
    with pytest.raises(ZooIndexError, match=r"schema version .*; this release reads version 3"):
        ZooIndex.load(folder)


@pytest.mark.parametrize("name", ["../secret.csv", "/etc/passwd", "a/../../b", "c:/x", "a\\b", "./scores.csv"])
def test_files_outside_the_folder_are_refused(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit_manifest(folder, files=manifest["files"] | {name: "0" * 64})
    with pytest.raises(ZooIndexError, match="should be a plain relative path"):
        ZooIndex.load(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("manifest.json", '"files"', '"extra": 1, "files"', r"manifest\.json: extra: found 1; Extra inputs are not"),
        ("manifest.json", "tasks.csv", "other.csv", r"files lists no checksum of \['tasks\.csv'\]"),
        ("manifest.json", "{", "", "not readable as JSON"),
        ("tasks.csv", "task,title", "task,colour,title", r"row 1 .*unknown \['colour'\], missing \[\]; .* order: task"),
        ("scores.csv", "measured,true,", "measured,true,,", r"scores\.csv: row 3 has 17 cells; expected 16"),
        ("scores.csv", "org/big,0.9", "org/big,90", r"scores\.csv: row 2, column score: found '90'; .*equal to 1"),
        ("scores.csv", "org/small,0.7", "org/small,nan", r"row 3, column score: found 'nan'; .*finite number"),
        ("scores.csv", "top1", "top-1", r"row 2, column metric: found 'top-1'; .*'top1', 'mean_per_class'"),
        ("scores.csv", "org/big,0.9", "org/big,", r"row 2, column score: the cell is empty but a value is required"),
        ("checkpoints.csv", "org/big,timm", "org/big,keras", r"row 3, column library: found 'keras'; .*'timm',"),
        ("checkpoints.csv", "org/big", "bigmodel", r"row 3, column hub_id: found 'bigmodel'"),
        ("tasks.csv", "birds,Birds", "Bird s,Birds", r"tasks\.csv: row 2, column task: found 'Bird s'"),
        ("scores.csv", "org/big", "org/bigg", r"'org/bigg' is not in checkpoints\.csv \(did you mean 'org/big'"),
        ("scores.csv", "org/small", "org/big", r"row 3 repeats the key of row 2: task='birds', checkpoint='org/big'"),
    ],
)
def test_malformed_files_are_named_with_what_would_be_valid(
    folder: Path, name: str, old: str, new: str, message: str
) -> None:
    edit(folder, name, old, new)
    with pytest.raises(ZooIndexError, match=message):
        ZooIndex.load(folder)


def test_missing_files(folder: Path) -> None:
    for name, message in (
        ("embeddings.safetensors", r"embeddings\.safetensors: part of the index but not there"),
        ("tasks.csv", r"tasks\.csv: part of the index but not readable"),
        ("manifest.json", r"is no zoo index: it holds no manifest\.json"),
    ):
        kept = (folder / name).rename(folder / "elsewhere")
        with pytest.raises(ZooIndexError, match=message):
            ZooIndex.load(folder)
        kept.rename(folder / name)


def test_many_problems_are_summarised(index: ZooIndex) -> None:
    with pytest.raises(ZooIndexError, match=r"new scores: row 1, column score.*; and 2 more$"):
        index.add_scores([score("birds", "org/big", 2 + i) for i in range(7)])


# ---------------------------------------------------------------------- changes


def test_conflicts_and_replacement(index: ZooIndex) -> None:
    changed = [score("birds", "org/big", 0.8)]
    with pytest.raises(ZooIndexError, match=r"two different facts about task='birds'.*score: 0\.9 and 0\.8.*replace=T"):
        index.add_scores(changed)
    assert index.add_scores(changed, replace=True).scores["score"].tolist() == [0.8, 0.7]
    with pytest.raises(ZooIndexError, match=r"'moths' is not in tasks\.csv"):
        index.add_scores([score("moths", "org/big", 0.8)])


def test_validate_finds_disagreeing_facts(index: ZooIndex) -> None:
    wrong = index.add_scores([score("cars", "org/big", 0.5, leak=True, source_license="gpl")])
    problems = wrong.validate()
    assert any(re.search(r"row 4, column leak: True; the rows that it names say False", p) for p in problems)
    assert any("; the rows that it names say mit" in p for p in problems)


# ---------------------------------------------------------------------- embeddings


def test_damaged_embeddings(folder: Path) -> None:
    edit_manifest(folder, probe={"name": "org/tiny-probe", "weights_hash": "0" * 64})
    with pytest.raises(ZooIndexError, match=r"is of probe .* but manifest\.json says"):
        _ = ZooIndex.load(folder).embeddings
    path = folder / "embeddings.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    broken = ZooIndex.load(folder)
    with pytest.raises(ZooIndexError, match=r"embeddings\.safetensors is no readable task embedding"):
        _ = broken.embeddings
    assert any("no readable task embedding" in problem for problem in broken.validate())


def test_embeddings_belong_to_tasks_of_the_index(index: ZooIndex) -> None:
    with pytest.raises(ZooIndexError, match="the index holds no task embeddings"):
        _ = index.embeddings
    with pytest.raises(ZooIndexError, match=r"embeddings of unknown tasks \['moths'\]"):
        index.with_embeddings(table(("moths",)))


def test_adding_embeddings_keeps_and_replaces(index: ZooIndex) -> None:
    one = index.with_embeddings(table(("birds",)))
    assert one.tasks["embedded"].tolist() == [True, False]
    both = one.with_embeddings(embedding(1), ["cars"])
    assert both.embeddings.names == ("birds", "cars")
    assert both.with_embeddings(table(("birds",))).fingerprint == both.fingerprint
    other = one.with_embeddings(table(("cars",)), replace=True)
    assert other.tasks["embedded"].tolist() == [False, True]
    with pytest.raises(ProbeMismatchError, match="embed both with the same probe"):
        one.with_embeddings(table(("cars",), weights_hash="cd" * 32))
    with pytest.raises(ZooIndexError, match="the index holds another embedding of 'birds'; pass replace=True"):
        one.with_embeddings(table(("birds",), seed=1))
    with pytest.raises(ZooIndexError, match="embeddings differ in how they were made"):
        one.with_embeddings(table(("cars",), config={"seed": 1}))
