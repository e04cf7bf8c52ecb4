"""The main job end to end, on a small index and a tiny probe."""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from hf_task2vec.embedding import cache as cache_module
from hf_task2vec.embedding import embed
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import (
    ColumnError,
    DatasetNotFoundError,
    EmbeddingError,
    ImageDecodeError,
    LabelError,
    MetricError,
    ProbeMismatchError,
    SelectionError,
    Task2VecError,
    TaskError,
    ZooIndexError,
)
from hf_task2vec.metric.observations import checkpoint_features, logit
from hf_task2vec.metric.ranking_metric import METRICS, RankingMetric
from hf_task2vec.probes.checkpoint_files import DEFAULT_PROBE
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.scores import Score
from hf_task2vec.selection.ranking import Ranking
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.tasks.task import Task
from hf_task2vec.zoo.index import ZooIndex
from tests.support.hub import HubServer
from tests.support.pictures import TRAIN, parquet, png_header
from tests.support.synthetic import (
    CHECKPOINTS,
    REFERENCES,
    TINY,
    UNSCORED,
    as_dataset,
    dataset,
    embedding,
    pictures,
    records,
    tiny_probe,
    zoo,
)

ON_HUB = {name for name in CHECKPOINTS if not name.startswith("local:")} | {UNSCORED}


def never(what: str) -> Callable[..., Any]:
    """Return a stand-in for what must not be called."""

    def call(*args: Any, **options: Any) -> None:
        pytest.fail(what)

    return call


@pytest.fixture(scope="module")
def probe() -> Probe:
    return tiny_probe()


@pytest.fixture(scope="module")
def query(probe: Probe) -> TaskEmbedding:
    return embed.embed_task(Task.from_dataset(dataset(48)), probe)


@pytest.fixture(scope="module")
def index(probe: Probe) -> ZooIndex:
    """An index with a reference task like the one of `dataset`, and made-up others."""
    twin = embed.embed_task(Task.from_dataset(dataset(48, seed=7)), probe)
    return zoo({"twin": twin}, weights_hash=probe.weights_hash)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of a test."""
    monkeypatch.setenv("HF_TASK2VEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def select(index: ZooIndex, probe: Probe) -> Callable[..., Ranking]:
    return partial(select_backbone, index=index, probe=probe)


def ids(ranking: Sequence[Any]) -> list[str]:
    return [candidate.hub_id for candidate in ranking]


# ---------------------------------------------------------------------- the ranking


def test_ranking_of_a_dataset(select: Callable[..., Ranking], index: ZooIndex) -> None:
    ranking = select(dataset(48), top_k=20)
    assert set(ids(ranking)) == ON_HUB
    assert ranking.n_ranked == len(ON_HUB)
    assert [c.rank for c in ranking] == list(range(1, len(ON_HUB) + 1))
    scores = [c.score for c in ranking]
    assert scores == sorted(scores, reverse=True)
    for c in ranking:
        assert c.prior + c.residual == pytest.approx(c.score)
        assert 0.0 <= c.low <= c.score <= c.high <= 1.0
        assert c.std > 0.0
    scored = [name for name in ids(ranking) if name != UNSCORED]
    assert scored == [name for name in CHECKPOINTS if name in ON_HUB]  # their order in every reference task
    assert ranking.provenance["index"] == index.fingerprint
    assert ranking.summary.startswith("Take org/best-unknown: predicted linear-probe accuracy ")


def test_unknown_facts_and_evidence(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    by_id = {c.hub_id: c for c in select(query, top_k=20)}
    unknown, known, unscored = by_id["org/best-unknown"], by_id["org/mid"], by_id[UNSCORED]
    assert (unknown.params_m, unknown.gmacs, unknown.input_px, unknown.license, unknown.in1k_top1) == (None,) * 5
    assert (known.params_m, known.gmacs, known.input_px, known.license) == (25.0, 4.1, 224, "mit")
    assert type(known.input_px) is int
    assert known.evidence == "5 scores of it in the index"
    assert unscored.evidence == "no scores; judged by checkpoints like it"
    assert unscored.std > unknown.std


def test_the_probes_own_accuracy_is_one_more_observation(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    def scores(accuracy: float, n: float) -> dict[str, float]:
        facts = {**query.descriptors, "linear_probe_accuracy": accuracy, "n_samples": n}
        told = TaskEmbedding(**{**vars(query), "task_descriptors": (facts,)})
        return {c.hub_id: c.score for c in select(told, top_k=20)}

    low, high, sure = scores(0.5, 48), scores(0.9, 48), scores(0.5, 48_000)
    assert all(low[name] < high[name] for name in low)  # an easier task is easier for all
    assert abs(sure[TINY] - 0.5) < abs(low[TINY] - 0.5) < 0.1
    assert sure[TINY] == pytest.approx(0.5, abs=1e-3)


def test_the_probe_need_not_be_among_the_candidates(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    everything = {c.hub_id: c for c in select(query, top_k=20)}
    few = select(query, candidates=["org/mid", "org/small"])
    assert ids(few) == ["org/mid", "org/small"]
    for c in few:
        assert c.score == pytest.approx(everything[c.hub_id].score)
        assert c.std == pytest.approx(everything[c.hub_id].std)


def test_without_the_probe_in_the_index_its_accuracy_is_the_level(query: TaskEmbedding, index: ZooIndex) -> None:
    rows = {**index.rows, "checkpoints": tuple(row for row in index.rows["checkpoints"] if row.key != (TINY,))}
    rows["scores"] = tuple(row for row in index.rows["scores"] if TINY not in row.key)
    level = TaskEmbedding(**{**vars(query), "task_descriptors": ({**query.descriptors, "linear_probe_accuracy": 0.6},)})
    ranking = select_backbone(level, index=ZooIndex(rows=rows, embedded=index.embedded), top_k=20)
    assert TINY not in ids(ranking)
    assert ranking[-1].score < 0.6 < ranking[0].score
    assert all(0.0 <= c.low <= c.score <= c.high <= 1.0 for c in ranking)


def test_same_call_same_ranking(select: Callable[..., Ranking]) -> None:
    data = dataset(48)
    assert select(data, cache=False).to_json() == select(data, cache=False).to_json()
    assert select(data, cache=False).to_json() == select(data, cache=True).to_json()
    assert select(data, cache=True).to_json() == select(data, cache=True).to_json()
    drawn = [select(data, max_samples=24, seed=seed).provenance["task"]["content_digest"] for seed in (0, 1)]
    assert drawn[0] != drawn[1]


def test_documents(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    ranking = select(query, max_params=1e9, licenses=["mit"])
    document = json.loads(ranking.to_json())
    assert document["provenance"]["limits"] == {"max_params": 1e9, "licenses": ["mit"]}
    assert document["provenance"]["task"] == query.task
    assert {"descriptors", "probe", "embedding", "index", "versions"} <= document["provenance"].keys()
    assert "org/mid" in repr(ranking)
    assert ranking.to_pandas().loc[1, "hub_id"] == "org/mid"


def test_a_better_prior_is_named_when_the_task_matters(probe: Probe) -> None:
    """On the twin of the query the usual last is by far the first."""
    twin = embed.embed_task(Task.from_dataset(dataset(48, seed=7)), probe)
    index = zoo({"twin": twin}, weights_hash=probe.weights_hash)
    rows = index.scores[index.scores["task"] == "twin"].copy()
    best = {"org/small": 0.995}
    rows["score"] = [best.get(name, 0.3) for name in rows["checkpoint"]]
    index = index.add_scores(records(rows), replace=True)
    ranking = select_backbone(dataset(48), probe=probe, index=index)
    assert ranking.best.hub_id == "org/small"
    assert ranking.best.residual > 0
    assert "The task matters: org/best-unknown, the best regardless of the task, is predicted" in ranking.summary
    gain = ranking.task_gain
    assert gain is not None
    assert gain.static == "org/best-unknown"
    assert gain.points > gain.std > 0.0
    assert f"predicted {gain.points:.1f} ± {gain.std:.1f} points lower" in ranking.summary
    assert json.loads(ranking.to_json())["task_gain"] == {"static": gain.static, "points": gain.points, "std": gain.std}
    blind = select_backbone(embedding(99, weights_hash=probe.weights_hash), probe=probe, index=index)
    assert ids(blind).index("org/small") > 0


# ---------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("limits", "kept_ids"),
    [
        ({"max_params": 25e6}, {"org/mid", "org/hf", "org/small", TINY}),
        ({"max_gmacs": 0.4}, {"org/small", TINY}),
        ({"licenses": ["Apache-2.0", "mit"]}, {"org/mid", "org/hf", "org/small", TINY}),
        ({"library": "transformers"}, {"org/hf"}),
        ({"input_size": 384}, {"org/huge"}),
        ({"candidates": ["org/mid", UNSCORED]}, {"org/mid", UNSCORED}),
        ({"max_params": 25e6, "licenses": ("mit",), "library": "timm"}, {"org/mid"}),
    ],
)
def test_limits_hold(
    select: Callable[..., Ranking], query: TaskEmbedding, limits: dict[str, Any], kept_ids: set[str]
) -> None:
    ranking = select(query, **limits)
    assert set(ids(ranking)) == kept_ids
    assert ranking.n_ranked == len(kept_ids)


@pytest.mark.parametrize("top_k", [1, 3, 100])
def test_top_k(select: Callable[..., Ranking], query: TaskEmbedding, top_k: int) -> None:
    ranking = select(query, top_k=top_k)
    assert ids(ranking) == ids(select(query, top_k=100))[:top_k]
    assert ranking.n_ranked == len(ON_HUB)


def test_local_weights_are_never_recommended(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    assert not any(name.startswith("local:") for name in ids(select(query, top_k=100)))
    with pytest.raises(SelectionError, match="1 weights are on no Hub"):
        select(query, candidates=["local:secret"])
    with pytest.raises(SelectionError, match="'local:secret' was not ranked"):
        select(query).explain("local:secret")


def test_unknown_candidates_are_said(
    select: Callable[..., Ranking], query: TaskEmbedding, caplog: pytest.LogCaptureFixture
) -> None:
    assert ids(select(query, candidates=["org/mid", "org/none", "org/gone"])) == ["org/mid"]
    assert "not in the index, so not ranked: org/gone, org/none" in caplog.text
    with pytest.raises(SelectionError, match="1 not in the index"):
        select(query, candidates=["org/none"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_params": 1e3}, r"meets the limits \(max_params=1000.0\); left out: .*more than 1,000 parameters"),
        ({"max_gmacs": 1e-3}, "max_gmacs=0.001.*more than 0.001 GMACs"),
        ({"licenses": ["wtfpl"]}, r"licenses=\('wtfpl',\).*licence not accepted.*the licences it knows most of: mit, "),
        ({"library": "keras"}, "library is not keras"),
        ({"input_size": 17}, "native image size is not 17 px"),
        ({"max_params": -1}, "max_params=-1 leaves nothing"),
        ({"licenses": "mit"}, "licenses takes a list of strings"),
        ({"top_k": 0}, "top_k=0 must be a whole number of at least 1"),
        ({"top_k": 2.5}, "top_k=2.5 must be a whole number"),
        ({"refine": -1}, "refine=-1 must be a whole number of at least 0"),
        ({"refine_bytes": 0}, "refine's max_bytes=0 leaves nothing to measure"),
        ({"refine_seconds": "1 h"}, "refine's max_seconds='1 h' is no number"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
    ],
)
def test_impossible_arguments_are_said_before_the_dataset_is_opened(
    select: Callable[..., Ranking], monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(Task, "from_dataset", never("the dataset was opened"))
    with pytest.raises(SelectionError, match=message):
        select("org/dataset", **arguments)


# ---------------------------------------------------------------------- inputs


def test_every_kind_of_input(select: Callable[..., Ranking], hub: HubServer, tmp_path: Path) -> None:
    from PIL import Image

    data = dataset(24)
    task = Task.from_dataset(data)
    folder = tmp_path / "pets"
    for i, picture in enumerate(pictures(24)):
        (folder / f"class {i % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"class {i % 3}" / f"{i}.png")
    hub.create_dataset("org/pets", {TRAIN: parquet(data)})
    expected = ids(select(data))
    for given in (task, datasets.DatasetDict(train=data), data.to_iterable_dataset(), folder, str(folder), "org/pets"):
        ranking = select(given)
        assert set(ids(ranking)) == set(expected)
        assert ranking.provenance["descriptors"]["n_samples"] == 24
    assert (select("org/pets").dataset, select(folder).dataset) == ("org/pets", "pets")
    assert select("org/pets", streaming=True, max_samples=12).provenance["descriptors"]["n_samples"] == 12
    assert str(tmp_path) not in select(folder).to_json()


def test_an_embedding_has_no_images_to_measure(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    with pytest.raises(SelectionError, match="refine needs the images: pass the dataset or a Task"):
        select(query, refine=2)


def test_an_embedding_without_descriptors(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    bare = TaskEmbedding(**{**vars(query), "task_descriptors": ({"n_classes": 3.0},)})
    with pytest.raises(
        EmbeddingError, match=r"'dataset' lacks the descriptors n_samples, .*noise; make it with embed_"
    ):
        select(bare)


def _png(data: bytes = b"broken") -> dict[str, Any]:
    return {"bytes": data, "path": None}


def _cells(cells: list[dict[str, Any]], labels: list[Any], **columns: list[Any]) -> datasets.Dataset:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    features |= dict.fromkeys(columns, datasets.ClassLabel(names=["a", "b"]))
    data = {"image": cells, "label": labels, **columns}
    return datasets.Dataset.from_dict(data, features=datasets.Features(features))


def _two_label_columns() -> datasets.Dataset:
    data = _cells([_png()] * 4, [0, 1] * 2, fine=[0, 1] * 2, coarse=[0, 0, 1, 1])
    return data.remove_columns("label")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda: "./none", DatasetNotFoundError, "no such folder"),
        (lambda: "org/none", DatasetNotFoundError, "no dataset 'org/none'.*Check the spelling"),
        (lambda: "org/script", TaskError, "'org/script' is made by a Python script"),
        (lambda: [1, 2], TaskError, "a list is no dataset"),
        (lambda: dataset(6).remove_columns("image"), ColumnError, "no image column; columns found: label"),
        (_two_label_columns, ColumnError, "several label columns: .*pass label_column="),
        (lambda: dataset(6).select([0, 3]), LabelError, "only one class, 'class 0'"),
        (lambda: dataset(6).select([]), TaskError, "has no rows"),
        (lambda: _cells([_png()] * 4, [0, 1] * 2), ImageDecodeError, "all 4 images of 'dataset' are broken"),
        (lambda: _cells([_png()] * 4, [None] * 4), LabelError, "all 4 labels are missing"),
    ],
)
@pytest.mark.usefixtures("retry_sleeps")
def test_bad_datasets_are_said_as_tasks_say_them(
    select: Callable[..., Ranking],
    hub: HubServer,
    kept: Path,
    given: Callable[[], Any],
    error: type[Task2VecError],
    message: str,
) -> None:
    hub.create_dataset("org/script", {"script.py": b"", "README.md": b"---\nlicense: mit\n---\n"})
    with pytest.raises(error, match=message):
        select(given())
    assert not kept.exists()


# ---------------------------------------------------------------------- index and probe


def test_an_index_that_cannot_be_read(index: ZooIndex, probe: Probe, tmp_path: Path) -> None:
    index.save(tmp_path / "zoo")
    path = tmp_path / "zoo" / "scores.csv"
    path.write_text(path.read_text() + "one,cell\n")
    with pytest.raises(ZooIndexError, match=r"scores\.csv"):
        select_backbone(dataset(24), probe=probe, index=tmp_path / "zoo")
    with pytest.raises(ZooIndexError, match="no "):
        select_backbone(dataset(24), index=tmp_path / "none")


def test_embedding_of_another_probe(select: Callable[..., Ranking], query: TaskEmbedding, index: ZooIndex) -> None:
    other = TaskEmbedding(**{**vars(query), "probe": {"name": "org/other", "weights_hash": "cd" * 32}})
    message = (
        r"'dataset' was embedded with probe 'org/other' \(weights cdcdcdcdcdcd…\), the index with weights "
        rf"{index.embeddings.weights_hash[:12]}…; embed it with the index's probe"
    )
    with pytest.raises(ProbeMismatchError, match=message):
        select(other)


def test_another_probe_is_said_before_the_dataset_is_opened(index: ZooIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tiny_probe(1)
    monkeypatch.setattr(Task, "from_dataset", never("the dataset was opened"))
    monkeypatch.setattr(Probe, "from_pretrained", lambda name, **_: other)
    for probe in (other, "org/alias"):
        with pytest.raises(ProbeMismatchError, match=f"asked for probe '{TINY}' .*but the tasks of the index were"):
            select_backbone("org/dataset", index=index, probe=probe)


@pytest.mark.parametrize("missing", ["embeddings", "scores"])
def test_index_that_cannot_predict(
    index: ZooIndex, probe: Probe, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(Task, "from_dataset", never("the dataset was opened"))
    if missing == "embeddings":
        poor = ZooIndex(rows=index.rows)
    else:
        poor = ZooIndex(rows={**index.rows, "scores": index.rows["scores"][:1]}, embedded=index.embedded)
    with pytest.raises(MetricError, match="no task embeddings" if missing == "embeddings" else "no two comparable"):
        select_backbone("org/dataset", index=poor, probe=probe)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_ranks(select: Callable[..., Ranking], query: TaskEmbedding, name: str) -> None:
    ranking = select(query, metric=name, top_k=20)
    assert set(ids(ranking)) == ON_HUB
    assert ranking.provenance["metric"] == name
    assert all(0.0 <= c.low <= c.score <= c.high <= 1.0 for c in ranking)
    assert str(ranking.explain()) == ranking.explain().text
    assert "regardless of the task" in ranking.summary
    assert ranking.task_gain is not None


def test_an_unknown_metric_is_said_before_the_dataset_is_opened(
    select: Callable[..., Ranking], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "from_dataset", never("the dataset was opened"))
    with pytest.raises(MetricError, match=f"metric 'gut_feeling' is unknown; choose one of {', '.join(METRICS)}"):
        select("org/dataset", metric="gut_feeling")


def test_an_index_of_an_earlier_version(index: ZooIndex, query: TaskEmbedding) -> None:
    table = index.embeddings
    old = tuple({k: v for k, v in d.items() if k != "mid_accuracy_gain"} for d in table.task_descriptors)
    poor = ZooIndex(rows=index.rows, embedded=dataclasses.replace(table, task_descriptors=old))
    message = "the embedding of 'task0' lacks the descriptors mid_accuracy_gain: it was made by an earlier version"
    with pytest.raises(MetricError, match=message):
        select_backbone(query, index=poor)


# ---------------------------------------------------------------------- the cache


def test_a_kept_embedding_is_used_again_without_the_probe(
    index: ZooIndex, probe: Probe, monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    monkeypatch.setattr(cache_module, "load_probe", lambda given, **_: probe)
    first = select_backbone(dataset(24), index=index, probe=TINY)
    assert len(list(kept.rglob("*.safetensors"))) == 1
    for module, name in ((embed, "embed_task"), (cache_module, "load_probe")):
        monkeypatch.setattr(module, name, never(f"{name} was called"))
    assert select_backbone(dataset(24), index=index, probe=TINY).to_json() == first.to_json()
    for change in ({"seed": 1}, {"max_samples": 12}, {"cache": False}):
        with pytest.raises(pytest.fail.Exception, match="load_probe was called"):
            select_backbone(dataset(24), index=index, probe=TINY, **change)


def test_the_default_probe_is_loaded_only_where_nothing_is_kept(
    index: ZooIndex, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = dataclasses.replace(index.embeddings, probe={**index.embeddings.probe, "name": DEFAULT_PROBE})
    index = ZooIndex(rows=index.rows, embedded=table)
    asked = []
    monkeypatch.setattr(cache_module, "load_probe", lambda given, **_: asked.append(given) or probe)
    first = select_backbone(dataset(24), index=index)
    assert select_backbone(dataset(24), index=index).to_json() == first.to_json()
    assert asked == [None]


def test_a_damaged_kept_embedding_is_made_again(
    select: Callable[..., Ranking], kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = select(dataset(24))
    (file,) = kept.rglob("*.safetensors")
    good = file.read_bytes()
    for damage in (b"{", b'{"schema_version": 99}'):
        file.write_bytes(damage)
        caplog.clear()
        assert select(dataset(24)).to_json() == first.to_json()
        assert "a cached embedding is not usable and is made again: " in caplog.text
        assert file.read_bytes() == good
    caplog.clear()
    select(dataset(24))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_cache_that_cannot_be_written_is_a_warning(
    select: Callable[..., Ranking], kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept.write_bytes(b"a file where the folder should be")
    assert select(dataset(24)).best.hub_id == "org/best-unknown"
    assert "the cache is not usable: the embedding cannot be written to" in caplog.text


def test_without_cache_nothing_is_written(select: Callable[..., Ranking], kept: Path) -> None:
    select(dataset(24), cache=False)
    assert not kept.exists()


# ---------------------------------------------------------------------- explanations


def test_explanation(select: Callable[..., Ranking], query: TaskEmbedding, index: ZooIndex) -> None:
    ranking = select(query)
    why = ranking.explain()
    assert why == ranking.explain(ranking.best.hub_id)
    assert why.hub_id == "org/best-unknown"
    assert why.prior + why.residual == pytest.approx(100 * ranking.best.score)
    assert why.residual == pytest.approx(100 * ranking.best.residual)
    assert why.neighbours[0].task == "twin"
    assert not why.far
    nearness = [neighbour.similarity for neighbour in why.neighbours]
    assert nearness == sorted(nearness, reverse=True)
    assert all(0.0 < similarity <= 1.0 for similarity in nearness)
    assert {m.task for m in why.measurements} == {"twin", *REFERENCES}
    assert why.measurements[0].task == "twin"
    recorded = index.scores.set_index(["task", "checkpoint"])["score"]
    assert all(m.score == recorded[m.task, why.hub_id] for m in why.measurements)
    assert str(why) == why.text
    assert "Nearest reference tasks: twin (similarity " in why.text
    assert "5 scores of this checkpoint are in the index, the most relevant: twin " in why.text


def test_contributions_sum_to_the_residual(query: TaskEmbedding, index: ZooIndex) -> None:
    metric = RankingMetric.from_index(index)
    prediction = metric.predict(query, index.checkpoints)
    task = metric.space.of_embedding(query)
    for i in range(len(index.checkpoints)):
        parts = metric.residual_parts(task, checkpoint_features(index.checkpoints.iloc[[i]]))
        assert parts.shape == (1, len(metric.data.tasks.names))
        assert parts.sum() == pytest.approx(prediction.residual[i], abs=1e-9)
    ranking = select_backbone(query, index=index)
    best, why = ranking.best, ranking.explain()
    points = sum(neighbour.contribution for neighbour in why.neighbours)  # all five tasks are near enough to show
    assert len(why.neighbours) == 5
    facts = query.descriptors
    known = {TINY: Score.of_share(facts["linear_probe_accuracy"], int(facts["n_samples"]))}
    update = metric.predict(query, index.checkpoints, known).update[
        list(index.checkpoints["hub_id"]).index(best.hub_id)
    ]
    expected = float(logit(best.score) - logit(best.prior)) - update  # the rest is what the probe's accuracy tells
    assert points == pytest.approx(100 * best.score * (1 - best.score) * expected, rel=1e-6)


def test_explanation_without_scores(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    why = select(query).explain(UNSCORED)
    assert why.measurements == ()
    assert "No score of this checkpoint is in the index: its prior comes from checkpoints like it." in why.text


def test_only_what_is_shown_is_explained(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    ranking = select(query, top_k=1, max_params=25e6)
    with pytest.raises(
        SelectionError, match=r"'org/small' is number \d of 4, but only the first 1 are explained; pass a"
    ):
        ranking.explain("org/small")
    with pytest.raises(SelectionError, match=r"'org/huge' was not ranked: .*limits; the ranking holds 4 checkpoints"):
        ranking.explain("org/huge")


def test_the_table_holds_all_that_were_ranked(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    few, many = select(query, top_k=2), select(query, top_k=20)
    assert few.table["hub_id"].tolist() == ids(many)
    assert few.table.index.tolist() == list(range(1, len(ON_HUB) + 1))
    for name in ("score", "std", "low", "high", "prior", "residual"):
        np.testing.assert_allclose(few.table[name], [getattr(c, name) for c in many], rtol=1e-9)
    again = pickle.loads(pickle.dumps(few))
    assert again.to_json() == few.to_json()
    assert again.explain() == few.explain()


def test_the_command_of_a_folder(select: Callable[..., Ranking], index: ZooIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "zoo")
    options = {"index": tmp_path / "zoo", "probe": None, "max_params": 25e6, "token": "hf_secret"}
    ranking = select_backbone(embedding(50, weights_hash=index.embeddings.weights_hash), **options)
    assert ranking.command() is None  # an embedding in memory
    assert ranking.request["index"] == str(tmp_path / "zoo")
    assert ranking.request["max_params"] == 25e6
    assert "hf_secret" not in repr(ranking.request)
    assert "top_k" not in ranking.request  # a default


# ---------------------------------------------------------------------- warnings


def test_no_warning_on_a_sound_task(select: Callable[..., Ranking], query: TaskEmbedding) -> None:
    assert select(query).warnings == ()


def test_far_task(select: Callable[..., Ranking], index: ZooIndex) -> None:
    facts = {**embedding().descriptors, "n_classes": 2.0, "median_side_px": 4000.0, "class_separation": 0.9}
    far = embedding(77, weights_hash=index.embeddings.weights_hash, descriptors=facts)
    ranking = select(far)
    assert any("no reference task is near this dataset" in warning for warning in ranking.warnings)
    why = ranking.explain()
    assert why.far
    assert "the ranking rests on the prior alone" in why.text
    assert abs(ranking.best.residual) < 0.02


def test_few_images(select: Callable[..., Ranking]) -> None:
    warnings = select(dataset(48), max_samples=12).warnings
    assert "only 12 images for 3 classes were used; pass a larger max_samples if there are more" in warnings


def test_unbalanced_classes(select: Callable[..., Ranking]) -> None:
    labels = [0] * 50 + [1] * 4
    (warning,) = [w for w in select(as_dataset(pictures(54, 2), labels, 2)).warnings if "balance" in w]
    expected = -sum(p * np.log2(p) for p in (50 / 54, 4 / 54))
    assert warning == (f"the classes are unbalanced (balance {expected:.2f} of 1); scores refer to the balanced sample")


def test_broken_images_bombs_and_missing_labels(select: Callable[..., Ranking]) -> None:
    data = dataset(48)
    rows = data.cast_column("image", datasets.Image(decode=False)).to_dict()
    rows["image"][5] = _png()
    rows["image"][7] = _png(png_header(40_000, 40_000))
    rows["label"][9] = None
    ranking = select(datasets.Dataset.from_dict(rows, features=data.features), max_samples=None)
    assert "2 broken images skipped" in ranking.warnings
    assert "1 row without a label skipped" in ranking.warnings
    reasons = {skip["row"]: skip["reason"] for skip in ranking.provenance["task"]["skipped"]}
    assert reasons.keys() == {5, 7}
    assert "Image size (1600000000 pixels) exceeds limit" in reasons[7]
    assert all(line in repr(ranking) for line in ("Warning: 2 broken images", "Warning: 1 row without"))
