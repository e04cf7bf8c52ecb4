"""Tasks of the class trees' nodes, and their embeddings. Part of ``relations.py``.

A node is a set of classes of one dataset, and its task is to tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from properties_tasks import Rows, embedded, task_of
from relations_trees import TREES, Tree
from tqdm import tqdm

from hf_task2vec.embedding.task_embedding import TaskEmbedding
from hf_task2vec.files import sha256_bytes
from hf_task2vec.probes.probe import Probe

#: Nodes with fewer images in a half are left out.
LEAST_IMAGES = 10


@dataclass(frozen=True)
class Node:
    """A task of a tree.

    Attributes
    ----------
    tree, name
        Name of the tree, and of the node in it.
    cells
        Pairs of source and class: one node contains another if it has all its cells and more.
    """

    tree: str
    name: str
    cells: frozenset[tuple[str, str]]


def nodes_of(name: str, classes: Mapping[str, Sequence[str]]) -> list[Node]:
    """Return the nodes of a tree with at least two classes; `classes` holds those of each source.

    Branches of the same classes are one node.
    """
    tree = TREES[name]
    found: dict[frozenset[tuple[str, str]], str] = {}
    for branch, members in (_pacs(classes) if name == "pacs" else _branches(tree, classes)).items():
        if len({label for _, label in members}) >= 2:
            found.setdefault(frozenset(members), branch)
    return [Node(name, branch, cells) for cells, branch in found.items()]


def _branches(tree: Tree, classes: Mapping[str, Sequence[str]]) -> dict[str, set[tuple[str, str]]]:
    known = sorted({label for labels in classes.values() for label in labels})
    found: dict[str, set[tuple[str, str]]] = {}
    for branch, text in tree.branches.items():
        parts = branch.split("/") if branch else []
        listed = [x for x in known if x.startswith(parts[-1])] if text == "*" else [x.strip() for x in text.split(";")]
        if missing := sorted(set(listed) - set(known)):
            raise ValueError(f"{', '.join(tree.sources)} have no classes {missing}")
        for depth in range(len(parts) + 1):
            found.setdefault("/".join(parts[:depth]) or "all", set()).update(("", label) for label in listed)
    return found


def _pacs(classes: Mapping[str, Sequence[str]]) -> dict[str, set[tuple[str, str]]]:
    """Two hierarchies at once: what is shown, and how."""
    domains = {name.removeprefix("pacs_"): (name,) for name in classes}
    domains |= {"all": tuple(classes), "drawn": ("pacs_cartoon", "pacs_sketch")}
    kinds = {"all": ("dog", "elephant", "giraffe", "guitar", "horse", "house")}
    kinds |= {"animal": ("dog", "elephant", "giraffe", "horse"), "thing": ("guitar", "house")}
    return {f"{domain}/{kind}": set(product(domains[domain], kinds[kind])) for domain, kind in product(domains, kinds)}


@dataclass(frozen=True)
class Half:
    """Images of one tree, none of which the other half holds."""

    images: list[bytes]
    cells: list[tuple[str, str]]

    def rows(self, node: Node) -> list[int]:
        """Positions of the node's images."""
        return [i for i, cell in enumerate(self.cells) if cell in node.cells]


def halves(name: str, *, seed: int = 0) -> tuple[tuple[Half, Half], list[Node]]:
    """Read a tree's images, share each class's among two halves, and return the nodes with enough images in both."""
    images: dict[str, tuple[bytes, tuple[str, str]]] = {}
    classes: dict[str, list[str]] = {}
    for source in TREES[name].sources:
        rows = Rows.of(source, splits=("train", "test"))
        classes[source] = sorted(set(rows.labels))
        for image, label in zip(rows.images, rows.labels, strict=True):  # sources may share images
            images.setdefault(sha256_bytes(image), (image, (source if name == "pacs" else "", label)))
    sides: tuple[list[int], list[int]] = ([], [])
    pool = list(images.values())
    order = np.random.default_rng(seed).permutation(len(pool)).tolist()
    for i, at in enumerate(sorted(order, key=lambda at: pool[at][1])):  # stable: random within a class
        sides[i % 2].append(at)
    both = tuple(Half([pool[i][0] for i in side], [pool[i][1] for i in side]) for side in sides)
    nodes = [n for n in nodes_of(name, classes) if min(len(half.rows(n)) for half in both) >= LEAST_IMAGES]
    return (both[0], both[1]), nodes


def embed_nodes(
    names: Sequence[str], probe: Probe, cache: Path, *, images: int
) -> tuple[list[Node], list[TaskEmbedding], list[TaskEmbedding]]:
    """Embed the nodes of trees twice, from disjoint halves of the images: as general tasks, and as special ones."""
    nodes: list[Node] = []
    sides: tuple[list[TaskEmbedding], list[TaskEmbedding]] = ([], [])
    for name in tqdm(names, desc="trees"):
        both, found = halves(name)
        for node in tqdm(found, desc=name, leave=False):
            nodes.append(node)
            for half, side, which in zip(both, sides, ("general", "special"), strict=True):
                rows = half.rows(node)
                labels = [half.cells[i][1] for i in rows]
                title = f"{node.tree}/{node.name} {which}"
                task = task_of(title, [half.images[i] for i in rows], labels, images)
                side.append(embedded(task, probe, cache))
    return nodes, *sides
