"""Names in signatures and docstrings: linked where the site documents them, plain where they exist, else a warning.

The public classes are documented as ``hf_task2vec.Probe``, while annotations say ``Probe`` or
``hf_task2vec.probes.probe.Probe``; others name types of other libraries, whose pages are not linked, or of our own
modules. A name that is found nowhere in the package is a slip, and Sphinx warns about it.
"""

from __future__ import annotations

import ast
import builtins
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hf_task2vec

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment


@cache
def names() -> frozenset[str]:
    """Return every name that a module of the package defines or imports, modules themselves included."""
    found = set(dir(builtins))
    for path in Path(hf_task2vec.__file__).parent.rglob("*.py"):
        found.add(path.parent.name if path.stem == "__init__" else path.stem)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.alias):
                found.add((node.asname or node.name).rpartition(".")[2])
            elif isinstance(node, ast.Name | ast.Attribute):
                found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return frozenset(found)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element) -> nodes.Element | None:
    """Link a public name, show any other that exists (the event ``missing-reference``)."""
    if node.get("refdomain") != "py":
        return None
    *_, holder, name = ["", *node["reftarget"].split(".")]
    for public in (name, f"{holder}.{name}"):
        target = f"{hf_task2vec.__name__}.{public}"
        domain = env.domains.python_domain
        if target in domain.objects and target != node["reftarget"]:
            link = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, shown)
            if link is not None:
                return link
    return shown if name in names() else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the hook."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True}
