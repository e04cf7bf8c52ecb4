"""What the tests of HTML pages share: a page taken apart, hostile names, and contrast in a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

SCRIPT = "<script>document.title='broken'</script>"
QUOTED = '"><img src=x onerror="document.title=\'broken\'">'
CLOSING = "</title></svg></style>'{{ 7*7 }}\u202e"


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.source = page
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._within = ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_self_contained(page: Page) -> None:
    """Nothing is loaded from elsewhere, nothing foreign may run, and the structure can be read aloud."""
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "data", "poster", "action", "background"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        if tag != "a":
            assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
        assert "style" not in attributes  # the page's own policy would ignore it
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", page.source)
    assert not page.all("link")
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert all(attributes.get("alt") for attributes in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
        if (attributes.get("href") or "").startswith("#"):
            assert str(attributes["href"])[1:] in ids


#: JavaScript: by how much an element stands out from what is behind it (WCAG 2).
CONTRAST = """(element) => {
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((x) => x / 255)
            .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let behind = element;
    const opaque = (node) => !/rgba\\(.*, 0\\)|color\\(/.test(getComputedStyle(node).backgroundColor);
    while (behind.parentElement && !opaque(behind)) behind = behind.parentElement;
    const style = getComputedStyle(element);
    const [a, b] = [light(element.closest("svg") ? style.fill : style.color),
        light(getComputedStyle(behind).backgroundColor)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
}"""
