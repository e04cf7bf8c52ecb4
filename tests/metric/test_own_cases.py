"""A user's own scores and folders of images: what is read, what is refused, and `hf-task2vec evaluate` on them."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from hf_task2vec.embedding import cache as cache_module
from hf_task2vec.errors import EvaluationError
from hf_task2vec.metric.own_cases import own_cases, read_scores, resolve_checkpoints
from hf_task2vec.probes.checkpoint_files import DEFAULT_PROBE
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.cli_stub import run
from tests.support.synthetic import (
    CHECKPOINTS,
    TINY,
    UNSCORED,
    image_folder,
    measured_zoo,
    records,
    tiny_probe,
    zoo,
)

# ---------------------------------------------------------------------- the file of scores


def write(folder: Path, text: str) -> Path:
    (folder / "scores.csv").write_text(text, encoding="utf-8")
    return folder / "scores.csv"


def test_scores_are_read(tmp_path: Path) -> None:
    """As shares, or all of them in per cent."""
    path = write(tmp_path, "note,checkpoint,score,task\nx,org/a,0.5,007\ny,org/b,1,007\n,org/a,0.25,b\n,,0.3,b\n")
    frame = read_scores(path)
    assert frame.to_dict("list") == {
        "task": ["007", "007", "b"],  # names stay text
        "checkpoint": ["org/a", "org/b", "org/a"],
        "score": [0.5, 1.0, 0.25],
    }
    for text, expected in (("93.5\na,y,1.0\nb,x,100", [0.935, 0.01, 1.0]), ("1.0\na,y,0", [1.0, 0.0])):
        found = read_scores(write(tmp_path, f"task,checkpoint,score\na,x,{text}\n"))["score"]
        assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as CSV: "),
        ("task,score\na,0.5\n", "lacks the columns checkpoint; found task, score"),
        ("task;checkpoint;score\na;x;0.5\n", "lacks the columns task, checkpoint, score; found task;checkpoint;score"),
        ("task,checkpoint,score\n", "scores must be numbers in [0, 1], or in per cent; it holds no rows"),
        ("task,checkpoint,score\na,x,0.5\na,y,good\n", "row 3 holds 'good'"),
        ("task,checkpoint,score\na,x,\n", "row 2 holds 'nothing'"),
        ("task,checkpoint,score\na,x,101\n", "row 2 holds '101'"),
        ("task,checkpoint,score\na,x,-0.1\n", "row 2 holds '-0.1'"),
        ("task,checkpoint,score\na,x,inf\n", "row 2 holds 'inf'"),
    ],
)
def test_unusable_scores(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(EvaluationError) as error:
        read_scores(path)
    assert message in str(error.value)
    assert "scores.csv" in str(error.value)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(EvaluationError, match="cannot be read as CSV"):
            read_scores(path)
    (tmp_path / "binary.csv").write_bytes(b"task,checkpoint,score\n\xff\xfe,x,0.5\n")
    with pytest.raises(EvaluationError, match="cannot be read as CSV"):
        read_scores(tmp_path / "binary.csv")


# ---------------------------------------------------------------------- names of checkpoints and tasks


def test_checkpoints_are_found_by_the_end_of_their_ids() -> None:
    known = {name: name for name in ("timm/resnet50.a1", "google/vit", "org/vit", "local:secret")}
    known["hf/resnet50"] = "timm/resnet50.a1"  # another name of the same weights
    found = resolve_checkpoints(
        ["resnet50.a1", "other/resnet50.a1", "google/vit", "vit", "secret", "none", "hf/resnet50"], known
    )
    assert found == {
        "resnet50.a1": "timm/resnet50.a1",
        "other/resnet50.a1": "timm/resnet50.a1",
        "google/vit": "google/vit",  # by its full id
        "secret": "local:secret",
        "hf/resnet50": "timm/resnet50.a1",
    }  # two end with "vit"


def scores(*rows: tuple[str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["task", "checkpoint", "score"])


# ---------------------------------------------------------------------- from folders of images, as a user types it


@pytest.fixture
def built(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an index, four datasets and their scores; the tiny probe stands in for the default one."""
    probe = tiny_probe()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache_module, "load_probe", lambda given, **_: probe)
    index = zoo(weights_hash=probe.weights_hash)
    table = dataclasses.replace(index.embeddings, probe={**index.embeddings.probe, "name": DEFAULT_PROBE})
    ZooIndex(rows=index.rows, embedded=table).save(tmp_path / "index")
    rows = []
    for i in range(3):
        image_folder(tmp_path / "data" / f"own{i}", seed=i)
        for position, hub_id in enumerate(CHECKPOINTS):  # best first, as in the index
            rows.append((f"own{i}", hub_id, 0.9 - 0.1 * position))
    rows += [("own0", "org/none", 0.99), ("broken", "org/mid", 0.5), ("broken", "org/huge", 0.6)]
    (tmp_path / "data" / "broken").mkdir()
    (tmp_path / "data" / "broken" / "a.txt").write_text("no image")
    scores(*rows).to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path


OWN = ("evaluate", "--index", "index", "--tasks", "data", "--scores", "scores.csv", "--device", "cpu")


def test_evaluate_on_own_tasks(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(*OWN, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    methods = {record["method"]: record for record in document["methods"]}
    assert set(methods) == {"trained", "static", "always:org/best-unknown"}
    assert methods["static"]["accuracy"] == pytest.approx(0.9)  # the order is that of the index
    assert methods["static"]["tasks"] == 3
    assert methods["static"]["share_of_gap"] is None
    assert {record["task"] for record in document["tasks"]} == {"own0", "own1", "own2"}
    assert document["unknown_checkpoints"] == ["org/none"]
    assert list(document["skipped_tasks"]) == ["broken"]
    assert document["base"] in ("static", "always:org/best-unknown")
    # Their embeddings are kept.
    monkeypatch.setattr(cache_module, "load_probe", lambda *_, **__: pytest.fail("the probe was loaded"))
    result = run(*OWN, "--metric", "trained,static")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert " ".join(lines[0].split()).startswith("method accuracy of pick error increase regret@1")
    assert {line.split()[0] for line in lines[1:4]} == {"trained", "static", "always:org/best-unknown"}
    assert "3 tasks." in result.stdout
    assert "Checkpoints that the index does not know, left out: org/none." in result.stdout
    assert "broken left out: " in result.stdout
    assert "have seen them" not in result.stdout
    quiet = run(*OWN, "--metric", "static", "-q").stdout.splitlines()
    assert dict(line.split("\t") for line in quiet)["static"] == "0.9"


def test_evaluate_by_the_scores_of_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    measured_zoo(task1="twins", task3="twins").save(tmp_path / "index")
    result = run("evaluate", "--index", "index", "--metric", "trained", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert {record["task"] for record in document["tasks"]} == {f"task{i}" for i in range(4)}
    assert document["cold_start"] == []  # no group has scores enough
    evaluate = partial(run, "evaluate", "--index", "index")
    assert "the trained metric's variances and length-scales have seen them" in evaluate().stdout
    assert evaluate("--source", "lab/linear_probe_loo", "--metric", "static", "-q").exit_code == 0
    none = evaluate("--source", "lab/none")
    assert none.exit_code == 4
    assert "the index holds no scores of 'lab/none'; it has " in none.stderr


def test_evaluate_judges_checkpoints_that_nobody_has_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index = measured_zoo()
    last = index.scores[index.scores["checkpoint"] == TINY].assign(checkpoint=UNSCORED, score=0.05)
    index.add_scores(records(last)).save(tmp_path / "index")
    result = run("evaluate", "--index", "index", "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["cold_start"]
    assert {row["question"] for row in rows} == {"new checkpoint", "new family", "new laboratory"}
    assert {row["method"] for row in rows} == {"trained", "ImageNet accuracy", "parameters", "multiply-adds"}
    assert {(row["limit"], row["protocol"]) for row in rows} == {(None, "linear-probe")}  # of few sizes are known
    assert all(-1.0 <= row["mean"] <= 1.0 for row in rows)
    told = run("evaluate", "--index", "index").stdout
    assert "new checkpoint, linear-probe (" in told
    assert "the trained metric's variances and length-scales have seen them" in told


def test_wrong_usage(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "from_dataset", lambda *_, **__: pytest.fail("a dataset was opened"))
    for arguments, code, message in (
        (("--tasks", "data"), 2, "--tasks and --scores go together"),
        (("--scores", "scores.csv"), 2, "--tasks and --scores go together"),
        (("--tasks", "data", "--scores", "scores.csv", "--source", "x/y"), 2, "leave out --scores or it"),
        (("--tasks", "data", "--scores", "none.csv"), 4, "'none.csv' cannot be read as CSV"),
        (("--tasks", "none", "--scores", "scores.csv"), 4, "'none' is no folder"),
        (("--tasks", "data", "--scores", "scores.csv", "--metric", "gut"), 4, "metric 'gut' is unknown; choose one of"),
    ):
        result = run("evaluate", "--index", "index", *arguments)
        assert (result.exit_code, result.stdout) == (code, ""), result.output
        assert message in result.stderr


def test_what_cannot_be_judged(tmp_path: Path) -> None:
    index = zoo()
    (tmp_path / "pets").mkdir()

    def refused(*rows: tuple[str, str, float], folder: Path = tmp_path) -> str:
        with pytest.raises(EvaluationError) as error:
            own_cases(index, scores(*rows), folder)
        return str(error.value)

    assert "is no folder; give one that holds a dataset folder for each task" in refused(folder=tmp_path / "none")
    for name in ("mid", "org/mid"):
        assert f"'{name}' and 'org/mid' on 'pets' are one checkpoint, org/mid; keep one score of it" in refused(
            ("pets", name, 0.5), ("pets", "org/mid", 0.6)
        )
    told = refused(
        *(("a", "huge", 0.7), ("a", "aaa", 0.1)),
        *(("b", "mid", 0.0), ("b", "huge", 0.0)),
        *(("..", "mid", 0.5), ("..", "huge", 0.6)),
        *((str(tmp_path / "pets"), "mid", 0.5), (str(tmp_path / "pets"), "huge", 0.6)),
    )
    assert "a: scores of 1 checkpoints that the index knows; two are needed" in told
    assert "b: no checkpoint scored above 0" in told
    assert told.count("no folder of that name") == 2  # a task is a folder's name, no path
    assert "the index does not know aaa" in told
