"""Tasks of the class trees' nodes, and their embeddings. Part of ``containment.py``.

A node is a set of classes of one dataset, and its task is to tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from tqdm import tqdm

from benchmarks.class_trees import TREES, Tree
from benchmarks.properties.samples import Rows, task_of
from hf_task2vec import Probe, TaskEmbedding
from hf_task2vec.embedding.cache import cached_embedding
from hf_task2vec.files import sha256_bytes

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
    found: dict[frozenset[tuple[str, str]], str] = {}
    for branch, cells in (_pacs(classes) if name == "pacs" else _branches(TREES[name], classes)).items():
        if len({label for _, label in cells}) >= 2:
            found.setdefault(frozenset(cells), branch)
    return [Node(name, branch, cells) for cells, branch in found.items()]


def _branches(tree: Tree, classes: Mapping[str, Sequence[str]]) -> dict[str, set[tuple[str, str]]]:
    known = sorted({label for labels in classes.values() for label in labels})
    found: dict[str, set[tuple[str, str]]] = {}
    for branch, listed in tree.branches.items():
        parts = branch.split("/") if branch else []
        if listed == ("*",):
            listed = tuple(label for label in known if label.startswith(parts[-1]))
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

    def embed(self, node: Node, title: str, images: int, probe: Probe) -> TaskEmbedding:
        """Embed a node's task from some of its images here."""
        rows = self.rows(node)
        task = task_of(title, [self.images[i] for i in rows], [self.cells[i][1] for i in rows], images)
        return cached_embedding(task, probe)

    def rows(self, node: Node) -> list[int]:
        """Positions of the node's images."""
        return [i for i, cell in enumerate(self.cells) if cell in node.cells]


def halves(name: str, *, seed: int = 0) -> tuple[tuple[Half, Half], list[Node]]:
    """Read a tree's images, share each class's among two halves, and return the nodes with enough images in both."""
    images: dict[str, tuple[bytes, tuple[str, str]]] = {}
    classes: dict[str, list[str]] = {}
    for source in TREES[name].sources:
        rows = Rows.of(source)
        classes[source] = sorted(set(rows.labels))
        for image, label in zip(rows.images, rows.labels, strict=True):  # sources may share images
            images.setdefault(sha256_bytes(image), (image, (source if name == "pacs" else "", label)))
    pool = list(images.values())
    order = np.random.default_rng(seed).permutation(len(pool)).tolist()
    order.sort(key=lambda i: pool[i][1])  # stable: random within a class
    first, second = (Half([pool[i][0] for i in side], [pool[i][1] for i in side]) for side in (order[::2], order[1::2]))
    enough = [n for n in nodes_of(name, classes) if min(len(h.rows(n)) for h in (first, second)) >= LEAST_IMAGES]
    return (first, second), enough


def embed_nodes(
    trees: Sequence[str], probe: Probe, *, images: int
) -> tuple[list[Node], list[TaskEmbedding], list[TaskEmbedding]]:
    """Embed the nodes of trees twice, from disjoint halves of the images: as general tasks, and as special ones."""
    nodes: list[Node] = []
    general: list[TaskEmbedding] = []
    special: list[TaskEmbedding] = []
    for tree in tqdm(trees, desc="trees"):
        (first, second), found = halves(tree)
        for node in tqdm(found, desc=tree, leave=False):
            nodes.append(node)
            general.append(first.embed(node, f"{tree}/{node.name} general", images, probe))
            special.append(second.embed(node, f"{tree}/{node.name} special", images, probe))
    return nodes, general, special
