"""The documentation site: it builds without a warning, shows what it promises, and a browser shows it well."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest

from tests.support.doc_blocks import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in a process of its own as `sphinx-build -W` does in CI."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html", "-d", str(out / "trees")]
    result = subprocess.run([*command, str(DOCS), str(out / "html")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr.strip()
    return out / "html"


class _Page(HTMLParser):
    """Identifiers, links and resources of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids.add(found.get("id") or "")
        self.targets += [value for key in ("href", "src") if (value := found.get(key))]


def text(path: Path) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", path.read_text(encoding="utf-8")).split())


def test_links_within_the_site(site: Path) -> None:
    pages = {path.name: _Page(path) for path in site.glob("*.html")}
    for name, page in pages.items():
        for target in page.targets:
            if re.match(r"[a-z]+:|#$|$", target):
                continue
            path, _, anchor = target.partition("#")
            path = path.partition("?")[0]
            assert not path or (site / path).exists(), f"{name} links to {target}"
            if anchor and (path or name) in pages:
                assert anchor in pages[path or name].ids, f"{name} links to {target}"


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in site.glob("*.html"):
        html = path.read_text(encoding="utf-8")
        assert not re.findall(r'(?:<script[^>]*src|<link[^>]*href|<img[^>]*src)="https?://[^"]*"', html), path.name


def test_the_command_line_is_described(site: Path) -> None:
    from hf_task2vec.cli.commands import cli

    shown = text(site / "commands.html")

    def check(command: click.Command, path: str) -> None:
        assert path in shown
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert any(name in shown for name in parameter.opts), f"{path} {parameter.opts}"
        for name, child in getattr(command, "commands", {}).items():
            check(child, f"{path} {name}")

    check(cli, "hf-task2vec")


def test_files_of_the_repository_are_shown(site: Path) -> None:
    assert "Add a checkpoint" in text(site / "contributing.html")
    assert "Keep a Changelog" in text(site / "changelog.html")
    assert "checkpoints.csv" in text(site / "zoo_index.html")
    assert "commands.py" in text(site / "measured.html")


# ---------------------------------------------------------------------- in a browser


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_pages_fit_the_window(site: Path, browser: Any, width: int, scheme: str) -> None:
    """No page is wider than the window, every picture is there, and no script fails."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    for path in sorted(site.glob("*.html")):
        if path.stem in ("search", "genindex", "py-modindex"):
            continue
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > width:
            problems.append(f"{path.name} is {page.evaluate('document.documentElement.scrollWidth')} px wide")
        broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
        problems += [f"{path.name} lacks {source}" for source in broken]
    context.close()
    assert not problems
