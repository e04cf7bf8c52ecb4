"""Own scores in a local index: what is added, what is refused, and what rankings make of it."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import EmbeddingError, ProbeMismatchError, Task2VecError, ZooIndexError
from hf_task2vec.evidence.own_scores import AddedScore, add_score
from hf_task2vec.metric.observations import REFERENCE_SOURCE
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.zoo.index import ZooIndex, default_index_path
from tests.support.hub import HubServer
from tests.support.synthetic import TINY, embedding, files_in, zoo

LINEAR_PROBE: dict[str, Any] = {"protocol": "linear_probe_loo", "split": "sample", "n_test": 256, "score": 0.97}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    zoo().save(tmp_path / "index")
    return tmp_path / "index"


def add(path: Path, **changes: Any) -> AddedScore:
    """Add a score of fine-tuning, or what `changes` say."""
    plain = {"task": "task1", "checkpoint": "org/small", "score": 0.9, "protocol": "full_finetune", "n_test": 200}
    return add_score(path, **{**plain, **changes})


def named(name: str, seed: int = 9) -> TaskEmbedding:
    return embedding(seed, task={"dataset": name})


FLOWERS = named("flowers")


def predicted(index: ZooIndex | Path, task: TaskEmbedding = FLOWERS) -> dict[str, float]:
    """Predicted accuracies by checkpoint, best first."""
    return {candidate.hub_id: candidate.score for candidate in select_backbone(task, index=index, top_k=100)}


# ---------------------------------------------------------------------- what is added


def test_a_score_of_a_known_task(path: Path) -> None:
    before = ZooIndex.load(path)
    (path / "README.md").write_text("mine")
    added = add(path, n_train=400)
    index = ZooIndex.load(path)
    assert index.validate() == []
    assert set(index.rows["scores"]) - set(before.rows["scores"]) == {added.row}
    row = added.row
    assert (row.task, row.checkpoint, row.score, row.n_train, row.n_test) == ("task1", "org/small", 0.9, 400, 200)
    assert (row.source, row.source_license, row.split, row.metric) == ("local", "unspecified", "test", "top1")
    assert (row.checkpoint_match, row.leak) == ("measured", False)
    assert row.score_std_error == pytest.approx(math.sqrt(0.9 * 0.1 / 200), rel=0.03)
    assert (added.new, added.comparable, added.replaced, added.reference) == (("source",), 1, None, None)
    assert "moves no ranking yet" in added.notes[0]
    assert (path / "README.md").read_text() == "mine"


def test_an_embedding_brings_its_task(path: Path, tmp_path: Path) -> None:
    named("My Flowers/2").save(tmp_path / "flowers")
    added = add(path, task=str(tmp_path / "flowers"))
    index = ZooIndex.load(path)
    assert (added.row.task, added.new) == ("my_flowers_2", ("task", "embedding", "source"))
    task = index.tasks.set_index("task").loc["my_flowers_2"]
    assert (task["n_classes"], task["n_images"], task["embedded"]) == (3, 64, True)
    np.testing.assert_array_equal(index.embeddings["my_flowers_2"].values, FLOWERS.values)
    again = add(path, task=named("My Flowers/2"), checkpoint="org/mid")
    assert (again.new, again.comparable, again.notes) == ((), 2, ())


def test_a_folder_of_images_named_as_a_task_is_not_taken_for_an_embedding(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task1" / "cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert add(path, task="task1").row.task == "task1"


def test_an_index_begins_with_another(path: Path, tmp_path: Path) -> None:
    before = files_in(path)
    added = add(tmp_path / "deep" / "index", base=path)
    assert added.new == ("index", "source")
    assert files_in(path) == before
    assert len(ZooIndex.load(added.path).scores) == len(ZooIndex.load(path).scores) + 1
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["index"]
    assert add(added.path, base="shipped", split="b").new == ()  # the second time the base is not looked at
    (tmp_path / "empty").mkdir()
    add(tmp_path / "empty", base=zoo())
    assert ZooIndex.load(tmp_path / "empty").validate() == []


def test_replace(path: Path) -> None:
    add(path)
    before = files_in(path)
    for score in (0.8, 0.9):  # the very same score, too
        with pytest.raises(
            ZooIndexError, match=r"already holds 0\.9 of org/small on 'task1' \(local, full_finetune, to"
        ):
            add(path, score=score)
    assert files_in(path) == before
    assert add(path, score=0.8, replace=True).replaced == 0.9
    assert [row.score for row in ZooIndex.load(path).rows["scores"] if row.source == "local"] == [0.8]
    assert add(path, n_train=10).replaced is None  # another measurement


def test_a_leak_is_marked_and_said(path: Path) -> None:
    seen = {"task": "seen", "title": "s", "domain": "d", "images_from": ("imagenet1k",)}
    index = ZooIndex.load(path).add_tasks([seen])
    row = index.rows["checkpoints"][0].model_dump() | {"hub_id": "org/trained", "trained_on": ("imagenet1k",)}
    index.add_checkpoints([row]).save(path)
    added = add(path, task="seen", checkpoint="org/trained")
    assert added.row.leak
    assert "has seen images of 'seen'" in added.notes[0]


def test_a_checkpoint_of_the_hub(path: Path, hub: HubServer) -> None:
    config = {"architecture": "resnet10t", "num_classes": 10, "pretrained_cfg": {"input_size": [3, 64, 64]}}
    files = {"config.json": json.dumps(config).encode(), "README.md": b"---\nlibrary_name: timm\n---\n"}
    hub.create_model("org/new", files)
    with pytest.raises(ZooIndexError, match=r"no checkpoint 'org/new'.*--look-up\) asks the Hub"):
        add(path, checkpoint="org/new")
    assert "checkpoint" in add(path, checkpoint="org/new", look_up=True).new
    assert ZooIndex.load(path).checkpoints.set_index("hub_id").loc["org/new", "architecture"] == "resnet10t"
    with pytest.raises(ZooIndexError, match="the Hub gives no facts of it either"):
        add(path, checkpoint="org/absent", look_up=True)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"score": 93.0}, ZooIndexError, r"score=93 is out of range.*per cent\? Then give 0\.93"),
        ({"score": -0.1}, ZooIndexError, r"score=-0\.1 is out of range: a share between 0 and 1 is wanted$"),
        ({"score": float("nan")}, ZooIndexError, "score=nan is out of range"),
        ({"score": 101.0}, ZooIndexError, "a share between 0 and 1 is wanted$"),
        ({"n_test": 0}, ZooIndexError, "n_test=0 must be at least 1"),
        ({"n_train": -1}, ZooIndexError, "column n_train: found -1"),
        ({"task": "task11"}, ZooIndexError, r"no task 'task11' \(did you mean 'task1'"),
        ({"task": "flowers"}, ZooIndexError, "hf-task2vec embed DATASET"),
        ({"checkpoint": "org/smal"}, ZooIndexError, r"no checkpoint 'org/smal' \(did you mean 'org/small'"),
        ({"checkpoint": "other/Hueg"}, ZooIndexError, "did you mean 'org/huge'"),
        ({"checkpoint": "../../etc"}, ZooIndexError, "has no checkpoint"),
        ({"protocol": "Full fine-tune"}, ZooIndexError, "column protocol: found 'Full fine-tune'"),
        ({"source": "My Lab"}, ZooIndexError, "column source: found 'My Lab'"),
        ({"source": "lab", "license": "cc0"}, ZooIndexError, "the licence of source 'lab' is 'mit', not 'cc0'"),
        ({"task": named("…")}, ZooIndexError, "no name can be made of '…'"),
        ({"task": embedding(9, weights_hash="cd" * 32)}, ProbeMismatchError, "embed it anew with these"),
        ({"task": replace(FLOWERS, config={**FLOWERS.config, "seed": 5})}, ProbeMismatchError, "'seed': 5"),
        ({"task": named("task1", seed=77)}, EmbeddingError, "another embedding of 'task1'.*--name"),
        ({"task": replace(FLOWERS, task_descriptors=({"n_classes": 3.0},))}, EmbeddingError, "lacks the descriptors"),
        ({"task": Path()}, EmbeddingError, "cannot be read"),
    ],
)
def test_what_is_refused_changes_nothing(
    path: Path, changes: dict[str, Any], error: type[Task2VecError], message: str
) -> None:
    before = files_in(path)
    with pytest.raises(error, match=message):
        add(path, **changes)
    assert files_in(path) == before


def test_another_embedding_gets_a_name_of_its_own(path: Path) -> None:
    assert add(path, task=named("task1", seed=77), name="task1_again").row.task == "task1_again"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    score=st.floats(allow_nan=True) | st.sampled_from([0.0, 1.0, 0.5]),
    n_test=st.integers(-5, 10**7),
    text=st.text(max_size=30),
    where=st.sampled_from(["task", "checkpoint", "protocol", "split", "metric", "source", "license", "name"]),
)
def test_whatever_is_given_the_index_stays_valid(path: Path, score: float, n_test: int, text: str, where: str) -> None:
    before = files_in(path)
    try:
        add(path, **{"score": score, "n_test": n_test, where: text}, replace=True)
    except Task2VecError:
        assert files_in(path) == before
    assert ZooIndex.load(path).validate() == []


def test_places_that_are_no_index(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooIndexError, match=r"no index at .*--base shipped\) begins one"):
        add(tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for place in (tmp_path / "full", tmp_path / "full" / "thesis.tex"):
        with pytest.raises(ZooIndexError, match="holds no index, but other files"):
            add(place, base=zoo())
    with pytest.raises(ZooIndexError, match="comes with the package"):
        add(default_index_path(), task="trashnet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "index"]
    (path / "scores.csv").write_bytes((path / "scores.csv").read_bytes() + b"\n")
    before = files_in(path)
    with pytest.raises(ZooIndexError, match="row 30 has 0 cells"):
        add(path)
    assert files_in(path) == before


@pytest.mark.parametrize("fails_at", range(4))
def test_a_full_disk_changes_nothing(path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before, left = files_in(path), fails_at
    write = Path.write_bytes

    def full(self: Path, data: Any) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ZooIndexError, match=r"cannot be written to.*the disk is full"):
        add(path, task=FLOWERS)
    assert files_in(path) == before
    left = fails_at
    with pytest.raises(ZooIndexError, match="the disk is full"):
        add(path.parent / "new", base=zoo())
    assert files_in(path.parent / "new") == {}


def test_two_at_once_lose_nothing(path: Path) -> None:
    threads = [threading.Thread(target=lambda i=i: add(path, split=f"split{i}")) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    local = [row.split for row in ZooIndex.load(path).rows["scores"] if row.source == "local"]
    assert sorted(local) == [f"split{i}" for i in range(6)]


# ---------------------------------------------------------------------- what rankings make of it


def test_a_linear_probe_moves_the_prediction_towards_it(path: Path) -> None:
    old = ZooIndex.load(path)
    before = predicted(old)
    assert before["org/small"] < 0.85
    added = add(path, task=FLOWERS, **LINEAR_PROBE)
    assert (added.reference, added.comparable, added.notes) == (TINY, 2, ())
    new = ZooIndex.load(path)
    after = predicted(new)
    assert before["org/small"] + 0.03 < after["org/small"] < 0.97
    moved = {name: abs(after[name] - before[name]) for name in after}
    assert max(moved, key=lambda name: moved[name]) == "org/small"

    def gain(task: TaskEmbedding) -> float:
        return predicted(new, task)["org/small"] - predicted(old, task)["org/small"]

    assert gain(FLOWERS) > gain(named("other", seed=1234))
    assert gain(named("renamed")) == pytest.approx(gain(FLOWERS), abs=1e-6)  # what counts is the embedding
    # And the other way round.
    add(path, task=FLOWERS, **{**LINEAR_PROBE, "score": 0.4}, replace=True)
    assert predicted(path)["org/small"] < before["org/small"]


def test_one_score_alone_moves_no_ranking(path: Path) -> None:
    before = predicted(path)
    add(path, task=FLOWERS, score=1.0)
    after = predicted(path)
    assert after == pytest.approx(before, abs=0.02)  # the new embedding moves the centre of the space a little
    assert list(after) == list(before)


@pytest.mark.parametrize("values", [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (1.0, 1.0)])
def test_an_odd_source_of_two_scores_does_not_break_the_ranking(path: Path, values: tuple[float, float]) -> None:
    before = predicted(path)
    for checkpoint, value in zip(("org/huge", "org/small"), values, strict=True):
        add(path, checkpoint=checkpoint, score=value, n_test=5, source="me")
    after = predicted(path)
    assert all(0.0 < value < 1.0 for value in after.values())
    others = [name for name in before if name not in ("org/huge", "org/small")]
    # They are the only ones of fine-tuning, so they may tell something of checkpoints like theirs.
    assert [after[name] for name in others] == pytest.approx([before[name] for name in others], abs=0.2)
    # Few images and an unknown source: the order that 28 scores speak for outlives two that contradict it.
    assert after["org/huge"] > after["org/small"] - 0.02


def test_the_more_images_the_more_a_score_counts(path: Path) -> None:
    found = [predicted(path)["org/small"]]
    for n_test in (5, 50, 5000):
        added = add(path.parent / f"index{n_test}", task=FLOWERS, **{**LINEAR_PROBE, "n_test": n_test}, base=path)
        found.append(predicted(added.path)["org/small"])
    assert found == sorted(set(found))


def test_scores_of_the_reference_protocol_may_be_given_to_its_source(tmp_path: Path) -> None:
    source, protocol = REFERENCE_SOURCE.split("/")
    facts = {"source": source, "protocol": protocol, "split": "train-test", "n_test": 589, "score": 0.8}
    added = add(tmp_path / "own", task="trashnet", checkpoint="timm/resnet18.a1_in1k", base="shipped", **facts)
    assert added.comparable == 6  # with the five that the index holds
    assert added.new == ("index",)
