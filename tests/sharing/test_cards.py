"""Cards: metadata, nearest tasks, and text of users that must stay text."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_task2vec.sharing.cards import card_metadata, embedding_card, escape, index_card, nearest_tasks
from hf_task2vec.zoo.index import ZooIndex
from tests.support.synthetic import TINY, embedding, zoo

#: The signs that HTML, Markdown, YAML and Jinja give a meaning to, and some that hide text.
HOSTILE = (
    "<script>alert(1)</script> [x](http://evil.example) ![i](x.png) `c` **b** | a _b_ {{ 7*7 }} {% x %} "
    "www.evil.example\n---\n# H\n\u202e"
)
MARKDOWN = MarkdownIt("default", {"html": True})


def html(text: str) -> str:
    """Render a card as a page would, without its metadata."""
    return MARKDOWN.render(text.split("\n---\n", 1)[1])


def card_of(what: Any, license: str | None = None, **metadata: Any) -> str:  # noqa: A002
    return embedding_card("org/name", what, zoo(), license, metadata)


def test_card_of_an_embedding() -> None:
    text = card_of(embedding(), "mit")
    metadata = card_metadata(text)
    assert metadata["tags"][:2] == ["task2vec", "org--tiny-probe"]
    assert metadata["license"] == "mit"
    assert metadata["task2vec"] == {"kind": "embedding", "dataset": "task0", "probe": TINY, "n_classes": 3}
    page = html(text)
    assert '<td>linear_probe_accuracy</td>\n<td style="text-align:right">0.6</td>' in page
    assert "<td>classes</td>\n<td>3: é, b</td>" in page
    assert "TaskEmbedding.from_pretrained(&quot;org/name&quot;)" in page
    assert "arxiv.org/abs/1902.03545" in page
    assert "@inproceedings{achille2019task2vec" in page
    assert page.count("<td>task") == 5  # its own and four
    assert page.count("<table>") == 3


def test_what_an_older_card_says_is_kept() -> None:
    old = {"license": "cc0-1.0", "language": ["en"], "tags": ["mine", "task2vec"], "task2vec": {"kind": "old"}}
    metadata = card_metadata(card_of(embedding(), **old))
    assert (metadata["license"], metadata["language"]) == ("cc0-1.0", ["en"])
    assert metadata["tags"].count("task2vec") == 1
    assert "mine" in metadata["tags"]
    assert metadata["task2vec"]["kind"] == "embedding"


def test_text_of_users_stays_text() -> None:
    probe = {"name": f"p{HOSTILE}", "weights_hash": "ab" * 32}
    hostile = embedding(task={"dataset": HOSTILE, "label_names": [HOSTILE, "b"], "revision": HOSTILE}, probe=probe)
    text = card_of(hostile)
    page = html(text)
    assert "<script" not in page
    assert 'href="http://evil' not in page
    assert 'href="http://www.evil' not in page
    assert "<img" not in page
    assert page.count("<h1>") == 1
    assert "{{ 7*7 }}" in page
    assert "\u202e" not in page
    assert page.count("<table>") == html(card_of(embedding())).count("<table>")
    assert card_metadata(text)["task2vec"]["dataset"] == HOSTILE
    assert yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))["task2vec"]["dataset"] == HOSTILE


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_escaped_text_is_shown_as_it_is_and_long_text_cut(text: str) -> None:
    assert escape("a" * 1000) == "a" * 299 + "…"
    plain = " ".join("".join(c if c.isprintable() or c.isspace() else " " for c in text).split())
    for source in (f"x {escape(text)} x", f"| a |\n|---|\n| x {escape(text)} x |"):
        tokens = MARKDOWN.parse(source)
        inline = [child for token in tokens for child in token.children or () if token.type == "inline"]
        assert {child.type for child in inline} <= {"text", "text_special", "softbreak"}, inline
    if plain == text:
        (inline_only,) = (t for t in MARKDOWN.parse(f"x {escape(text)} x") if t.type == "inline")
        shown = "".join(child.content for child in inline_only.children or ())
        assert " ".join(shown.split()) == " ".join(f"x {plain} x".split())


@pytest.mark.parametrize("index", [zoo(), ZooIndex.load()], ids=["small", "shipped"])
def test_card_of_an_index(index: ZooIndex) -> None:
    text = index_card("org/index", index, None, {})
    metadata = card_metadata(text)
    assert metadata["tags"][:2] == ["task2vec", "task2vec-index"]
    assert metadata["task2vec"]["kind"] == "index"
    assert {c["config_name"]: c["data_files"] for c in metadata["configs"]}["scores"] == "scores.csv"
    page = html(text)
    assert f"Facts about {len(index.rows['checkpoints']):,} image checkpoints" in page
    for row in index.rows["sources"]:
        assert f"<td>{row.repo}</td>" in unescape(page)  # type: ignore[attr-defined]
    assert page.count("<table>") == 2
    assert page.count("<tr>") == 2 + 4 + 1 + len(index.rows["sources"])
    assert "ZooIndex.from_pretrained(&quot;org/index&quot;)" in page


@pytest.mark.parametrize("text", ["", "# none", "---\n: [\n---\n", "---\n- a\n---\n", "---\ntags: task2vec\n---\n\0"])
def test_a_card_that_says_nothing_of_ours(text: str) -> None:
    assert "task2vec" not in card_metadata(text)


def test_nearest_tasks() -> None:
    near = nearest_tasks(embedding(2), zoo())
    assert near[0] == ("task1", pytest.approx(0, abs=1e-9))  # made of the same seed
    assert [distance for _, distance in near] == sorted(distance for _, distance in near)
    assert len(near) == 4
    assert nearest_tasks(embedding(weights_hash="cd" * 32), zoo()) == []
    assert "Nearest reference tasks" not in card_of(embedding(weights_hash="cd" * 32))
