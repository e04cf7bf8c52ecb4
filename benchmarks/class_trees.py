"""Class trees of shared tasks: class_trees.json, and what a branch holds.

The superclasses follow the datasets' makers (CIFAR-100, Grocery Store, traffic signs by legal kind, Omniglot's
alphabets) or plain knowledge (WordNet's hypernyms, shortened; families of scripts; Old and New World monkeys).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tree:
    """Classes of one dataset below branches.

    Attributes
    ----------
    sources
        Shared tasks whose rows are pooled.
    branches
        By branch, such as ``"living/animal"``: the classes that hang there (``*`` for all whose name begins with the
        branch's last part). The branches above one are nodes as well, and so is the root, ``""``.
    """

    sources: tuple[str, ...]
    branches: Mapping[str, tuple[str, ...]]


def _read() -> dict[str, Tree]:
    document = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return {
        name: Tree(tuple(tree["sources"]), {branch: tuple(classes) for branch, classes in tree["branches"].items()})
        for name, tree in document.items()
    }


TREES = _read()
