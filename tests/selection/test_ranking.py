"""The result of a selection as an object."""

from __future__ import annotations

import json
import pickle
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_task2vec.cli.commands import select
from hf_task2vec.errors import ProbeError, SelectionError
from hf_task2vec.selection.explanation import Explanation
from hf_task2vec.selection.ranking import Candidate, Ranking
from tests.support.hub import HubServer


def candidate(rank: int, **changes: Any) -> Candidate:
    facts: dict[str, Any] = {
        "rank": rank,
        "hub_id": f"org/net{rank}",
        "score": 0.9 - 0.1 * rank,
        "std": 0.02,
        "low": 0.85 - 0.1 * rank,
        "high": 0.95 - 0.1 * rank,
        "prior": 0.7,
        "residual": 0.2 - 0.1 * rank,
        "params_m": 5.28,
        "gmacs": 0.4,
        "input_px": 224,
        "license": "apache-2.0",
        "library": "timm",
        "architecture": "net",
        "pretraining": "in1k_supervised",
        "in1k_top1": 0.75,
        "evidence": "3 scores of it in the index",
    }
    return Candidate(**{**facts, **changes})


UNKNOWN = dict.fromkeys(("params_m", "gmacs", "input_px", "license", "pretraining", "in1k_top1"))


def ranking_of(*candidates: Candidate, top_k: int | None = None, **changes: Any) -> Ranking:
    """Return a ranking of candidates, all of which are shown by default."""
    facts: dict[str, Any] = {
        "dataset": "org/pets & <friends>",
        "summary": "Take org/net1 <now>.",
        "warnings": ("only 3 images & no more",),
        "provenance": {"index": "abc", "limits": {"licenses": ("mit",)}},
    }
    table = pd.DataFrame([asdict(c) for c in candidates]).set_index("rank")
    return Ranking(table, len(candidates) if top_k is None else top_k, **{**facts, **changes})


@pytest.fixture
def ranking() -> Ranking:
    return ranking_of(candidate(1), candidate(2, **UNKNOWN), candidate(3), candidate(4), top_k=3)


# ---------------------------------------------------------------------- Ranking


def test_it_is_a_sequence(ranking: Ranking) -> None:
    assert len(ranking) == 3
    assert ranking[0] is ranking.best
    assert [c.rank for c in reversed(ranking)] == [3, 2, 1]
    assert [c.rank for c in ranking[1:]] == [2, 3]
    with pytest.raises(IndexError):
        ranking[3]
    two = ranking.head(2)
    assert [c.rank for c in two] == [1, 2]
    assert (two.dataset, two.n_ranked, two.provenance) == (ranking.dataset, 4, ranking.provenance)
    assert len(ranking.head(10)) == 3
    for k in (0, -1):
        with pytest.raises(SelectionError, match=f"k={k} must be at least 1"):
            ranking.head(k)


def test_json_and_pandas(ranking: Ranking) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    document = json.loads(ranking.to_json(), parse_constant=refuse)
    assert document["dataset"] == ranking.dataset
    expected = [asdict(c) | {"aliases": list(c.aliases)} for c in ranking]
    assert [facts | {"values": None} for facts in document["candidates"]] == expected
    assert [facts["hub_id"] for facts in document["shortlist"]] == [f"org/net{i}" for i in (1, 2, 3, 4)]
    assert document["shortlist"][0]["reason"] == "best overall"
    (budget,) = document["budgets"]
    assert (budget["max_params"], budget["candidate"]["hub_id"], budget["lower"]) == (None, "org/net1", 0.0)
    assert document["candidates"][1]["params_m"] is None
    assert (document["n_ranked"], document["warnings"]) == (4, ["only 3 images & no more"])
    assert document["provenance"] == {"index": "abc", "limits": {"licenses": ["mit"]}}
    assert "\n" not in ranking.to_json(indent=None)
    frame = ranking.to_pandas()
    assert (frame.index.name, frame.index.tolist()) == ("rank", [1, 2, 3])
    assert frame["params_m"].isna().tolist() == [False, True, False]
    assert frame.loc[1, "score"] == ranking.best.score


def test_repr(ranking: Ranking) -> None:
    assert repr(ranking).splitlines() == [
        "Take org/net1 <now>.",
        "Warning: only 3 images & no more",
        "",
        "To try:",
        "checkpoint  accuracy  params  licence     why",
        "org/net1    80.0      5.3M    apache-2.0  best overall",
        "org/net2    70.0      ?       ?           another kind: net",
        "org/net3    60.0      5.3M    apache-2.0  another kind: net",
        "org/net4    50.0      5.3M    apache-2.0  another kind: net",
        "",
        "Within a size:",
        "size      checkpoint  accuracy  points lower  params  licence",
        "any size  org/net1    80.0                    5.3M    apache-2.0",
        "",
        "4 checkpoints ranked for 'org/pets & <friends>'; the best:",
        "rank  checkpoint  accuracy  80 % interval  params  licence",
        "1     org/net1    80.0      75.0–85.0      5.3M    apache-2.0",
        "2     org/net2    70.0      65.0–75.0      ?       ?",
        "3     org/net3    60.0      55.0–65.0      5.3M    apache-2.0",
    ]


def test_html_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    page = ranking_of(candidate(1), candidate(2, hub_id=evil, license=evil))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    for text in ("org/pets &amp; &lt;friends&gt;", "Take org/net1 &lt;now&gt;.", "only 3 images &amp; no more"):
        assert text in page


def test_only_candidates_are_explained(ranking: Ranking) -> None:
    why = Explanation("org/net1", 70.0, 10.0, (), ())
    ranking = replace(ranking, explanations={"org/net1": why})
    assert ranking.explain() is ranking.explain("org/net1") is why
    with pytest.raises(SelectionError, match=r"'org/net4' is number 4 of 4, but only the first 1 are explained; pass"):
        ranking.explain("org/net4")
    with pytest.raises(SelectionError, match=r"'org/none' was not ranked: .* 4 checkpoints such as 'org/net1'"):
        ranking.explain("org/none")


def test_it_can_be_pickled(ranking: Ranking) -> None:
    again = pickle.loads(pickle.dumps(replace(ranking, sample=object())))  # type: ignore[arg-type]
    assert again.to_json() == ranking.to_json()
    pd.testing.assert_frame_equal(again.table, ranking.table)
    assert again.sample is None


ASKED: dict[str, Any] = {
    "dataset": "./my photos",
    "name": "de; rm -rf /",
    "split": "test",
    "image_column": "the image",
    "streaming": True,
    "max_samples": 64,
    "candidates": ["org/a", "author:timm params:<30M"],
    "max_params": 30e6,
    "max_gmacs": 4.5,
    "device_memory": 8e9,
    "latency": 25.0,
    "licenses": ("mit", "apache-2.0"),
    "library": "timm",
    "input_size": 224,
    "metric": "static",
    "seed": 3,
}


def parsed(command: str | None) -> dict[str, Any]:
    """What our own command line understands of a command."""
    assert command is not None
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("hf-task2vec", "select")
    return select.make_context("select", words).params


def test_the_command_to_repeat_it(ranking: Ranking) -> None:
    found = parsed(replace(ranking, request=ASKED).command(refine=3))
    for name, value in {**ASKED, "refine": 3}.items():
        assert found[name] == (list(value) if isinstance(value, tuple) else value), name
    assert replace(ranking, request={"dataset": "sklearn:digits"}).command() == "hf-task2vec select sklearn:digits"
    everything = replace(ranking, request={"dataset": "x", "max_samples": None}, provenance={"task": {"n_rows": 1797}})
    assert everything.command() == "hf-task2vec select x --max-samples 1797"
    for name in ("dataset", "index", "probe"):  # an object in memory
        assert replace(ranking, request={**ASKED, name: None}).command() is None
    assert ranking.command() is None


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.floats(1e3, 1e12))
def test_any_name_survives_the_shell(dataset: str, most: float) -> None:
    found = parsed(ranking_of(candidate(1), request={"dataset": dataset, "max_params": most}).command())
    assert found["dataset"] == dataset
    assert found["max_params"] == int(most)


# ---------------------------------------------------------------------- Candidate.load


def test_load_gives_a_model_ready_to_fine_tune(hub: HubServer, tmp_path: Path) -> None:
    import torch
    from PIL import Image

    from tests.support.architectures import files_of, save_timm

    save_timm(tmp_path)
    commit = hub.create_model("org/net1", files_of(tmp_path))
    model, transform = candidate(1).load(num_classes=7, revision=commit)
    batch = transform(Image.new("RGB", (90, 70), "red"))[None]
    assert batch.shape == (1, 3, 64, 64)
    loss = torch.nn.functional.cross_entropy(model(batch.repeat(2, 1, 1, 1)), torch.tensor([0, 6]))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_load_of_a_checkpoint_that_is_gone(hub: HubServer) -> None:
    with pytest.raises(ProbeError, match="org/net9"):
        candidate(9).load(num_classes=7)
