"""Write the facts of ``zoo_index/`` from published tables, the shared tasks and the installed timm registry.

    python -m benchmarks.index.facts --created 2026-11-23 [--shared ../shared] [--out zoo_index] [--card-only]

Measurements, embeddings and fitted metrics that the index already holds are kept; only the published facts are
written anew. ``--card-only`` renders ``README.md`` from the index as it is.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Collection
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, SHARED, parser
from benchmarks.index import facts_rules as rules
from hf_task2vec import __version__
from hf_task2vec.evidence.rows import family_of
from hf_task2vec.files import canonical_json, sha256_bytes
from hf_task2vec.zoo.index import MANIFEST, ZooIndex
from hf_task2vec.zoo.schema import SourceRow, TaskRow

HERE = Path(__file__).resolve().parent
Record = dict[str, Any]
TIMM_COLUMNS = {
    "params_m": "params_m",
    "gmacs": "gmacs",
    "infer_samples_per_sec_rtx4090_amp": "throughput_gpu",
    "infer_samples_per_sec_cpu_i9_fp32_bs1": "throughput_cpu",
}


def read(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as text cells."""
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def number(text: str) -> Decimal | None:
    """Parse ``"1,014.45"``; None if empty."""
    return Decimal(text.replace(",", "")) if text else None


def share(text: str) -> Decimal | None:
    """Turn a percentage into a fraction, exactly."""
    value = number(text)
    return None if value is None else value / 100


def timm_facts(hub_id: str, name: str) -> Record:
    """Return what timm's registry knows of model `name` (``architecture.tag``)."""
    from timm.models import get_pretrained_cfg

    architecture, _, tag = name.partition(".")
    config = get_pretrained_cfg(name)
    if config is None:
        raise SystemExit(f"{name} is not in the installed timm registry")
    license_ = (config.license or "").lower()
    return {
        "hub_id": hub_id,
        "library": "timm",
        "architecture": architecture,
        "family": family_of("timm", architecture),
        "pretrain_tag": tag,
        "pretraining": rules.pretraining_of(architecture, tag),
        "trained_on": rules.trained_on_of(architecture, tag),
        "input_px": config.input_size[-1],
        "license": None if license_ in ("", "unknown", "other") else license_,
        "facts_source": "timm_registry",
    }


def count_params_m(architecture: str) -> float:
    """Return the million parameters of a timm architecture without a classifier, built without memory."""
    import timm
    import torch

    with torch.device("meta"):
        model = timm.create_model(architecture, pretrained=False, num_classes=0)
    return round(sum(p.numel() for p in model.parameters()) / 1e6, 2)


def timm_checkpoints(rows: list[dict[str, str]]) -> dict[str, Record]:
    """Return one record per Hub id, from the row at the checkpoint's native image size."""
    records = {}
    for row in rows:
        if not row["hub_id"] or row["img_size"] != row["native_px"]:
            continue
        record = timm_facts(row["hub_id"], row["model"]) | {"input_px": row["native_px"]}
        record |= {new: number(row[old]) for old, new in TIMM_COLUMNS.items()} | {"in1k_top1": share(row["in1k_top1"])}
        records[row["hub_id"]] = record | {"facts_source": "timm_checkpoints;timm_registry"}
    return records


def scored_checkpoints(rows: list[dict[str, str]], known: dict[str, Record]) -> dict[str, Record]:
    """Return records of the scored Hub checkpoints that timm's result tables do not list."""
    from timm.models import list_pretrained

    declared, registered = read(HERE / "hub_checkpoints.csv"), set(list_pretrained())
    licenses = {row["hub_id"]: row["license"] for row in read(HERE / "hub_licenses.csv")}
    records: dict[str, Record] = {}
    for hub_id in sorted({row["hub_id"] for row in rows} - set(known) - {""}):
        if (name := hub_id.removeprefix("timm/")) in registered:
            records[hub_id] = timm_facts(hub_id, name)
            records[hub_id]["params_m"] = count_params_m(records[hub_id]["architecture"])
            continue
        mine = [row for row in rows if row["hub_id"] == hub_id]
        facts = next((row for row in declared if re.fullmatch(row["hub_id_pattern"], hub_id)), None)
        if facts is None:
            raise SystemExit(f"{hub_id}: add a line to benchmarks/index/hub_checkpoints.csv")
        described = [row for row in mine if row["params_m"] or row["input_px"]]
        sources = {row["source"] for row in described or mine}
        records[hub_id] = {
            "hub_id": hub_id,
            **{name: facts[name] or None for name in ("library", "family", "pretraining")},
            "architecture": facts["architecture"] or hub_id.partition("/")[2],
            "trained_on": facts["trained_on"],
            "params_m": only({row["params_m"] for row in mine}, hub_id)
            or (count_params_m(facts["image_tower"]) if facts["image_tower"] else None),
            "input_px": (only({row["input_px"] for row in mine}, hub_id) or "").removesuffix(".0") or None,
            "license": licenses.get(hub_id),
            "facts_source": ";".join(sorted(sources | ({"hub_model_card"} if hub_id in licenses else set()))),
        }
    return records


def only(values: set[str], what: str) -> str | None:
    """Return the one value that is not empty; several are an error."""
    found = values - {""}
    if len(found) > 1:
        raise SystemExit(f"{what}: sources disagree: {sorted(found)}")
    return found.pop() if found else None


def tasks(manifest: list[Record]) -> list[Record]:
    """Return the shared tasks and the published datasets that are no shared task."""
    declared = {row["task"]: row for row in read(HERE / "task_flags.csv")}
    records: dict[str, Record] = {}
    for entry in manifest:
        extra = declared.get(entry["name"], {})
        records[entry["name"]] = {
            "task": entry["name"],
            "domain": {"scenes": "scene"}.get(entry["domain"], re.sub(r"[^a-z0-9]+", "-", entry["domain"].lower())),
            "n_images": entry["n_train"] + entry["n_test"],
            "source": entry["source_repo"],
            "source_revision": entry["source_commit"],
            "near_duplicate_group": extra.get("near_duplicate_group") or None,
            "images_from": extra.get("images_from") or entry["benchmark_name"] or entry["name"],
            "flags": extra.get("flags", ""),
            **{name: entry[name] for name in ("title", "n_classes", "license", "benchmark_name")},
        }
    for row in read(HERE / "published_tasks.csv"):  # stands for the full dataset, also where a sample has its name
        texts = {"images_from": row["images_from"], "flags": row["flags"], "benchmark_name": row["task"]}
        filled = {name: value or None for name, value in row.items() if name != "published_as"}
        records[row["task"]] = filled | texts
    return list(records.values())


def published_hash(rows: list[dict[str, str]]) -> str:
    """Return the SHA-256 of a source's published rows: by it the index can tell what it was made from."""
    return sha256_bytes(canonical_json(sorted(sorted(row.items()) for row in rows)))


def by_source(rows: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Group published rows."""
    grouped: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        grouped[row["source"]].append(row)
    return grouped


def sources(rows: list[dict[str, str]], published: dict[str, list[dict[str, str]]]) -> list[Record]:
    """Return the published sources and the two registries of facts."""
    import timm

    keep = ("source", "repo", "commit", "path", "protocol", "split", "metric")
    records: list[Record] = []
    for row in rows:
        record: Record = {name: row[name] or None for name in keep}
        mine = published[row["source"]]
        record |= {
            "license": rules.LICENSE_OF_SOURCE[row["source"]],
            "n_left_out": sum(not found["hub_id"] for found in mine),
            "n_published": len(mine),
            "published_sha256": published_hash(mine),
        }
        records.append(record)
    facts = {"protocol": "facts about checkpoints", "split": "none", "metric": "none"}
    registry = {"source": "timm_registry", "repo": f"PyPI timm {timm.__version__}", "license": "apache-2.0"}
    cards = {"source": "hub_model_card", "repo": "huggingface.co model cards", "license": "facts only"}
    return [*records, registry | facts, cards | facts | {"path": "benchmarks/index/hub_licenses.csv"}]


def scores(rows: list[dict[str, str]], index: ZooIndex) -> list[Record]:
    """Return the published scores of Hub checkpoints, as fractions."""
    slugs = {name: name for name in index.by_name(TaskRow)}
    for row in read(HERE / "published_tasks.csv"):
        slugs |= dict.fromkeys(row["published_as"].split(";"), row["task"])
    return [
        {
            "task": slugs[row["dataset"]],
            "checkpoint": row["hub_id"],
            "score": share(row["score"]),
            "metric": rules.metric_of(row["source"], row["dataset"], row["metric"]),
            "protocol": row["protocol"],
            "split": rules.SPLIT_EXCEPTIONS.get((row["source"], row["dataset"]), "test"),
            "source": row["source"],
            "source_model": None if row["model_name_in_source"] == row["hub_id"] else row["model_name_in_source"],
            "checkpoint_match": row["hub_id_confidence"],
            **index.repeated_facts(slugs[row["dataset"]], row["hub_id"], row["source"]),
        }
        for row in rows
        if row["hub_id"]
    ]


def build(shared: Path, created: str, only: Collection[str] | None = None) -> ZooIndex:
    """Return the index of published facts alone; `only` names the sources to take, by default all."""
    described = [row for row in read(shared / "published" / "sources.csv") if only is None or row["source"] in only]
    names = {row["source"] for row in described}
    published = [row for row in read(shared / "published" / "transfer_scores.csv") if row["source"] in names]
    listed = timm_checkpoints(read(shared / "published" / "timm_checkpoints.csv"))
    checkpoints = listed | scored_checkpoints(published, listed)
    index = ZooIndex(rows={}, created=created, package_version=__version__)
    index = index.add_sources(sources(described, by_source(published))).add_checkpoints(list(checkpoints.values()))
    index = index.add_tasks(tasks(json.loads((shared / "tasks" / "MANIFEST.json").read_text(encoding="utf-8"))))
    return index.add_scores(scores(published, index))


def keep_measurements(index: ZooIndex, old: ZooIndex) -> ZooIndex:
    """Add to `index` what was measured: scores, their sources, embeddings and attachments of `old`."""
    known = index.by_name(SourceRow)
    index = index.add_sources([row for name, row in old.by_name(SourceRow).items() if name not in known])
    index = index.add_scores([row for row in old.score_rows if row.checkpoint_match == "measured"])
    if old.embedded is not None:
        index = index.with_embeddings(old.embeddings)
    return index.with_attachments(old.attachments)


def render_card(index: ZooIndex) -> str:
    """Return the dataset card; every figure comes from the index."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    rows, info = index.rows, index.info()
    return environment.get_template("zoo_card.md.j2").render(
        info=info,
        sources=rows["sources"],
        left_out=sum(row.n_left_out for row in index.by_name(SourceRow).values()),
        columns={name: list(type(found[0]).model_fields) for name, found in rows.items() if found},
        embedded=sum(row.embedded for row in index.by_name(TaskRow).values()),
        leaks=sum(row.leak for row in index.score_rows),
        licensed=int(index.checkpoints["license"].notna().sum()),
        matches=dict(sorted(index.scores["checkpoint_match"].value_counts().items())),
        tasks_scored=int(index.scores["task"].nunique()),
    )


def main() -> None:
    """Command line."""
    arguments = parser(__doc__)
    arguments.add_argument("--shared", type=Path, default=SHARED, help="folder with the published tables")
    arguments.add_argument("--out", type=Path, default=ROOT / "zoo_index")
    arguments.add_argument("--created", help="date of the index, YYYY-MM-DD")
    arguments.add_argument("--card-only", action="store_true", help="only render README.md from the index")
    args = arguments.parse_args()
    if not args.card_only:
        if not args.created:
            arguments.error("--created is needed to write the index")
        index = build(args.shared, args.created)
        if (args.out / MANIFEST).exists():
            index = keep_measurements(index, ZooIndex.load(args.out))
        index.save(args.out)
    index = ZooIndex.load(args.out)
    (args.out / "README.md").write_text(render_card(index), encoding="utf-8")
    print(json.dumps(index.info() | {"problems": index.validate()}, indent=2))


if __name__ == "__main__":
    main()
