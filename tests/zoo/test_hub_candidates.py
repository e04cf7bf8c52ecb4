"""Candidates that are named or asked for on the Hub, and judged without their weights."""

from __future__ import annotations

import json
import logging
import struct
from typing import Any

import pytest

from hf_task2vec.errors import HubError, SelectionError
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.zoo.hub_candidates import DEFAULT_LIMIT, is_query, parse_query, resolve_candidates
from hf_task2vec.zoo.index import ZooIndex
from tests.support.hub import HubServer, card
from tests.support.synthetic import TINY, embedding, zoo

WEIGHTS = r"/resolve/.*(safetensors|\.bin)"

EVIDENCE = "not in the index; judged by its family"


def weights(millions: float) -> bytes:
    """Return a safetensors file with the header of so many parameters, and no data."""
    header = {"w": {"dtype": "F32", "shape": [round(millions * 1e6)], "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def model(millions: float, *, config: dict[str, Any] | None = None, **facts: Any) -> dict[str, bytes]:
    meta = {"library_name": "timm", "pipeline_tag": "image-classification", "license": "apache-2.0", **facts}
    config = {"architecture": "net", "pretrained_cfg": {"input_size": [3, 160, 160]}} if config is None else config
    return {
        "README.md": card(**meta),
        "config.json": json.dumps(config).encode(),
        "model.safetensors": weights(millions),
    }


@pytest.fixture
def models(hub: HubServer) -> HubServer:
    """Models of ``lab``: two small ones, a large one, one for text; and one of somebody else."""
    hub.create_model("lab/small-net", model(5.0))
    hub.create_model("lab/mid-net", model(20.0, license="mit", tags=["tuned"]))
    hub.create_model("lab/huge-net", model(300.0))
    text = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    hub.create_model("lab/words", model(10.0, config={"model_type": "gpt"}, **text))
    hub.create_model("other/net", model(7.0))
    hub.forget_requests()
    return hub


@pytest.fixture(scope="module")
def index() -> ZooIndex:
    return zoo()


NOTHING = {"author": None, "filter": None, "search": None, "num_parameters": None, "limit": DEFAULT_LIMIT}


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("author:timm license:mit", {"author": "timm", "filter": ["license:mit"]}),
        ("convnext tiny library:timm", {"search": "convnext tiny", "filter": ["timm"]}),
        ("tag:a tag:b limit:7", {"filter": ["a", "b"], "limit": 7}),
        ("net params:>=1.5m params:<=2B", {"search": "net", "num_parameters": "max:2B,min:1.5M"}),
    ],
)
def test_queries(text: str, query: dict[str, Any]) -> None:
    assert is_query(text)
    assert parse_query(text) == NOTHING | query


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("autor:timm", r"'autor:' is unknown; what would work: author:, license:, library:, params:, tag:, limit:"),
        ("author: timm", "author: has no value; write it without a space"),
        ("author:a author:b", "author: is given twice; pass a list of two queries"),
        ("author:a params:30M", "params:30M is no comparison; write params:<30M"),
        ("author:a params:<30X", "params:<30X is no comparison"),
        ("author:a limit:0", "limit:0 is no positive whole number"),
        ("limit:5", "asks for every model of the Hub"),
        (" ", "asks for every model of the Hub"),
    ],
)
def test_malformed_queries(text: str, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        parse_query(text)


def test_what_is_a_query() -> None:
    assert not is_query("org/model")
    assert not is_query("local:mine")
    assert is_query("resnet")


def test_a_query_lists_models_and_downloads_no_weights(models: HubServer, index: ZooIndex) -> None:
    found = resolve_candidates("author:lab license:apache-2.0 params:<30M", index)
    assert found.ids == ("lab/small-net",)
    row = found.rows[0]
    assert (row.hub_id, row.library, row.architecture, row.family) == ("lab/small-net", "timm", "net", "net")
    assert (row.params_m, row.input_px, row.license, row.gated) == (5.0, 160, "apache-2.0", False)
    assert not models.requested(WEIGHTS)
    both = resolve_candidates(["author:lab library:timm params:<100M", "other/net", TINY], index)
    assert set(both.ids or ()) == {"lab/small-net", "lab/mid-net", "other/net", TINY}
    assert {row.hub_id for row in both.rows} == {"lab/small-net", "lab/mid-net", "other/net"}
    assert resolve_candidates("tag:tuned", index).ids == ("lab/mid-net",)
    assert resolve_candidates("mid", index).ids == ("lab/mid-net",)
    assert not models.requested(WEIGHTS)


def test_a_selection_marks_what_the_index_does_not_know(models: HubServer, index: ZooIndex) -> None:
    ranking = select_backbone(embedding(9), index=index, candidates=["author:lab", "org/mid", "org/small"])
    evidence = {candidate.hub_id: candidate.evidence for candidate in ranking}
    assert set(evidence) == {"lab/small-net", "lab/mid-net", "lab/huge-net", "org/mid", "org/small"}
    assert {name for name, text in evidence.items() if text == EVIDENCE} == {name for name in evidence if "lab" in name}
    assert ranking.provenance["candidates"] == {
        "queries": ["author:lab"],
        "not_in_index": ["lab/huge-net", "lab/mid-net", "lab/small-net"],
    }
    assert ranking.provenance["index"] == index.fingerprint
    best = select_backbone(embedding(9), index=index, candidates=["lab/mid-net"])
    assert EVIDENCE in best.summary
    assert best.explain("lab/mid-net").hub_id == "lab/mid-net"
    few = select_backbone(embedding(9), index=index, candidates="author:lab", max_params=6e6, licenses=["apache-2.0"])
    assert [candidate.hub_id for candidate in few] == ["lab/small-net"]
    assert not models.requested(WEIGHTS)


def test_private_gated_and_missing_models(hub: HubServer, index: ZooIndex, caplog: pytest.LogCaptureFixture) -> None:
    hub.create_model("org/secret", model(5.0), private=True)
    hub.create_model("org/gated", model(5.0), gated=True)
    hub.create_model("org/odd", model(5.0, config={}))
    names = ["org/secret", "org/gated", "org/gone", "org/odd", "org/mid"]
    found = resolve_candidates(names, index, token=hub.tokens.read)
    assert [row.hub_id for row in found.rows] == ["org/secret", "org/gated"]
    assert [row.gated for row in found.rows] == [False, True]
    caplog.clear()
    found = resolve_candidates(names, index, token=hub.tokens.other)
    assert not found.rows
    assert found.ids == tuple(names), "what is not found is said by the selection"
    for text in (
        "org/secret is left out: No Hub repository 'org/secret' (or it is private",
        "org/gated is left out: model repository 'org/gated' is gated: accept its terms",
        "org/gone is left out: No Hub repository 'org/gone'",
        "org/odd is left out: its facts are unusable: its config.json names no architecture",
    ):
        assert text in caplog.text
    assert resolve_candidates("author:org", index, token=hub.tokens.read).ids == ("org/gated", "org/secret")
    with pytest.raises(SelectionError, match="can be judged"):
        resolve_candidates("author:org", index, token=hub.tokens.other)


def test_nothing_matches(models: HubServer, index: ZooIndex) -> None:
    with pytest.raises(SelectionError, match="no model on the Hub matches 'author:nobody': 0 listed"):
        resolve_candidates("author:nobody", index)
    with pytest.raises(SelectionError, match="1 listed, none of them an image model"):
        resolve_candidates("words", index)


def test_the_number_of_models_is_bounded(models: HubServer, index: ZooIndex, caplog: pytest.LogCaptureFixture) -> None:
    models.page_size = 1
    models.repo("lab/huge-net").downloads = 9
    assert resolve_candidates("net library:timm limit:1", index).ids == ("lab/huge-net",)
    assert "only the 1 most downloaded models" in caplog.text
    assert len(models.requested("^/api/models\\?")) == 1
    assert len(resolve_candidates("net library:timm", index).ids or ()) == 4


def test_a_hub_that_fails(
    models: HubServer, index: ZooIndex, retry_sleeps: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    models.inject(pattern="^/api/models", status=503, times=None)
    with pytest.raises(HubError, match="listing models for 'author:lab'"):
        resolve_candidates("author:lab", index)
    with caplog.at_level(logging.WARNING):
        assert resolve_candidates(["other/net", "org/mid"], index).ids == ("other/net", "org/mid")
    assert "other/net is left out: looking it up" in caplog.text


def test_facts_come_from_relatives(hub: HubServer) -> None:
    shipped = ZooIndex.load()
    hub.create_model("me/resnet50.a1_in1k", model(25.0, config={"architecture": "resnet50"}, license="other"))
    hub.create_model("me/new", model(9.0, config={"architecture": "convnext_gigantic.fcmae_ft_in22k_in1k"}))
    hf = {"library_name": "transformers"}
    hub.create_model("me/dino", model(22.0, config={"model_type": "dinov2", "architectures": ["Dinov2Model"]}, **hf))
    tuned = {**hf, "base_model": "facebook/dinov2-base"}
    hub.create_model("me/tuned", model(22.0, config={"model_type": "dinov2"}, **tuned))
    rows = {row.hub_id: row for row in resolve_candidates("author:me", shipped).rows}
    resnet = rows["me/resnet50.a1_in1k"]
    assert (resnet.family, resnet.pretraining, resnet.license) == ("resnet", "in1k_supervised", None)
    assert (rows["me/new"].family, rows["me/new"].pretraining) == ("convnext", "mim_ft_in21k_ft_in1k")
    assert (rows["me/dino"].family, rows["me/dino"].pretraining) == ("vit", "dinov2")
    assert rows["me/tuned"].pretraining is None
    assert not hub.requested(WEIGHTS)
