"""Own scores in a local index: what is added, what is refused, and what rankings make of it."""

from __future__ import annotations

import json
import math
import os
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
from hf_task2vec.evidence.own_scores import add_score
from hf_task2vec.metric.observations import REFERENCE_SOURCE
from hf_task2vec.metric.ranking_metric import load_metric
from hf_task2vec.selection.limits import Constraints
from hf_task2vec.selection.recommendation import Recommender
from hf_task2vec.zoo.index import ZooIndex, default_index_path
from hf_task2vec.zoo.schema import ScoreRow
from tests.support.hub import HubServer
from tests.support.synthetic import TINY, embedding, zoo

NEW = {"checkpoint": "org/small", "score": 0.9, "protocol": "full_finetune", "n_test": 200}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def named(name: str, seed: int = 9) -> TaskEmbedding:
    return embedding(seed, task={"dataset": name})


def scores(index: ZooIndex) -> dict[str, float]:
    """Predicted accuracies by checkpoint for the task of `named`."""
    return predicted(named("flowers"), index)


def predicted(task: TaskEmbedding, index: ZooIndex) -> dict[str, float]:
    ranking = Recommender(task, index, load_metric("trained", index), Constraints().eligible(index)).rank({}, top_k=100)
    return {candidate.hub_id: candidate.score for candidate in ranking}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    zoo().save(tmp_path / "index")
    return tmp_path / "index"


def test_a_score_of_a_known_task(path: Path) -> None:
    before = ZooIndex.load(path)
    added = add_score(path, task="task1", n_train=400, **NEW)
    index = ZooIndex.load(path)
    assert index.validate() == []
    (row,) = set(index.rows["scores"]) - set(before.rows["scores"])
    assert row == added.row
    assert isinstance(row, ScoreRow)
    assert (row.task, row.checkpoint, row.score, row.n_train, row.n_test) == ("task1", "org/small", 0.9, 400, 200)
    assert (row.source, row.source_license, row.split, row.metric) == ("local", "unspecified", "test", "top1")
    assert (row.checkpoint_match, row.leak) == ("measured", False)
    assert row.score_std_error == pytest.approx(math.sqrt(0.9 * 0.1 / 200), rel=0.03)
    assert added.new == ("source",)
    assert (added.comparable, added.replaced, added.reference) == (1, None, None)
    assert "moves no ranking yet" in added.notes[0]
    assert before.attachments == index.attachments


def test_an_embedding_brings_its_task(path: Path, tmp_path: Path) -> None:
    named("My Flowers/2").save(tmp_path / "flowers")
    added = add_score(path, task=str(tmp_path / "flowers"), **NEW)
    index = ZooIndex.load(path)
    assert added.row.task == "my_flowers_2"
    assert added.new == ("task", "embedding", "source")
    task = index.tasks.set_index("task").loc["my_flowers_2"]
    assert (task["n_classes"], task["n_images"], task["embedded"]) == (3, 64, True)
    np.testing.assert_array_equal(index.embeddings["my_flowers_2"].values, named("x").values)
    again = add_score(path, task=tmp_path / "flowers", **{**NEW, "checkpoint": "org/mid"})
    assert again.new == ()
    assert again.comparable == 2
    assert again.notes == ()


def test_a_single_file_and_an_object(path: Path, tmp_path: Path) -> None:
    named("flowers").save(tmp_path / "flowers.safetensors")
    assert add_score(path, task=str(tmp_path / "flowers.safetensors"), **NEW).row.task == "flowers"
    assert add_score(path, task=named("flowers"), **{**NEW, "split": "b"}).new == ()


def test_a_folder_of_images_named_as_a_task_is_not_taken_for_an_embedding(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task1" / "cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert add_score(path, task="task1", **NEW).row.task == "task1"


def test_an_index_begins_with_another(tmp_path: Path) -> None:
    zoo().save(tmp_path / "base")
    before = files(tmp_path / "base")
    added = add_score(tmp_path / "deep" / "index", task="task1", base=tmp_path / "base", **NEW)
    assert added.new == ("index", "source")
    assert files(tmp_path / "base") == before
    assert len(ZooIndex.load(tmp_path / "deep" / "index").scores) == len(ZooIndex.load(tmp_path / "base").scores) + 1
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["index"]
    # The second time the base is not looked at.
    assert add_score(tmp_path / "deep" / "index", task="task1", base="shipped", **{**NEW, "split": "b"}).new == ()


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    add_score(tmp_path / "index", task="task1", base=zoo(), **NEW)
    assert ZooIndex.load(tmp_path / "index").validate() == []


def test_replace(path: Path) -> None:
    add_score(path, task="task1", **NEW)
    before = files(path)
    with pytest.raises(ZooIndexError, match=r"already holds 0\.9 of org/small on 'task1' \(local, full_finetune, top1"):
        add_score(path, task="task1", **{**NEW, "score": 0.8})
    with pytest.raises(ZooIndexError, match="already holds"):  # the very same score, too
        add_score(path, task="task1", **NEW)
    assert files(path) == before
    added = add_score(path, task="task1", replace=True, **{**NEW, "score": 0.8})
    assert added.replaced == 0.9
    assert [row.score for row in ZooIndex.load(path).rows["scores"] if row.source == "local"] == [0.8]
    assert add_score(path, task="task1", **{**NEW, "n_train": 10}).replaced is None  # another measurement


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": 93.0}, r"score=93 is out of range.*per cent\? Then give 0\.93"),
        ({"score": 1.5}, r"Then give 0\.015"),
        ({"score": -0.1}, r"score=-0\.1 is out of range: a share between 0 and 1 is wanted$"),
        ({"score": float("nan")}, "score=nan is out of range"),
        ({"score": float("inf")}, "score=inf is out of range"),
        ({"score": 101.0}, "a share between 0 and 1 is wanted$"),
        ({"n_test": 0}, "n_test=0 must be at least 1"),
        ({"n_train": -1}, "column n_train: found -1"),
        ({"task": "task11"}, r"no task 'task11' \(did you mean 'task1'"),
        ({"task": "flowers"}, "hf-task2vec embed DATASET"),
        ({"checkpoint": "org/smal"}, r"no checkpoint 'org/smal' \(did you mean 'org/small'"),
        ({"checkpoint": "other/Hueg"}, "did you mean 'org/huge'"),
        ({"checkpoint": "../../etc"}, "has no checkpoint"),
        ({"protocol": "Full fine-tune"}, "column protocol: found 'Full fine-tune'"),
        ({"protocol": ""}, "column protocol"),
        ({"metric": "accuracy"}, "column metric: found 'accuracy'"),
        ({"split": "te st"}, "column split"),
        ({"source": "My Lab"}, "column source: found 'My Lab'"),
        ({"source": "lab", "license": "cc0"}, "the licence of source 'lab' is 'mit', not 'cc0'"),
    ],
)
def test_what_is_refused_changes_nothing(path: Path, changes: dict[str, Any], message: str) -> None:
    before = files(path)
    with pytest.raises(ZooIndexError, match=message):
        add_score(path, **{"task": "task1", **NEW, **changes})
    assert files(path) == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    score=st.floats(allow_nan=True) | st.sampled_from([0.0, 1.0, 0.5]),
    n_test=st.integers(-5, 10**7),
    text=st.text(max_size=30),
    where=st.sampled_from(["task", "checkpoint", "protocol", "split", "metric", "source", "license", "name"]),
)
def test_whatever_is_given_the_index_stays_valid(path: Path, score: float, n_test: int, text: str, where: str) -> None:
    before = files(path)
    try:
        add_score(path, **{"task": "task1", **NEW, "score": score, "n_test": n_test, where: text}, replace=True)
    except Task2VecError:
        assert files(path) == before
    assert ZooIndex.load(path).validate() == []


def test_embeddings_that_do_not_fit(path: Path, tmp_path: Path) -> None:
    before = files(path)
    with pytest.raises(ProbeMismatchError, match="embed it anew with these"):
        add_score(path, task=embedding(9, weights_hash="cd" * 32), **NEW)
    with pytest.raises(ProbeMismatchError, match="'seed': 5"):
        add_score(path, task=embedding(9, config={"label_sampling": "sketch", "draws": 1, "seed": 5}), **NEW)
    with pytest.raises(EmbeddingError, match=r"another embedding of 'task1'.*--name"):
        add_score(path, task=named("task1", seed=77), **NEW)
    with pytest.raises(EmbeddingError, match="lacks the descriptors"):
        add_score(path, task=replace(named("x"), task_descriptors=({"n_classes": 3.0},)), **NEW)
    with pytest.raises(ZooIndexError, match="no name can be made of '…'"):
        add_score(path, task=named("…"), **NEW)
    with pytest.raises(EmbeddingError):
        add_score(path, task=tmp_path, **NEW)
    assert files(path) == before
    assert add_score(path, task=named("task1", seed=77), name="task1_again", **NEW).row.task == "task1_again"


def test_places_that_are_no_index(tmp_path: Path) -> None:
    with pytest.raises(ZooIndexError, match=r"no index at .*--base shipped\) begins one"):
        add_score(tmp_path / "none", task="task1", **NEW)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for place in (tmp_path / "full", tmp_path / "full" / "thesis.tex"):
        with pytest.raises(ZooIndexError, match="holds no index, but other files"):
            add_score(place, task="task1", base=zoo(), **NEW)
    with pytest.raises(ZooIndexError, match="comes with the package"):
        add_score(default_index_path(), task="trashnet", **NEW)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_a_damaged_index_is_not_touched(path: Path) -> None:
    (path / "scores.csv").write_bytes((path / "scores.csv").read_bytes() + b"\n")
    before = files(path)
    with pytest.raises(ZooIndexError, match="row 30 has 0 cells"):
        add_score(path, task="task1", **NEW)
    assert files(path) == before


def test_other_files_in_the_folder_stay(path: Path) -> None:
    (path / ".git").mkdir()
    (path / ".git" / "HEAD").write_text("ref")
    (path / "README.md").write_text("mine")
    add_score(path, task="task1", **NEW)
    assert (path / "README.md").read_text() == "mine"
    assert (path / ".git" / "HEAD").read_text() == "ref"


@pytest.mark.parametrize("fails_at", range(4))
def test_a_full_disk_changes_nothing(path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before, written = files(path), [0]
    write = Path.write_bytes

    def full(self: Path, data: Any) -> int:
        written[0] += 1
        if written[0] > fails_at:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ZooIndexError, match=r"cannot be written to.*No space left"):
        add_score(path, task=named("flowers"), **NEW)
    assert files(path) == before
    written[0] = 0
    with pytest.raises(ZooIndexError, match="No space left"):
        add_score(path.parent / "new", task="task1", base=zoo(), **NEW)
    assert files(path.parent / "new") == {}


def test_the_manifest_takes_its_place_last(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed: list[str] = []
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (renamed.append(Path(b).name), rename(a, b))[1])
    add_score(path, task=named("flowers"), **NEW)
    assert renamed[-1] == "manifest.json"


def test_two_at_once_lose_nothing(path: Path) -> None:
    def add(i: int) -> None:
        add_score(path, task="task1", **{**NEW, "split": f"split{i}"})

    threads = [threading.Thread(target=add, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index = ZooIndex.load(path)
    assert sorted(row.split for row in index.rows["scores"] if row.source == "local") == [f"split{i}" for i in range(6)]


# --------------------------------------------------------------------------------------------- what rankings make of it


def test_a_linear_probe_moves_the_prediction_towards_it(path: Path) -> None:
    before = scores(ZooIndex.load(path))
    assert before["org/small"] < 0.85
    measured = {"protocol": "linear_probe_loo", "split": "sample", "n_test": 256}
    added = add_score(path, task=named("flowers"), checkpoint="org/small", score=0.97, **measured)
    assert added.reference == TINY
    assert added.comparable == 2
    assert added.notes == ()
    after = scores(ZooIndex.load(path))
    assert before["org/small"] + 0.03 < after["org/small"] < 0.97
    moved = {name: abs(after[name] - before[name]) for name in after}
    assert max(moved, key=lambda name: moved[name]) == "org/small"
    # And the other way round.
    add_score(path, task=named("flowers"), checkpoint="org/small", score=0.4, replace=True, **measured)
    assert scores(ZooIndex.load(path))["org/small"] < before["org/small"]


def test_a_near_task_learns_less_and_a_far_one_nothing_of_the_task(path: Path) -> None:
    index = ZooIndex.load(path)
    add_score(path, task=named("flowers"), checkpoint="org/small", score=0.97, protocol="linear_probe_loo", n_test=256)
    learned = ZooIndex.load(path)

    def gain(task: TaskEmbedding) -> float:
        return predicted(task, learned)["org/small"] - predicted(task, index)["org/small"]

    far = gain(named("other", seed=1234))
    assert gain(named("flowers")) > far
    assert gain(named("renamed")) == pytest.approx(gain(named("flowers")), abs=1e-6)  # what counts is the embedding


def test_one_score_alone_moves_no_ranking(path: Path) -> None:
    before = scores(ZooIndex.load(path))
    add_score(path, task=named("flowers"), **{**NEW, "checkpoint": "org/small", "score": 1.0})
    after = scores(ZooIndex.load(path))
    assert after == pytest.approx(before, abs=0.02)  # the new embedding moves the centre of the space a little
    assert list(after) == list(before)


@pytest.mark.parametrize("values", [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (1.0, 1.0)])
def test_an_odd_source_of_two_scores_does_not_break_the_ranking(path: Path, values: tuple[float, float]) -> None:
    before = scores(ZooIndex.load(path))
    for checkpoint, value in zip(("org/huge", "org/small"), values, strict=True):
        add_score(
            path, task="task1", checkpoint=checkpoint, score=value, protocol="full_finetune", n_test=5, source="me"
        )
    after = scores(ZooIndex.load(path))
    assert all(0.0 < value < 1.0 for value in after.values())
    others = [name for name in before if name not in ("org/huge", "org/small")]
    assert [after[name] for name in others] == pytest.approx([before[name] for name in others], abs=0.12)
    # Few images and an unknown source: the order that 28 scores speak for outlives two that contradict it.
    assert after["org/huge"] > after["org/small"] - 0.02


def test_the_more_images_the_more_a_score_counts(path: Path) -> None:
    gains = []
    for n_test in (5, 50, 5000):
        copy = path.parent / f"index{n_test}"
        before = scores(ZooIndex.load(path))["org/small"]
        add_score(
            copy, task=named("flowers"), checkpoint="org/small", score=0.97, protocol="linear_probe_loo",
            n_test=n_test, base=path,
        )  # fmt: skip
        gains.append(scores(ZooIndex.load(copy))["org/small"] - before)
    assert gains == sorted(gains)
    assert gains[0] > 0


def test_scores_of_the_reference_protocol_may_be_given_to_its_source(tmp_path: Path) -> None:
    source, protocol = REFERENCE_SOURCE.split("/")
    added = add_score(
        tmp_path / "index", task="trashnet", checkpoint="timm/resnet18.a1_in1k", score=0.8, protocol=protocol,
        split="train-test", n_test=589, source=source, base="shipped",
    )  # fmt: skip
    assert added.comparable == 5  # with the four that the index holds
    assert added.new == ("index",)


def test_a_leak_is_marked_and_said(path: Path) -> None:
    index = ZooIndex.load(path).add_tasks(
        [{"task": "seen", "title": "s", "domain": "d", "images_from": ("imagenet1k",)}]
    )
    row = index.rows["checkpoints"][0].model_dump() | {"hub_id": "org/trained", "trained_on": ("imagenet1k",)}
    index.add_checkpoints([row]).save(path)
    added = add_score(path, task="seen", **{**NEW, "checkpoint": "org/trained", "score": 0.1})
    assert added.row.leak
    assert "has seen images of 'seen'" in added.notes[0]


def test_a_checkpoint_of_the_hub(path: Path, hub: HubServer) -> None:
    config = {"architecture": "resnet10t", "num_classes": 10, "pretrained_cfg": {"input_size": [3, 64, 64]}}
    hub.create_model(
        "org/new", {"config.json": json.dumps(config).encode(), "README.md": b"---\nlibrary_name: timm\n---\n"}
    )
    with pytest.raises(ZooIndexError, match=r"no checkpoint 'org/new'.*--look-up\) asks the Hub"):
        add_score(path, task="task1", **{**NEW, "checkpoint": "org/new"})
    added = add_score(path, task="task1", look_up=True, **{**NEW, "checkpoint": "org/new"})
    assert "checkpoint" in added.new
    assert ZooIndex.load(path).checkpoints.set_index("hub_id").loc["org/new", "architecture"] == "resnet10t"
    with pytest.raises(ZooIndexError, match="the Hub gives no facts of it either"):
        add_score(path, task="task1", look_up=True, **{**NEW, "checkpoint": "org/absent"})
