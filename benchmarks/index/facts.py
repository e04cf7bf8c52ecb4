"""Write the facts of ``zoo_index/`` from published tables, the shared tasks and the installed timm registry.

    python -m benchmarks.index.facts --created 2026-11-23 [--shared ../shared] [--out zoo_index]
        [--sources NAME ...] [--card-only]

Measurements, embeddings and fitted metrics that the index already holds are kept; only the published facts are
written anew. ``--card-only`` renders ``README.md`` from the index as it is.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection
from itertools import combinations
from pathlib import Path

from scipy.stats import kendalltau

from benchmarks.common import ROOT, SHARED, parser
from benchmarks.index import facts_rules as rules
from benchmarks.index.checkpoints import FACT_SOURCES, Record, checkpoints, read, share
from hf_task2vec import __version__
from hf_task2vec.files import canonical_json, sha256_bytes
from hf_task2vec.metric import is_tuned
from hf_task2vec.zoo import ZERO_SHOT
from hf_task2vec.zoo.index import MANIFEST, ZooIndex
from hf_task2vec.zoo.schema import CheckpointRow, SourceRow, TaskRow

HERE = Path(__file__).resolve().parent
#: Facts of which the card says for how many checkpoints they are known.
FACTS = (
    *("objective", "corpus", "corpus_images_m", "year", "params_m", "gmacs", "input_px", "in1k_top1"),
    "in1k_linear_probe",
)


def tasks(manifest: list[Record]) -> list[Record]:
    """Return the shared tasks and the published datasets that are no shared task."""
    declared = {row["task"]: row for row in read(HERE / "task_flags.csv")}
    records: dict[str, Record] = {}
    for entry in manifest:
        extra = declared.get(entry["name"], {})
        records[entry["name"]] = {
            "task": entry["name"],
            "domain": extra.get("domain")
            or {"scenes": "scene"}.get(entry["domain"], re.sub(r"[^a-z0-9]+", "-", entry["domain"].lower())),
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
        record["license"] = rules.LICENSE_OF_SOURCE[row["source"]]
        record["flags"] = rules.SOURCE_FLAGS.get(row["source"], "")
        if mine := published.get(row["source"]):  # else its facts are read, but not its scores
            record |= {
                "n_left_out": sum(not found["hub_id"] for found in mine),
                "n_published": len(mine),
                "published_sha256": published_hash(mine),
            }
        records.append(record)
    facts = {"protocol": "facts about checkpoints", "split": "none", "metric": "none"}
    registry = {"source": "timm_registry", "repo": f"PyPI timm {timm.__version__}", "license": "apache-2.0"}
    return [*records, *(row | facts for row in (registry, *({"license": "facts only"} | row for row in FACT_SOURCES)))]


def scores(rows: list[dict[str, str]], index: ZooIndex) -> list[Record]:
    """Return the published scores of Hub checkpoints, as fractions."""
    slugs = {name: name for name in index.by_name(TaskRow)}
    for row in read(HERE / "published_tasks.csv"):
        slugs |= dict.fromkeys(row["published_as"].split(";"), row["task"])
    return [
        {
            "task": slugs[row["dataset"]],
            "checkpoint": name,
            "score": share(row["score"]),
            "metric": rules.metric_of(row["source"], row["dataset"], row["metric"]),
            "protocol": row["protocol"],
            "split": rules.split_of(row["source"], row["dataset"]),
            "source": row["source"],
            "source_model": None if row["model_name_in_source"] == name else row["model_name_in_source"],
            "checkpoint_match": row["hub_id_confidence"],
            **index.repeated_facts(slugs[row["dataset"]], name, row["source"]),
        }
        for row in rows
        if row["hub_id"]
        for name in (index.names[row["hub_id"]],)
    ]


def build(shared: Path, created: str, only: Collection[str] | None = None) -> ZooIndex:
    """Return the index of published facts alone; `only` names the sources whose scores are taken, by default all."""
    everything = read(shared / "published" / "transfer_scores.csv")
    published = [row for row in everything if only is None or row["source"] in only]
    index = ZooIndex(rows={}, created=created, package_version=__version__)
    index = index.add_sources(sources(read(shared / "published" / "sources.csv"), by_source(published)))
    index = index.add_checkpoints(checkpoints(shared, everything))
    index = index.add_tasks(tasks(json.loads((shared / "tasks" / "MANIFEST.json").read_text(encoding="utf-8"))))
    return index.add_scores(scores(published, index))


def keep_measurements(index: ZooIndex, old: ZooIndex) -> ZooIndex:
    """Add to `index` what was measured or harvested: scores, their sources, embeddings and attachments of `old`."""
    known = index.by_name(SourceRow)
    index = index.add_sources([row for name, row in old.by_name(SourceRow).items() if name not in known])
    kept = [row for row in old.score_rows if row.checkpoint_match == "measured" or row.address]
    tasks = {row.task for row in kept} - index.by_name(TaskRow).keys()
    index = index.add_tasks([row for name, row in old.by_name(TaskRow).items() if name in tasks]).add_scores(kept)
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
        aliased=sum(bool(row.aliases) for row in index.by_name(CheckpointRow).values()),
        aliases=sum(len(row.aliases) for row in index.by_name(CheckpointRow).values()),
        known={name: int(index.checkpoints[name].notna().sum()) for name in FACTS},
        licensed=int(index.checkpoints["license"].notna().sum()),
        matches=dict(sorted(index.scores["checkpoint_match"].value_counts().items())),
        tasks_scored=int(index.scores["task"].nunique()),
        families=evidence_by(index, "family"),
        domains=evidence_by(index, "domain"),
        contradictions=contradictions(index),
    )


def evidence_by(index: ZooIndex, column: str) -> list[Record]:
    """How many weights of each family or domain there are, how many have scores, and scores by protocol."""
    scores = index.scores[~index.scores["leak"] & (index.scores["protocol"] != ZERO_SHOT)]
    scores = scores.assign(tuned=(scores["source"] + "/" + scores["protocol"]).map(is_tuned))
    found = []
    for value, rows in index.checkpoints.groupby(column):
        own = scores[scores["checkpoint"].isin(rows["hub_id"])]
        scored, tuned = int(own["checkpoint"].nunique()), int(own["tuned"].sum())
        found.append(
            {"name": value, "weights": len(rows), "scored": scored, "tuned": tuned, "frozen": len(own) - tuned}
        )
    return sorted(found, key=lambda row: (-row["tuned"] - row["frozen"], row["name"]))


def contradictions(index: ZooIndex, least: int = 5) -> list[Record]:
    """Groups of scores of one dataset that put the checkpoints they have in common into opposite orders."""
    scores = index.scores[~index.scores["leak"] & (index.scores["protocol"] != ZERO_SHOT)]
    found = []
    for task, rows in scores.groupby("task"):
        table = rows.assign(group=rows["source"] + "/" + rows["protocol"]).pivot_table(
            index="checkpoint", columns="group", values="score", aggfunc="mean"
        )
        for first, second in combinations(table.columns, 2):
            both = table[[first, second]].dropna()
            if first.partition("/")[0] == second.partition("/")[0] or len(both) < least:
                continue
            tau = kendalltau(both[first], both[second]).statistic
            found.append({"task": task, "first": first, "second": second, "n": len(both), "tau": float(tau)})
    return sorted(found, key=lambda row: row["tau"])


def main() -> None:
    """Command line."""
    arguments = parser(__doc__)
    arguments.add_argument("--shared", type=Path, default=SHARED, help="folder with the published tables")
    arguments.add_argument("--out", type=Path, default=ROOT / "zoo_index")
    arguments.add_argument("--created", help="date of the index, YYYY-MM-DD")
    arguments.add_argument("--sources", nargs="+", help="take the scores of these sources only")
    arguments.add_argument("--card-only", action="store_true", help="only render README.md from the index")
    args = arguments.parse_args()
    if not args.card_only:
        if not args.created:
            arguments.error("--created is needed to write the index")
        index = build(args.shared, args.created, args.sources)
        if (args.out / MANIFEST).exists():
            index = keep_measurements(index, ZooIndex.load(args.out))
        index.save(args.out)
    index = ZooIndex.load(args.out)
    (args.out / "README.md").write_text(render_card(index), encoding="utf-8")
    print(json.dumps(index.info() | {"problems": index.validate()}, indent=2))


if __name__ == "__main__":
    main()
