"""The main job end to end, on a small index and a tiny probe."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from hf_task2vec.embedding import cache as cache_module
from hf_task2vec.embedding import embed
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.errors import (
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
from hf_task2vec.metric import METRICS, RankingMetric
from hf_task2vec.metric.observations import logit
from hf_task2vec.probes.checkpoint_files import DEFAULT_PROBE
from hf_task2vec.probes.probe import Probe
from hf_task2vec.probes.scores import Score
from hf_task2vec.report.page import render_report
from hf_task2vec.selection.ranking import Ranking
from hf_task2vec.selection.recommendation import SAME_DATASET
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
    broken_cells,
    dataset,
    embedding,
    image_folder,
    records,
    tiny_probe,
    zoo,
)

Select = Callable[..., Ranking]

ON_HUB = {name for name in CHECKPOINTS if not name.startswith("local:")} | {UNSCORED}


def never(what: str) -> Callable[..., Any]:
    """Return a stand-in for what must not be called."""
    return lambda *_, **__: pytest.fail(what)


def ids(ranking: Sequence[Any]) -> list[str]:
    return [candidate.hub_id for candidate in ranking]


def earlier(index: ZooIndex) -> ZooIndex:
    """Return the index as an earlier version would have made it."""
    table = index.embeddings
    known = tuple({k: v for k, v in d.items() if k != "mid_accuracy_gain"} for d in table.task_descriptors)
    return replace(index, embedded=replace(table, task_descriptors=known))


def described(query: TaskEmbedding, **descriptors: float) -> TaskEmbedding:
    """Return the embedding with other descriptors."""
    return replace(query, task_descriptors=({**query.descriptors, **descriptors},))


# ---------------------------------------------------------------------- the ranking


def test_ranking_of_a_dataset(select: Select, query: TaskEmbedding, index: ZooIndex) -> None:
    ranking = select(dataset(48), top_k=20)
    assert set(ids(ranking)) == ON_HUB
    assert [c.rank for c in ranking] == list(range(1, ranking.n_ranked + 1))
    scored = [c.hub_id for c in sorted(ranking, key=lambda c: -c.score) if c.hub_id != UNSCORED]
    assert scored == [name for name in CHECKPOINTS if name in ON_HUB]  # their order in every reference task
    for c in ranking:
        assert c.prior + c.residual == pytest.approx(c.score)
        assert 0.0 <= c.low <= c.score <= c.high <= 1.0
        assert c.std > 0.0
    assert ranking.summary.startswith("Take org/huge: predicted accuracy after fine-tuning ")
    assert ranking.warnings == ()
    by_id = {c.hub_id: c for c in ranking}
    unknown, known, unscored = by_id["org/best-unknown"], by_id["org/mid"], by_id[UNSCORED]
    assert (unknown.params_m, unknown.gmacs, unknown.input_px, unknown.license, unknown.in1k_top1) == (None,) * 5
    assert (known.params_m, known.gmacs, known.input_px, known.license) == (25.0, 4.1, 224, "mit")
    assert type(known.input_px) is int
    assert known.evidence == "5 scores of it in the index"
    assert unscored.evidence == "no scores; judged by checkpoints like it"
    assert unscored.std > unknown.std
    assert ranking.provenance["index"] == index.fingerprint
    assert ranking.provenance["task"] == query.task
    assert {"descriptors", "probe", "embedding", "versions"} <= ranking.provenance.keys()


def test_what_is_not_known_does_not_lead_while_a_known_one_may_be_as_good(select: Select, query: TaskEmbedding) -> None:
    ranking = select(query, top_k=20)
    assert ids(ranking)[:2] == ["org/huge", "org/best-unknown"]
    assert ranking[0].score < ranking[1].score
    assert ranking.shortlist()[0].candidate == ranking.best == ranking.budgets[0].candidate
    assert ranking.shortlist()[0].reason == "best overall of those of known size and licence"
    gain = ranking.task_gain
    assert gain is not None
    assert (gain.static, gain.points < 0.0) == ("org/best-unknown", True)
    assert f"predicted {-gain.points:.1f} ± {gain.std:.1f} points higher." in ranking.summary
    assert f"{-gain.points:.1f} ± {gain.std:.1f} points higher here." in render_report(ranking)
    assert select(query, candidates=["org/best-unknown"]).best.hub_id == "org/best-unknown"


def test_the_probes_own_accuracy_is_one_more_observation(select: Select, query: TaskEmbedding) -> None:
    def scores(accuracy: float, n: float) -> dict[str, float]:
        told = described(query, linear_probe_accuracy=accuracy, n_samples=n)
        return {c.hub_id: c.score for c in select(told, top_k=20, protocol="linear-probe")}

    low, high, sure = scores(0.5, 48), scores(0.9, 48), scores(0.5, 48_000)
    assert all(low[name] < high[name] for name in low)  # an easier task is easier for all
    assert abs(sure[TINY] - 0.5) < abs(low[TINY] - 0.5) < 0.1
    assert sure[TINY] == pytest.approx(0.5, abs=1e-3)


def test_a_protocol_is_asked_for(select: Select, query: TaskEmbedding) -> None:
    told = described(query, linear_probe_accuracy=0.7)
    tuned, frozen = select(told, top_k=20), select(told, top_k=20, protocol="linear-probe")
    assert [ranking.provenance["protocol"] for ranking in (tuned, frozen)] == ["fine-tune", "linear-probe"]
    # A linear probe on the sample says how hard the task is for linear probes; of fine-tuning it says less.
    of_probe = [{c.hub_id: c.std for c in ranking}[TINY] for ranking in (tuned, frozen)]
    assert of_probe[0] > of_probe[1]
    for words, ranking in (("after fine-tuning", tuned), ("of a linear probe", frozen)):
        assert words in ranking.summary
    with pytest.raises(MetricError, match="protocol 'zero-shot' is unknown; choose 'fine-tune' or 'linear-probe'"):
        select(query, protocol="zero-shot")


def test_what_the_images_show_is_told_or_asked_for() -> None:
    """By the shipped index, in which encoders made for histology have been measured on nothing else."""
    index = ZooIndex.load()
    own = index.embeddings["pcam"]
    others = [i for i, name in enumerate(index.embeddings.names) if name != "pcam"]
    index = index.with_embeddings(index.embeddings.take(others), replace=True)
    asked = (None, "histology", "natural")
    names = {
        told: ids(select_backbone(own, index=index, domain=told, protocol="linear-probe", top_k=50)) for told in asked
    }
    domain = dict(zip(index.checkpoints["hub_id"], index.checkpoints["domain"], strict=True))
    first = {told: next(i for i, name in enumerate(names[told]) if domain[name] == "histology") for told in asked}
    assert first["histology"] == 0 < first["natural"]
    assert first[None] < first["natural"]
    with pytest.raises(MetricError, match="domain 'cells' is unknown; choose one of natural, fine-grained, nature, "):
        select_backbone(own, domain="cells")


def test_the_probe_need_not_be_among_the_candidates(select: Select, query: TaskEmbedding) -> None:
    everything = {c.hub_id: c for c in select(query, top_k=20)}
    few = select(query, candidates=["org/mid", "org/small"])
    assert ids(few) == ["org/mid", "org/small"]
    for c in few:
        assert (c.score, c.std) == pytest.approx((everything[c.hub_id].score, everything[c.hub_id].std))


def test_without_the_probe_in_the_index_its_accuracy_is_the_level(query: TaskEmbedding, index: ZooIndex) -> None:
    rows = {**index.rows, "checkpoints": tuple(row for row in index.rows["checkpoints"] if row.key != (TINY,))}
    rows["scores"] = tuple(row for row in index.rows["scores"] if TINY not in row.key)
    level = described(query, linear_probe_accuracy=0.6)
    ranking = select_backbone(
        level, index=ZooIndex(rows=rows, embedded=index.embedded), top_k=20, protocol="linear-probe"
    )
    assert TINY not in ids(ranking)
    assert ranking[-1].score < 0.6 < ranking[0].score
    assert all(0.0 <= c.low <= c.score <= c.high <= 1.0 for c in ranking)


def test_a_better_prior_is_named_when_the_task_matters(probe: Probe, index: ZooIndex, own_cache: Path) -> None:
    """On the twin of the query the usual last is by far the first."""
    rows = index.scores[index.scores["task"] == "twin"].copy()
    rows["score"] = [0.995 if name == "org/small" else 0.3 for name in rows["checkpoint"]]
    turned = index.add_scores(records(rows), replace=True)
    ranking = select_backbone(dataset(48), probe=probe, index=turned)
    assert ranking.best.hub_id == "org/small"
    assert ranking.best.residual > 0
    assert "The task matters: org/best-unknown, the best regardless of the task, is predicted" in ranking.summary
    gain = ranking.task_gain
    assert gain is not None
    assert gain.static == "org/best-unknown"
    assert gain.points > gain.std > 0.0
    assert f"predicted {gain.points:.1f} ± {gain.std:.1f} points lower" in ranking.summary
    assert json.loads(ranking.to_json())["task_gain"] == vars(gain)
    other = select_backbone(embedding(99, weights_hash=probe.weights_hash), index=turned)
    assert ids(other).index("org/small") > 0


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_ranks(select: Select, query: TaskEmbedding, name: str) -> None:
    ranking = select(query, metric=name, top_k=20)
    assert set(ids(ranking)) == ON_HUB
    assert ranking.provenance["metric"] == name
    assert all(0.0 <= c.low <= c.score <= c.high <= 1.0 for c in ranking)
    assert str(ranking.explain()) == ranking.explain().text
    assert "regardless of the task" in ranking.summary
    assert "-0.0" not in ranking.summary
    assert ranking.task_gain is not None


def test_limits_and_top_k(select: Select, query: TaskEmbedding) -> None:
    everything, asked = select(query, top_k=100), {"max_params": 25e6, "licenses": ("mit",), "library": "timm"}
    assert not any(name.startswith("local:") for name in ids(everything))
    few = select(query, **asked)
    assert (ids(few), few.n_ranked, few.provenance["limits"]) == (["org/mid"], 1, asked)
    for top_k in (1, 3):
        best = select(query, top_k=top_k)
        assert (ids(best), best.n_ranked) == (ids(everything)[:top_k], len(ON_HUB))
    assert best.table["hub_id"].tolist() == ids(everything)
    for name in ("score", "std", "low", "high", "prior", "residual"):
        np.testing.assert_allclose(best.table[name], [getattr(c, name) for c in everything], rtol=1e-9)


# ---------------------------------------------------------------------- what can be ranked for, and what cannot


def test_every_kind_of_input(select: Select, hub: HubServer, tmp_path: Path) -> None:
    data, folder = dataset(24), image_folder(tmp_path / "pets")
    hub.create_dataset("org/pets", {TRAIN: parquet(data)})
    expected = set(ids(select(data)))
    inputs = (
        *(Task.from_dataset(data), datasets.DatasetDict(train=data), data.to_iterable_dataset()),
        *(folder, str(folder), "org/pets"),
    )
    for given in inputs:
        ranking = select(given)
        assert set(ids(ranking)) == expected
        assert ranking.provenance["descriptors"]["n_samples"] == 24
    assert (select("org/pets").dataset, select(folder).dataset) == ("org/pets", "pets")
    assert select("org/pets", streaming=True, max_samples=12).provenance["descriptors"]["n_samples"] == 12
    assert str(tmp_path) not in select(folder).to_json()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda: "./none", DatasetNotFoundError, "no such folder"),
        (lambda: "org/none", DatasetNotFoundError, "no dataset 'org/none'.*Check the spelling"),
        (lambda: [1, 2], TaskError, "a list is no dataset"),
        (lambda: dataset(6).select([0, 3]), LabelError, "only one class, 'class 0'"),
        (lambda: broken_cells(dataset(6), range(6)), ImageDecodeError, "all 6 images of 'dataset' are broken"),
    ],
)
@pytest.mark.usefixtures("hub", "retry_sleeps")
def test_bad_datasets_are_said_as_tasks_say_them(
    select: Select, own_cache: Path, given: Callable[[], Any], error: type[Task2VecError], message: str
) -> None:
    with pytest.raises(error, match=message):
        select(given())
    assert not own_cache.exists()


def test_embeddings_that_cannot_be_ranked(select: Select, query: TaskEmbedding, index: ZooIndex) -> None:
    with pytest.raises(SelectionError, match="refine needs the images: pass the dataset or a Task"):
        select(query, refine=2)
    bare = replace(query, task_descriptors=({"n_classes": 3.0},))
    with pytest.raises(EmbeddingError, match=r"'dataset' lacks the descriptors n_samples, .*; make it with embed_"):
        select(bare)
    message = (
        r"'dataset' was embedded with probe 'org/other' \(weights cdcdcdcdcdcd…\), the index with weights "
        rf"{index.embeddings.weights_hash[:12]}…; embed it with the index's probe"
    )
    with pytest.raises(ProbeMismatchError, match=message):
        select(replace(query, probe={"name": "org/other", "weights_hash": "cd" * 32}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_params": 1e3}, r"meets the limits \(max_params=1000.0\); left out: .*more than 1,000 parameters"),
        ({"max_params": -1}, "max_params=-1 leaves nothing"),
        ({"licenses": "mit"}, "licenses takes a list of strings"),
        ({"candidates": ["org/none"]}, "1 not in the index"),
        ({"top_k": 0}, "top_k=0 must be a whole number of at least 1"),
        ({"top_k": 2.5}, "top_k=2.5 must be a whole number"),
        ({"refine": -1}, "refine=-1 must be a whole number of at least 0"),
        ({"refine": "2"}, "refine='2' must be a whole number of at least 0"),
        ({"refine_bytes": 0}, "refine's max_bytes=0 leaves nothing"),
        ({"refine_seconds": "1 h"}, "refine's max_seconds='1 h' is no number"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ({"metric": "gut_feeling"}, f"metric 'gut_feeling' is unknown; choose one of {', '.join(METRICS)}"),
        ({"index": "none"}, "is no zoo index"),
        ({"index": lambda index: ZooIndex(rows=index.rows)}, "no task embeddings"),
        ({"index": lambda index: replace(index, rows={**index.rows, "scores": ()})}, "no two comparable"),
        (
            {"index": lambda index: earlier(index)},
            "of 'task0' lacks the descriptors mid_accuracy_gain: it was made by an ea",
        ),
        ({"probe": lambda _: tiny_probe(1)}, f"asked for probe '{TINY}' .*but the tasks of the index were"),
        ({"probe": "org/alias"}, f"asked for probe '{TINY}' .*but the tasks of the index were"),
    ],
)
def test_what_cannot_work_is_said_before_the_dataset_is_opened(
    select: Select, index: ZooIndex, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(Task, "from_dataset", never("the dataset was opened"))
    monkeypatch.setattr(Probe, "from_pretrained", lambda name, **_: tiny_probe(1))
    arguments = {name: value(index) if callable(value) else value for name, value in arguments.items()}
    with pytest.raises((SelectionError, TaskError, MetricError, EmbeddingError, ZooIndexError), match=message):
        select("org/dataset", **arguments)


# ---------------------------------------------------------------------- the cache


def test_a_kept_embedding_is_used_again_without_the_probe(
    index: ZooIndex, probe: Probe, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """By its name, or as the default: an index says which weights its probe has."""
    table = replace(index.embeddings, probe={**index.embeddings.probe, "name": DEFAULT_PROBE})
    by_default = ZooIndex(rows=index.rows, embedded=table)
    asked: list[Any] = []
    monkeypatch.setattr(cache_module, "load_probe", lambda given, **_: asked.append(given) or probe)
    uncached = select_backbone(dataset(24), index=index, probe=TINY, cache=False)
    assert not own_cache.exists()
    first = select_backbone(dataset(24), index=index, probe=TINY)
    assert first.to_json() == uncached.to_json()
    assert len(list(own_cache.rglob("*.safetensors"))) == 1
    for module, name in ((embed, "embed_task"), (cache_module, "load_probe")):
        monkeypatch.setattr(module, name, never(f"{name} was called"))
    assert select_backbone(dataset(24), index=index, probe=TINY).to_json() == first.to_json()
    assert ids(select_backbone(dataset(24), index=by_default)) == ids(first)
    assert asked == [TINY, TINY]
    for change in ({"seed": 1}, {"max_samples": 12}, {"cache": False}):
        with pytest.raises(pytest.fail.Exception, match="load_probe was called"):
            select_backbone(dataset(24), index=index, probe=TINY, **change)


def test_a_damaged_kept_embedding_is_made_again(
    select: Select, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = select(dataset(24))
    (file,) = own_cache.rglob("*.safetensors")
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
    select: Select, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_cache.write_bytes(b"a file where the folder should be")
    assert select(dataset(24)).best.hub_id == "org/huge"
    assert (
        "cannot be written to (Not a directory), so nothing is kept for the next time; set HF_HOME to a folder"
        in caplog.text
    )


# ---------------------------------------------------------------------- explanations


def test_explanation(select: Select, query: TaskEmbedding, index: ZooIndex) -> None:
    ranking = select(query)
    why = ranking.explain()
    assert why == ranking.explain(ranking.best.hub_id)
    assert why.prior + why.residual == pytest.approx(100 * ranking.best.score)
    assert why.residual == pytest.approx(100 * ranking.best.residual)
    assert why.neighbours[0].task == why.measurements[0].task == "twin"
    assert not why.far
    nearness = [neighbour.similarity for neighbour in why.neighbours]
    assert nearness == sorted(nearness, reverse=True)
    assert all(0.0 < similarity <= 1.0 for similarity in nearness)
    assert {m.task for m in why.measurements} == {"twin", *REFERENCES}
    recorded = index.scores.set_index(["task", "checkpoint"])["score"]
    assert all(m.score == recorded[m.task, why.hub_id] for m in why.measurements)
    assert str(why) == why.text
    assert "Nearest reference tasks: twin (similarity " in why.text
    assert "5 scores of this checkpoint are in the index, the most relevant: twin " in why.text
    unscored = ranking.explain(UNSCORED)
    assert unscored.measurements == ()
    assert "No score of this checkpoint is in the index: its prior comes from checkpoints like it." in unscored.text
    again = pickle.loads(pickle.dumps(ranking))
    assert again.explain() == why
    assert again.to_json() == ranking.to_json()


def test_contributions_sum_to_the_residual(query: TaskEmbedding, index: ZooIndex) -> None:
    best, why = (ranking := select_backbone(query, index=index)).best, ranking.explain()
    assert len(why.neighbours) == len(index.embeddings)  # all five tasks are near enough to show
    facts = query.descriptors
    known = {TINY: Score.of_share(facts["linear_probe_accuracy"], int(facts["n_samples"]))}
    update = RankingMetric.from_index(index).predict(query, index.checkpoints, known).update
    at = list(index.checkpoints["hub_id"]).index(best.hub_id)
    # The rest is what the probe's accuracy tells.
    expected = float(logit(best.score) - logit(best.prior)) - update[at]
    points = sum(neighbour.contribution for neighbour in why.neighbours)
    assert points == pytest.approx(100 * best.score * (1 - best.score) * expected, rel=1e-6)


def test_the_request_is_kept_without_the_token(query: TaskEmbedding, index: ZooIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "zoo")
    ranking = select_backbone(query, index=tmp_path / "zoo", probe=None, max_params=25e6, token="hf_secret")
    assert ranking.command() is None  # an embedding in memory
    assert ranking.request["index"] == str(tmp_path / "zoo")
    assert ranking.request["max_params"] == 25e6
    assert "hf_secret" not in repr(ranking.request)
    assert "top_k" not in ranking.request  # a default


# ---------------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("descriptors", "warning"),
    [
        ({"n_samples": 12.0}, "only 12 images for 3 classes were used; pass a larger max_samples if there are more"),
        (
            {"class_balance": 0.381},
            "the classes are unbalanced (balance 0.38 of 1); scores refer to the balanced sample",
        ),
    ],
)
def test_a_poor_sample(select: Select, query: TaskEmbedding, descriptors: dict[str, float], warning: str) -> None:
    assert warning in select(described(query, **descriptors)).warnings


def test_a_task_far_from_all_others(select: Select, query: TaskEmbedding) -> None:
    facts = {**embedding().descriptors, "n_classes": 2.0, "median_side_px": 4000.0, "class_separation": 0.9}
    ranking = select(embedding(77, weights_hash=query.weights_hash, descriptors=facts))
    assert any("no reference task is near this dataset" in warning for warning in ranking.warnings)
    assert ranking.explain().far
    assert "the ranking rests on the prior alone" in ranking.explain().text
    assert abs(ranking.best.residual) < 0.02


def test_broken_images_bombs_and_missing_labels(select: Select) -> None:
    data = broken_cells(broken_cells(dataset(48), [5]), [7], png_header(40_000, 40_000))
    rows = data.cast_column("image", datasets.Image(decode=False)).to_dict()
    rows["label"][9] = None
    ranking = select(datasets.Dataset.from_dict(rows, features=data.features), max_samples=None)
    assert {"2 broken images skipped", "1 row without a label skipped"} <= set(ranking.warnings)
    reasons = {skip["row"]: skip["reason"] for skip in ranking.provenance["task"]["skipped"]}
    assert reasons.keys() == {5, 7}
    assert "Image size (1600000000 pixels) exceeds limit" in reasons[7]
    assert all(line in repr(ranking) for line in ("Warning: 2 broken images", "Warning: 1 row without"))


def leaks(name: str, seed: int, trained_on: tuple[str, ...] = ("imagenet1k",)) -> list[str]:
    """Warnings of leakage where a dataset has some name and the embedding of task ``seed - 1``, or one like none.

    The images of the first task are of ImageNet, and one checkpoint was trained on `trained_on`.
    """
    index = zoo()
    tasks = [
        row.model_copy(update={"images_from": ("imagenet1k",)} if i == 0 else {})
        for i, row in enumerate(index.rows["tasks"])
    ]
    checkpoints = [
        row.model_copy(update={"trained_on": trained_on} if row.key == ("org/mid",) else {})
        for row in index.rows["checkpoints"]
    ]
    index = replace(index, rows={**index.rows, "tasks": tuple(tasks), "checkpoints": tuple(checkpoints)})
    found = select_backbone(embedding(seed, task={"dataset": name}), index=index)
    return [warning for warning in found.warnings if "in training" in warning]


def test_candidates_that_have_seen_the_images_are_named() -> None:
    (warning,) = leaks("photos", 1, ("imagenet1k", "laion2b"))
    assert warning == (
        "1 of the 7 candidates shown may have seen these images in training: the dataset is, or is much like, the "
        "reference task task0, and they were trained on imagenet1k; accuracies on images seen in training are too high"
    )
    (by_name,) = leaks("ILSVRC/imagenet-1k", 99)
    assert "the dataset bears the name of a training set, and they were trained on imagenet1k" in by_name
    (by_task,) = leaks("org/Task_0", 99)
    assert "the reference task task0" in by_task
    assert 0.9 < SAME_DATASET < 1.0
    assert leaks("photos", 99) == []  # like none
    assert leaks("photos", 2) == []  # task1 is of other images
    assert leaks("photos", 1, ("laion2b",)) == []
