"""Weights have one identity and many names: every question takes any of them, and answers by the one asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_task2vec.errors import ZooIndexError
from hf_task2vec.selection.limits import Constraints
from hf_task2vec.selection.select import select_backbone
from hf_task2vec.zoo.index import ZooIndex
from hf_task2vec.zoo.schema import CheckpointRow
from tests.support.synthetic import UNSCORED, embedding, zoo

ALIASES = {
    "org/mid": "hf/mid transformers exact lab;mirror/mid timm exact lab",
    "org/small": "hf/small transformers likely lab",
    "org/hf": "timm/hf timm exact lab",
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> ZooIndex:
    """The small index, with names, read from its files."""
    plain = zoo()
    rows = [row for row in plain.rows["checkpoints"] if isinstance(row, CheckpointRow)]
    source = plain.rows["sources"][0].key[0]
    named = [
        CheckpointRow.model_validate(
            row.model_dump(exclude={"aliases"}) | {"aliases": ALIASES.get(row.hub_id, "").replace(" lab", f" {source}")}
        )
        for row in rows
    ]
    folder = tmp_path_factory.mktemp("zoo")
    plain.add_checkpoints(named, replace=True).save(folder)
    return ZooIndex.load(folder)


def test_names_survive_the_file(index: ZooIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    again = ZooIndex.load(tmp_path)
    assert again.rows == index.rows
    assert again.names["mirror/mid"] == again.names["hf/mid"] == again.names["org/mid"] == "org/mid"


def test_a_name_belongs_to_one_row(index: ZooIndex) -> None:
    small = next(row for row in index.rows["checkpoints"] if row.key == ("org/small",))
    assert isinstance(small, CheckpointRow)
    for name in ("hf/mid", "org/mid", "org/small"):
        alias = small.aliases[0].model_copy(update={"hub_id": name})
        with pytest.raises(ZooIndexError, match=f"column aliases: '{name}' is a name of the weights of row"):
            index.add_checkpoints([small.model_copy(update={"aliases": (alias,)})], replace=True)
    nobody = small.aliases[0].model_copy(update={"source": "nobody"})
    with pytest.raises(ZooIndexError, match=r"column aliases: 'nobody' is not in sources\.csv"):
        index.add_checkpoints([small.model_copy(update={"aliases": (nobody,)})], replace=True)


def test_a_malformed_alias_is_told(index: ZooIndex) -> None:
    row = index.rows["checkpoints"][0].model_dump()
    with pytest.raises(ZooIndexError, match="row 1, column aliases"):
        index.add_checkpoints([{**row, "aliases": "hf/mid keras exact lab"}], replace=True)


def test_scores_may_use_any_name(index: ZooIndex) -> None:
    known = next(row for row in index.rows["scores"] if row.checkpoint == "org/mid")  # type: ignore[attr-defined]
    assert index.add_scores([known.model_copy(update={"checkpoint": "hf/mid"})]).rows == index.rows


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("transformers", {"org/mid": "hf/mid", "org/hf": "org/hf", "org/small": "org/small", "org/huge": "org/huge"}),
        ("timm", {"org/mid": "org/mid", "org/hf": "timm/hf", "org/small": "org/small"}),
    ],
)
def test_the_library_decides_the_name(index: ZooIndex, library: str, names: dict[str, str]) -> None:
    """transformers loads timm's checkpoints through its wrapper; a twin that is only likely is not named."""
    ranking = select_backbone(embedding(9), index=index, library=library, top_k=20)
    plain = select_backbone(embedding(9), index=index, top_k=20)
    found = {index.names[candidate.hub_id]: candidate for candidate in ranking}
    for hub_id, name in names.items():
        assert found[hub_id].hub_id == name
        assert found[hub_id].score == next(c.score for c in plain if c.hub_id == hub_id)
        assert found[hub_id].evidence == next(c.evidence for c in plain if c.hub_id == hub_id)
    assert ranking.provenance["index"] == plain.provenance["index"]


def test_candidates_are_called_as_they_were_asked_for(index: ZooIndex) -> None:
    asked = ["mirror/mid", "org/small", UNSCORED]
    ranking = select_backbone(embedding(9), index=index, candidates=asked)
    assert {candidate.hub_id for candidate in ranking} == set(asked)
    mid = next(candidate for candidate in ranking if candidate.hub_id == "mirror/mid")
    assert set(mid.aliases) == {"org/mid", "hf/mid"}
    assert ranking.explain("hf/mid").hub_id == "mirror/mid"
    assert set(Constraints(candidates=("mirror/mid",)).eligible(index)["hub_id"]) == {"org/mid"}
