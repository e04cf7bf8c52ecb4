"""Cards of what is shared on the Hub: the README of a repository, with its metadata.

Whatever comes from a user (names of datasets, classes, probes, tasks) is escaped before a template sees it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_task2vec import __version__
from hf_task2vec.embedding import DEFAULT_DISTANCE, pairwise, probe_slug
from hf_task2vec.errors import ProbeMismatchError
from hf_task2vec.zoo import ROW_TYPES, SCHEMA_VERSION

if TYPE_CHECKING:
    from hf_task2vec.embedding import TaskEmbedding
    from hf_task2vec.zoo import ZooIndex

TAG, INDEX_TAG = "task2vec", "task2vec-index"
_N_NEAREST = 8
_LONGEST_TEXT = 300
# An underscore inside a word, a lone dot or colon are harmless and frequent: they stay readable in the source.
_UNSAFE = re.compile(r"[&<>\"'\\`*\[\]{}|~#!$@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=[wW]{3})\.|^[-+=]")


def escape(value: object) -> str:
    """Return text that shows as it is in Markdown and HTML, in running text and in tables; long text is cut."""
    text = "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else " " for c in str(value))
    text = " ".join(text.split())
    text = text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
    return _UNSAFE.sub(lambda match: f"&#{ord(match[0])};", text)


def embedding_card(
    repo_id: str,
    embedding: TaskEmbedding,
    index: ZooIndex,
    license: str | None,  # noqa: A002 (the card's own word)
    metadata: Mapping[str, Any],
) -> str:
    """Return the card of an embedding's repository; `metadata` of an older card stay where this one says nothing."""
    task, found, probe = embedding.task, embedding.descriptors, str(embedding.probe["name"])
    classes = [str(name) for name in task.get("label_names") or ()]
    n_classes = int(found["n_classes"]) if "n_classes" in found else None
    shown = ", ".join(classes[:10]) + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")
    facts = {
        "dataset": task.get("dataset"),
        "revision": task.get("revision"),
        "configuration": task.get("config_name"),
        "split": task.get("split"),
        "images used": f"{found.get('n_samples', 0):.0f} of {found.get('n_rows', 0):.0f}" if found else None,
        "classes": None if n_classes is None else f"{n_classes}: {shown}" if shown else n_classes,
        "probe": probe,
        "probe's weights": f"SHA-256 {embedding.weights_hash[:16]}…",
        "filters": f"{embedding.values.shape[1]} in {len(embedding.layer_names)} layers",
        "computed with": ", ".join(f"{name} {version}" for name, version in sorted(embedding.versions.items())) or None,
    }
    own = {
        "pretty_name": f"Task2Vec embedding of {embedding.name}",
        "license": license or metadata.get("license"),
        "viewer": False,  # nothing in it is a table of rows
        TAG: {"kind": "embedding", "dataset": embedding.name, "probe": probe, "n_classes": n_classes},
    }
    return _render(
        "embedding.md.j2",
        {**metadata, **own},
        (probe_slug(probe),),
        repo_id=repo_id,
        title=escape(embedding.name),
        facts=[(name, escape(value)) for name, value in facts.items() if value is not None],
        descriptors=[(escape(name), value) for name, value in sorted(found.items())],
        nearest=[(escape(name), distance) for name, distance in nearest_tasks(embedding, index)],
        kind=DEFAULT_DISTANCE,
    )


def nearest_tasks(embedding: TaskEmbedding, index: ZooIndex) -> list[tuple[str, float]]:
    """Return name and distance of the reference tasks nearest to `embedding`; none if the probes differ."""
    try:
        distances = pairwise(embedding, to=index.embeddings)[0]
    except ProbeMismatchError:
        return []
    nearest = sorted(zip(index.embeddings.names, distances.tolist(), strict=True), key=lambda pair: pair[1])
    return nearest[:_N_NEAREST]


def index_card(repo_id: str, index: ZooIndex, license: str | None, metadata: Mapping[str, Any]) -> str:  # noqa: A002
    """Return the card of an index's repository; nothing of an older card stays."""
    rows, scores = index.rows, index.rows["scores"]
    by_source = Counter(score.source for score in scores)  # type: ignore[attr-defined]
    counts = {name: len(rows[name]) for name in rows}
    probe = index.probe.name if index.probe else None
    own = {
        "pretty_name": f"hf_task2vec zoo index {repo_id}",
        "license": license or "other",
        "license_name": None if license else "per-source",
        "configs": [{"config_name": name, "data_files": f"{name}.csv"} for name in ROW_TYPES],
        TAG: {"kind": "index", "probe": probe, "counts": counts},
    }
    return _render(
        "index.md.j2",
        own,
        (INDEX_TAG, *([probe_slug(probe)] if probe else [])),
        repo_id=repo_id,
        counts=counts,
        tables=[(name, counts[name], ", ".join(row_type.model_fields)) for name, row_type in ROW_TYPES.items()],
        embedded=len(index.embeddings) if probe else 0,
        probe=escape(probe),
        sources=[
            [escape(getattr(row, name)) for name in ("source", "repo", "protocol", "metric", "license")]
            + [by_source[row.key[0]]]
            for row in rows["sources"]
        ],
        n_leaks=sum(score.leak for score in scores),  # type: ignore[attr-defined]
        schema_version=SCHEMA_VERSION,
        created=index.created,
        package_version=escape(index.package_version),
    )


def card_metadata(text: str) -> dict[str, Any]:
    """Return the metadata of a card; empty if it has none that can be read."""
    from huggingface_hub import DatasetCard

    try:
        return dict(DatasetCard(text, ignore_metadata_errors=True).data.to_dict())
    except Exception:  # noqa: BLE001 (anybody's text, through YAML)
        return {}


def _render(template: str, metadata: Mapping[str, Any], tags: tuple[str, ...], **context: Any) -> str:
    from huggingface_hub import DatasetCard, DatasetCardData

    folder = Path(__file__).parent / "templates"
    tags = (TAG, *tags, "image-classification", "transfer-learning")
    others = [str(tag) for tag in metadata.get("tags") or () if tag not in tags]
    data = DatasetCardData(**{**metadata, "tags": [*tags, *others]})
    citation = (folder / "citation.md").read_text(encoding="utf-8")
    context |= {"citation": citation, "version": __version__}
    return str(DatasetCard.from_template(data, template_path=str(folder / template), **context))
