"""Fine-tuned checkpoints beside general ones: what they inherit, what nearness promises, and who is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hf_task2vec.embedding.distance import pairwise
from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.metric.experts import EXPERT_GAIN
from hf_task2vec.metric.observations import logit
from hf_task2vec.metric.ranking_metric import RankingMetric
from hf_task2vec.probes.scores import Score
from hf_task2vec.selection.limits import Constraints, Eligible
from hf_task2vec.selection.ranking import Candidate, Ranking
from hf_task2vec.selection.recommendation import Recommender
from hf_task2vec.zoo.index import ZooIndex
from tests.support.cli_stub import run
from tests.support.hub import HubServer
from tests.support.synthetic import records, with_experts
from tests.zoo.test_hub_candidates import model

Select = Callable[..., Ranking]
NEAR, FAR, BASE = "me/near", "me/far", "org/mid"


@pytest.fixture(scope="module")
def with_both(index: ZooIndex) -> ZooIndex:
    """The index with an expert of a task like the query's (``twin``), and one of another."""
    return with_experts(index, (NEAR, BASE, "twin"), (FAR, BASE, "task1"))


def by_id(ranking: Ranking) -> dict[str, Candidate]:
    return {candidate.hub_id: candidate for candidate in ranking}


def test_a_near_expert_is_expected_to_beat_its_base_and_a_far_one_not(
    select: Select, query: TaskEmbedding, with_both: ZooIndex
) -> None:
    ranking = select(query, index=with_both, experts=True, top_k=20)
    found = by_id(ranking)
    near, far, base = found[NEAR], found[FAR], found[BASE]
    assert near.score > base.score > far.score
    assert near.gain is not None
    assert far.gain is not None
    assert base.gain is None
    assert near.gain == pytest.approx(100.0 * (near.score - base.score))
    table = with_both.embeddings
    similar = dict(zip(table.names, 1.0 - pairwise(query, to=table)[0], strict=True))
    for expert, task in ((near, "twin"), (far, "task1")):  # of its base's training set nothing is known
        assert logit(expert.score) - logit(base.score) == pytest.approx(EXPERT_GAIN.expected(similar[task]))
    assert near.evidence.startswith("fine-tuned on twin, which is near (similarity 0.9")
    assert f"expected +{near.gain:.1f} ± " in near.evidence
    assert near.evidence.endswith("points over its base org/mid")
    assert "fine-tuned on task1, which is not near enough (similarity " in far.evidence
    assert "expected −" in far.evidence
    assert (near.params_m, near.license, near.library) == (25.0, None, "other"), "what is shared with the base"
    reasons = {pick.candidate.hub_id: pick.reason for pick in ranking.shortlist()}
    assert reasons[NEAR].endswith(near.evidence)
    assert FAR not in reasons
    assert near.evidence in str(ranking)
    why = ranking.explain(NEAR)
    assert why.measurements == ranking.explain(BASE).measurements
    assert f"It was {near.evidence}, whose scores count as its own." in why.text
    assert why.prior + why.residual == pytest.approx(100.0 * near.score)
    assert "--experts" in str(
        replace(ranking, request={**ranking.request, "dataset": "x", "index": "y", "probe": "z"}).command()
    )
    assert json.loads(ranking.to_json())["candidates"][0].keys() >= {"gain", "evidence"}


def test_without_being_asked_for_nothing_changes(
    select: Select, query: TaskEmbedding, index: ZooIndex, with_both: ZooIndex
) -> None:
    before, after = select(query, top_k=20), select(query, index=with_both, top_k=20)
    assert [c.hub_id for c in before] == [c.hub_id for c in after]
    asked = select(query, index=index, experts=True, top_k=20)  # of which there are none
    np.testing.assert_allclose([c.score for c in asked], [c.score for c in before])
    assert [c.gain for c in asked] == [None] * len(before)


def test_of_a_measured_expert_no_gain_is_expected(query: TaskEmbedding, with_both: ZooIndex) -> None:
    eligible = Eligible.of(with_both, Constraints(), None, None, experts=True)
    recommender = Recommender(query, RankingMetric.from_index(with_both), eligible, "linear-probe")
    found = by_id(recommender.rank({NEAR: Score.of_share(0.5, 200)}, top_k=20))
    assert found[NEAR].evidence == "measured here; fine-tuned on twin from org/mid"
    assert found[NEAR].gain is None
    assert found[NEAR].score == pytest.approx(0.5, abs=0.05)
    assert found[FAR].gain is not None
    assert found[FAR].gain < 0.0


def test_a_training_set_goes_by_all_names_that_an_index_knows(
    select: Select, query: TaskEmbedding, with_both: ZooIndex, hub: HubServer
) -> None:
    hub.create_model("me/expert", model(25.0, base_model=BASE, datasets=["some-user/Twin"]))
    found = by_id(select(query, index=with_both, experts=True, candidates=["me/expert", BASE]))
    assert found["me/expert"].evidence.startswith("fine-tuned on twin, which is near (similarity 0.9")


def test_where_the_base_is_as_near_the_expert_gains_nothing(
    select: Select, query: TaskEmbedding, with_both: ZooIndex
) -> None:
    seen = [{**row, "trained_on": ("pictures",)} for row in records(with_both.checkpoints) if row["hub_id"] == BASE]
    tasks = [{**row, "images_from": ("pictures",)} for row in records(with_both.tasks) if row["task"] == "twin"]
    index = with_both.add_checkpoints(seen, replace=True).add_tasks(tasks, replace=True)
    near = by_id(select(query, index=index, experts=True, top_k=20))[NEAR]
    assert near.gain is not None
    assert near.gain < 0.0


def test_limits_hold_for_experts_too_and_a_base_need_not_be_a_candidate(
    select: Select, query: TaskEmbedding, with_both: ZooIndex, hub: HubServer
) -> None:
    asked = select(query, index=with_both, experts=True, candidates=[NEAR, "org/small"])
    assert set(by_id(asked)) == {NEAR, "org/small"}
    with_base = by_id(select(query, index=with_both, experts=True, top_k=20))
    assert by_id(asked)[NEAR].score == pytest.approx(with_base[NEAR].score)
    licensed = select(query, index=with_both, experts=True, licenses=["mit"], top_k=20)
    assert not {NEAR, FAR} & set(by_id(licensed)), "nobody has told their licence"


def test_a_candidate_whose_card_names_base_and_data(
    select: Select, query: TaskEmbedding, index: ZooIndex, hub: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    hub.create_dataset("org/pictures", {"task2vec/embedding.safetensors": query.without_file_names().to_bytes()})
    hub.create_dataset("org/bare", {"README.md": b"none"})
    hub.create_model("me/expert", model(25.0, license="mit", base_model=BASE, datasets=["org/pictures", "org/bare"]))
    hub.create_model("me/unknown-data", model(25.0, base_model=BASE, datasets=["org/bare"]))
    hub.create_model("me/unknown-base", model(25.0, base_model="org/none", datasets=["org/pictures"]))
    names = ["me/expert", "me/unknown-data", "me/unknown-base", BASE]
    found = by_id(select(query, index=index, experts=True, candidates=names))
    assert found["me/expert"].evidence.startswith("fine-tuned on org/pictures, which is near (similarity 1.00)")
    assert (found["me/expert"].license, found["me/expert"].library) == ("mit", "timm")
    for name in ("me/unknown-data", "me/unknown-base"):
        assert found[name].evidence == "not in the index; judged by its family"
    assert "me/unknown-data is no expert here: the index does not know an embedding of org/bare" in caplog.text
    assert "me/unknown-base is no expert here: the index does not know its base org/none" in caplog.text
    plain = by_id(select(query, index=index, candidates=names))
    assert plain["me/expert"].evidence == "not in the index; judged by its family"


def test_of_many_experts_of_a_base_one_is_tried(select: Select, query: TaskEmbedding, index: ZooIndex) -> None:
    many = with_experts(index, *((f"me/near{i}", BASE, "twin") for i in range(8)))
    picks = [pick.candidate.hub_id for pick in select(query, index=many, experts=True).shortlist()]
    assert sum(name.startswith("me/near") for name in picks) == 1


@pytest.mark.usefixtures("hub", "own_cache")
def test_the_command_line(tmp_path: Path) -> None:
    """On the shipped index: sklearn's digits are one of its tasks, and Oxford's pets another."""
    base = "timm/resnet50.a1_in1k"
    index = with_experts(ZooIndex.load(), (NEAR, base, "optdigits_8x8"), (FAR, base, "pets"))
    index.save(tmp_path / "index")
    options = ("--index", str(tmp_path / "index"), "--max-samples", "64", "--json", "--experts")
    result = run("select", "sklearn:digits", *options, "--candidates", f"{NEAR},{FAR},{base}")
    assert result.exit_code == 0, result.stderr
    found = {row["hub_id"]: row for row in json.loads(result.stdout)["candidates"]}
    assert found[NEAR]["score"] > found[base]["score"] > found[FAR]["score"]
    assert found[NEAR]["gain"] > 0.0 > found[FAR]["gain"]
    assert "which is near" in found[NEAR]["evidence"]
    picks = {row["hub_id"]: row["reason"] for row in json.loads(result.stdout)["shortlist"]}
    assert "points over its base timm/resnet50.a1_in1k" in picks[NEAR]
    assert FAR not in picks
