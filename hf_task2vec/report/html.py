"""HTML pages that need nothing else: no network, no other file, no program but a browser.

A page forbids itself everything but its own style and script (by their hashes) and the images it holds. Names of
datasets, classes, files and checkpoints come from elsewhere: the templates escape whatever they print.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

from hf_task2vec.hub import without_tokens

_LONGEST_TEXT = 2000


def render_page(template: str, *, styles: tuple[str, ...], scripts: tuple[str, ...] = (), **context: Any) -> str:
    """Return the page of a template that extends ``page.html.j2``, with its styles and scripts inline."""
    from markupsafe import Markup

    from hf_task2vec import __version__

    style, script = (Markup("".join(map(_read, names))) for names in (styles, scripts))
    return render(
        template,
        style=style,
        script=script,
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        version=__version__,
        **context,
    )


def render_part(template: str, *, style: str, **context: Any) -> str:
    """Return a part of somebody else's page, with its style inline."""
    from markupsafe import Markup

    return render(template, style=Markup(_read(style)), **context)


def render(template: str, **context: Any) -> str:
    """Return a template filled in."""
    from huggingface_hub import get_token
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    login = get_token()

    def printable(value: object) -> str:
        """No token of the user, no sign that could turn a line round, and not too much of it."""
        text = "".join(c if c.isprintable() or c == "\n" else " " for c in without_tokens(str(value), login))
        return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"

    def breakable(text: str) -> Markup:  # where an id may go on in the next line
        return Markup(re.sub(r"([/._])", r"\1<wbr>", str(Markup.escape(printable(text)))))

    environment = Environment(
        loader=PackageLoader("hf_task2vec.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    environment.filters["breakable"] = breakable
    environment.filters["capitalized"] = lambda text: text[:1].upper() + text[1:] if text.islower() else text
    return environment.get_template(template).render(**context)


def _read(name: str) -> str:
    return (files("hf_task2vec.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a content security policy calls a text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
