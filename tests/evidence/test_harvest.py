"""Harvesting the cards of a Hub: what is found, what is asked for, and what becomes of trouble."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hf_task2vec.errors import HubError, HubUnavailableError, ZooIndexError
from hf_task2vec.evidence.harvest import Harvest, harvest
from hf_task2vec.zoo.index import ZooIndex
from hf_task2vec.zoo.schema import HUB_CARDS
from tests.support.cards import BASE, DATA, FORMS, HOSTILE, LEAVES, index, readme, trainer
from tests.support.cli_stub import run
from tests.support.hub import HubServer
from tests.support.synthetic import zoo

OTHER = "timm/vit_small_16.orig_ft"
FACTS = {"library": "timm", "architecture": "net", "family": "net", "facts_source": "lab"}
CARDS = r"/resolve/.*README"


@pytest.fixture(scope="module")
def base_index() -> ZooIndex:
    return zoo().add_checkpoints([{**FACTS, "hub_id": hub_id} for hub_id in (BASE, OTHER)])


def plant(hub: HubServer, repository: str, card: str, **settings: Any) -> str:
    text = card if card.startswith("---") else f"---\n{{}}\n---\n{card}"
    head, tag = text.partition("\n---\n")[0], "\npipeline_tag: image-classification"
    text = text if "{}" in head or "[[[" in head else text.replace(head, head + tag, 1)
    return hub.create_model(repository, {"README.md": text.encode()}, **settings)


@pytest.fixture
def classifiers(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """Every model of this Hub is an image classifier, whatever its card says."""
    from tests.support.hub import views

    whole = views.repo_info

    def repo_info(repo: Any, commit: Any, **options: Any) -> Any:
        return whole(repo, commit, **options) | {"pipeline_tag": "image-classification"}

    monkeypatch.setattr(views, "repo_info", repo_info)
    return hub


def few(hub: HubServer) -> None:
    """Plant ten repositories, of which every other one has to be read by itself."""
    for i in range(10):
        text = trainer(bullets=f"- Accuracy: 0.7{i}\n") if i % 2 else ""
        metadata = {"base_model": BASE, "datasets": [f"acme/data{i}"]}
        plant(
            hub,
            f"user{i}/net",
            readme(text, **metadata, **({} if text else {"model_index": index(0.8 + i / 1000, **LEAVES)})),
        )
    hub.page_size = 4
    hub.forget_requests()


def found(result: Harvest) -> set[tuple[str, float]]:
    return {(str(row.source_model), row.score) for row in result.index.score_rows if row.source == HUB_CARDS}


def test_exactly_what_was_planted_is_found(classifiers: HubServer, base_index: ZooIndex, tmp_path: Path) -> None:
    forms = [form for form in FORMS if not form.name.startswith("A7")]
    want, reasons = dict[str, Any](), Counter[str]()
    for i in range(300):
        form = forms[i % len(forms)]
        repository = f"user{i}/{form.repository.partition('/')[2]}"
        classifiers.create_model(repository, {"README.md": form.card.encode()})
        if isinstance(form.expected, str) or form.tags:  # the loopback Hub makes tags of cards only
            reasons["no base" if form.tags else str(form.expected)] += 1
        else:
            want[repository] = [dict(one) for one in form.expected]
    classifiers.page_size = 50
    classifiers.forget_requests()
    result = harvest(base_index, state=tmp_path / "state")
    lines = [json.loads(line)["seen"] for line in (tmp_path / "state").read_text().splitlines()]
    stated = {name: seen["found"] for line in lines for name, seen in line.items() if "found" in seen}
    assert stated.keys() == want.keys()
    for name, expected in want.items():
        ours = [
            {key: one.get(key, "full" if key == "method" else None) for key in w}
            for one, w in zip(stated[name], expected, strict=True)
        ]
        assert ours == expected, name
    assert (result.listed, result.finished) == (300, True)
    assert result.outcomes == sum(map(len, want.values()))
    left_out = {reason: n for reason, n in result.skipped.items() if any(part in reason for part in reasons)}
    assert sum(left_out.values()) == sum(reasons.values())
    assert len(classifiers.requested(r"^/api/models\?")) == 6
    assert 0 < len(classifiers.requested(CARDS)) == result.cards < 200  # where the list lacks something
    assert result.index.validate() == []


def test_what_was_seen_is_not_asked_for_again(classifiers: HubServer, base_index: ZooIndex, tmp_path: Path) -> None:
    few(classifiers)
    first = harvest(base_index, state=tmp_path / "state")
    assert (len(found(first)), first.cards, len(first.tasks)) == (10, 5, 10)
    classifiers.repo("user1/net").commit({"README.md": readme(trainer(), base_model=BASE, datasets=[DATA]).encode()})
    classifiers.forget_requests()
    again = harvest(first.index, state=tmp_path / "state", since="2026-01-01")
    assert len(classifiers.requested(CARDS)) == 1
    assert again.rows == 1  # the new card's; the old one's is another measurement
    assert ("user1/net", 0.9211) in found(again)
    classifiers.forget_requests()
    assert harvest(again.index, state=tmp_path / "state", since="2027-01-01").rows == 0
    assert len(classifiers.requests) == 1


def test_it_goes_on_after_an_interruption_at_any_request(
    classifiers: HubServer, base_index: ZooIndex, tmp_path: Path, retry_sleeps: list[float]
) -> None:
    few(classifiers)
    plant(classifiers, "user10/net", readme(trainer("user11/tuned"), datasets=[DATA]))
    classifiers.create_model("user11/tuned", {"README.md": readme(trainer()).encode()}, private=True)
    whole = harvest(base_index, state=tmp_path / "whole")
    requests = len(classifiers.requests)
    assert requests > 8
    for count in range(requests):
        classifiers.forget_requests()
        classifiers.inject(status=503, times=None, skip=count, pattern="^/(api/models|user)")
        with suppress(HubUnavailableError):  # one card that cannot be had ends nothing
            assert harvest(base_index, state=tmp_path / f"{count}").skipped.get("not yet read")
        classifiers.faults.clear()
        result = harvest(base_index, state=tmp_path / f"{count}")
        assert found(result) == found(whole)
        answered = Counter(entry.path for entry in classifiers.requests if entry.status == 200)
        assert max(answered.values()) == 1, answered


@pytest.mark.parametrize("pattern", [r"^/api/models\?", CARDS], ids=["list", "card"])
@pytest.mark.parametrize(
    "fault",
    [{"status": 429, "headers": {"Retry-After": "7"}}, {"status": 503}, {"reset": True}, {"cut": True}],
    ids=["429", "503", "reset", "cut"],
)
def test_trouble_that_passes(
    classifiers: HubServer,
    hub_fault: Callable[..., Any],
    base_index: ZooIndex,
    tmp_path: Path,
    retry_sleeps: list[float],
    pattern: str,
    fault: dict[str, Any],
) -> None:
    few(classifiers)
    hub_fault(pattern=pattern, **fault)
    assert len(found(harvest(base_index, state=tmp_path / "state"))) == 10
    assert (7.0 if "headers" in fault else 1.0) in retry_sleeps


def test_cards_that_cannot_be_had_are_counted(
    classifiers: HubServer, base_index: ZooIndex, tmp_path: Path, retry_sleeps: list[float]
) -> None:
    few(classifiers)
    for name, fault in {
        "user1": {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}},
        "user3": {"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}},
    }.items():
        classifiers.inject(pattern=f"^/{name}/", times=None, **fault)
    plant(classifiers, "alice/secret", readme(base_model=BASE, model_index=index(**LEAVES)), private=True)
    result = harvest(base_index, state=tmp_path / "state", token=classifiers.tokens.read)
    assert len(found(result)) == 8
    assert result.skipped == {"no access": 1, "no card": 1, "private": 1}
    classifiers.inject(pattern="^/api/models", status=429, times=None, headers={"Retry-After": "3600"})
    with pytest.raises(HubUnavailableError, match="Try again in 3600 s"):
        harvest(base_index, state=tmp_path / "state")


def test_hostile_cards_and_lists(classifiers: HubServer, base_index: ZooIndex, tmp_path: Path) -> None:
    for i, text in enumerate(HOSTILE.values()):
        classifiers.create_model(f"user{i}/net", {"README.md": text.encode()})
    result = harvest(base_index, state=tmp_path / "state")
    assert (result.outcomes, result.listed) == (0, len(HOSTILE))
    assert sum(result.skipped.values()) == len(HOSTILE)
    assert max(entry.bytes_sent for entry in classifiers.requests) < 8 << 20


@pytest.mark.parametrize(
    "answer",
    [
        [None, 3, {"id": 3}, {"id": "../../x"}, {"id": "a/.."}, {"id": "a/b", "cardData": [], "tags": 7, "sha": "../"}],
        {"error": "no list"},
    ],
    ids=["items", "no list"],
)
def test_lists_that_are_none(
    hub: HubServer, base_index: ZooIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    from hf_task2vec.hub.client import HubSession

    def get(self: Any, action: str, address: str, read: Any, *, most: int) -> Any:
        return read(json.dumps(answer if "listing" in action else {}).encode()), None

    monkeypatch.setattr(HubSession, "get", get)
    if isinstance(answer, dict):
        with pytest.raises(HubError, match="no list of models"):
            harvest(base_index, state=tmp_path / "state")
        return
    assert harvest(base_index, state=tmp_path / "state").outcomes == 0


def test_a_list_that_leads_elsewhere_is_not_followed(
    classifiers: HubServer, base_index: ZooIndex, tmp_path: Path
) -> None:
    few(classifiers)
    link = {"Link": '<http://127.0.0.2/api/models?cursor=4>; rel="next"'}
    classifiers.inject(pattern=r"^/api/models\?(?!.*cursor)", headers=link, times=None)
    with pytest.raises(HubError, match=r"another place \(http://127\.0\.0\.2/api/models\)"):
        harvest(base_index, state=tmp_path / "state", token=classifiers.tokens.read)


def test_bases_are_followed_through_chains(classifiers: HubServer, base_index: ZooIndex, tmp_path: Path) -> None:
    for name, base in (("a/one", BASE), ("b/two", "a/one"), ("c/three", "b/two"), ("d/loop", "d/pool")):
        card = readme(base_model=base, datasets=[DATA], model_index=index(**LEAVES))
        plant(classifiers, name, card, private=name == "a/one")
    classifiers.create_model("d/pool", {"README.md": readme(base_model="d/loop").encode()})
    plant(classifiers, "e/short", readme(base_model="vit-base-16", datasets=[DATA], model_index=index(**LEAVES)))
    classifiers.repo("a/one").private = False
    result = harvest(base_index, state=tmp_path / "state", query="author:c")
    rows = {row.source_model: row for row in result.index.score_rows if row.source == HUB_CARDS}
    assert rows.keys() == {"c/three", "b/two", "a/one"}
    assert [rows[name].checkpoint_match for name in sorted(rows)] == ["exact", "likely", "likely"]
    assert {(row.checkpoint, row.split) for row in rows.values()} == {(BASE, "held_out")}
    assert rows["c/three"].address == f"{classifiers.endpoint}/c/three/blob/{classifiers.repo('c/three').sha}/README.md"
    everything = harvest(base_index, state=tmp_path / "all")
    assert {name for name, _ in found(everything)} == {"a/one", "b/two", "c/three", "e/short"}
    assert everything.skipped["a base that the index does not know"] == 1


def test_no_more_than_asked_for_is_looked_at(classifiers: HubServer, base_index: ZooIndex, tmp_path: Path) -> None:
    few(classifiers)
    part = harvest(base_index, state=tmp_path / "state", max_repositories=3)
    assert (part.listed, part.finished) == (3, False)
    more = harvest(base_index, state=tmp_path / "state", max_repositories=3)
    assert (more.listed, more.finished) == (6, False)
    assert harvest(base_index, state=tmp_path / "state").finished


def test_no_output_holds_a_token(
    classifiers: HubServer, own_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = classifiers.tokens.read
    caplog.set_level(logging.DEBUG)
    leaked = readme(base_model=BASE, datasets=[f"acme/{token}"], model_index=index(**LEAVES))
    plant(classifiers, "user/net", leaked)
    base = zoo().add_checkpoints([{**FACTS, "hub_id": BASE}])
    base.save(tmp_path / "index")
    answer = run("index", "harvest", str(tmp_path / "index"), "--token", token, "--json")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["outcomes"] == 1
    written = [path.read_bytes() for path in (*own_cache.rglob("*"), *tmp_path.rglob("*")) if path.is_file()]
    assert not any(token.encode() in data for data in written)
    assert token not in answer.output + caplog.text


def test_the_command(classifiers: HubServer, own_cache: Path, tmp_path: Path) -> None:
    few(classifiers)
    folder = tmp_path / "index"
    zoo().add_checkpoints([{**FACTS, "hub_id": BASE}]).save(folder)
    answer = run("index", "harvest", str(folder), "--max", "4")
    assert answer.exit_code == 0, answer.output
    assert len([row for row in ZooIndex.load(folder).score_rows if row.source == HUB_CARDS]) == 4
    assert run("index", "harvest", str(folder), "--since", "yesterday").exit_code != 0
    assert run("index", "harvest", str(folder), "--max", "4").exit_code == 0  # goes on
    assert len([row for row in ZooIndex.load(folder).score_rows if row.source == HUB_CARDS]) == 8


def test_a_state_that_is_none(base_index: ZooIndex, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("# no state\n")
    with pytest.raises(ZooIndexError, match="holds no state of a harvest"):
        harvest(base_index, state=tmp_path / "state")
    with pytest.raises(ZooIndexError, match="YYYY-MM-DD"):
        harvest(base_index, state=tmp_path / "new", since="1.1.2026")
