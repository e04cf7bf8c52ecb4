"""What the documentation says: its links lead somewhere, names and modules exist, figures are those measured."""

from __future__ import annotations

import re

import pytest

from tests.support.doc_blocks import PAGES, ROOT


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page} links to {target}"


def test_names_of_the_documentation_are_those_of_the_package() -> None:
    import hf_task2vec

    public = set(hf_task2vec.__all__)
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/index.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == public - {"__version__"}
    reference = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    prefix = r"(?:hf_task2vec\.(?:embedding\.distance\.)?)?"
    described = set(re.findall(rf"^\.\. (?:auto\w+|py:data):: {prefix}(\w+)$", reference, re.MULTILINE))
    assert described == public | {"errors"}


def test_modules_named_in_the_method_exist() -> None:
    text = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(modules) > 5
    assert [module for module in modules if not any((ROOT / at / module).is_file() for at in ("hf_task2vec", ""))] == []


def test_measured_figures_are_those_of_the_raw_outputs() -> None:
    from benchmarks.docs.tables import PAGES as WITH_FIGURES
    from benchmarks.docs.tables import macros, stale

    assert not stale(), "run: python -m benchmarks.docs.tables"
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in WITH_FIGURES]
    assert {name for text in texts for name in re.findall(r"<!-- figures: ([\w-]+),", text)} == set(macros())


@pytest.mark.parametrize(
    "name", ["tutorial", "questions", "comparison", "method", "own-index", "own-cases", "own-probe"]
)
def test_no_measured_figure_is_typed_by_hand(name: str) -> None:
    """Shares and points stand in generated blocks only; what a word like "80 % interval" names is no figure."""
    text = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    text = re.sub(r"<!-- figures: .*?<!-- end of figures -->|^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    typed = re.findall(r".{20}(?<!near )\b\d[\d.,]* ?(?:%|points|times)(?! intervals?).{0,20}", text)
    assert not typed


def test_the_picture_of_the_rooms_is_drawn_from_the_imports() -> None:
    pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    from benchmarks.docs.architecture import PICTURE, draw, rooms

    assert PICTURE.read_text(encoding="utf-8") == draw(rooms()), "run python -m benchmarks.docs.architecture"
