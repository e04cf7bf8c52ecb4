"""Sets of weights: which names are the same weights, and facts about each, from tables that name their sources.

What is declared by hand lies in tables beside this file, one row a fact or a checkpoint; a new row is all it takes:

* ``weights.csv``: weights that timm's registry lacks (`Weights`; `hub_id` is a pattern, `tower` a network that counts
  the same);
* ``aliases.csv``: repositories with the same weights (`SameWeights`);
* ``timm_tags.csv``: what a timm name says of the pretraining; the first pattern that matches decides (`Tag`);
* ``corpora.csv``: what weights were pretrained on (`Corpus`).

``counted.csv`` is written by ``count_architectures.py``. Cells that nothing says stay empty.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from benchmarks.index import count_architectures
from benchmarks.index import facts_rules as rules
from hf_task2vec.evidence.rows import family_of
from hf_task2vec.zoo.schema import Domain, Library, Objective, Pretraining

HERE = Path(__file__).resolve().parent
Record = dict[str, Any]
#: From so many downloads a month a repository is a name people use; below, timm's stays in front.
MANY_DOWNLOADS = 10_000
#: Repositories whose terms must be accepted: no name to recommend while an open one holds the same weights.
GATED = re.compile(r"facebook/(dinov3|sam)-.*")
#: Entries of timm's registry that are a part or a rewriting of another entry's weights.
VIEWS = re.compile(r"_vit_\d+m_(enc|merge|align)\.|siglip_gap_\d+\.(v2_)?webli|_clip_gap\.|^levit_conv_")
# Columns of timm's tables.
TIMM_COLUMNS = {
    "params_m": "params_m",
    "gmacs": "gmacs",
    "infer_samples_per_sec_rtx4090_amp": "throughput_gpu",
    "infer_samples_per_sec_cpu_i9_fp32_bs1": "throughput_cpu",
}
FACT_SOURCES: tuple[Record, ...] = (
    {"source": "timm_history", "repo": "huggingface/pytorch-image-models", "path": "hf_hub_id in earlier versions"},
    {"source": "hub_model_card", "repo": "huggingface.co model cards", "path": "benchmarks/index/hub_licenses.csv"},
    {"source": "hub_twins", "repo": "huggingface.co", "path": "shared/published/hub_twins.csv"},
    {"source": "transformers_conversion", "repo": "huggingface/transformers", "path": "convert_*.py of the models"},
    {"source": "original_release", "repo": "the authors' one release, which both libraries converted"},
    {"source": "meta_device", "repo": "hf_task2vec", "path": "benchmarks/index/counted.csv"},
    {"source": "corpora", "repo": "hf_task2vec", "path": "benchmarks/index/corpora.csv (papers)"},
    {"source": "declared_weights", "repo": "hf_task2vec", "path": "benchmarks/index/weights.csv (papers and cards)"},
)  # fmt: skip


class Declared(BaseModel):
    """A row of a table that is written by hand: an unknown column or value is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Corpus(Declared):
    """Images that weights were pretrained on."""

    corpus: str
    images_m: float | None = None
    domain: Domain
    contains: str = ""  # datasets whose images are in it
    source: str


class Tag(Declared):
    """What a timm name (``architecture.tag``) says of the pretraining."""

    pattern: str
    pretraining: Pretraining
    objective: Objective | None = None  # by default that of the pretraining
    corpus: str | None = None


class Weights(Declared):
    """Weights that timm's registry lacks; `tower` is a network of the same parameters and multiply-adds."""

    hub_id: str
    library: Library
    architecture: str | None = None
    family: str
    pretraining: Pretraining
    objective: Objective | None = None
    corpus: str | None = None
    tower: str | None = None
    input_px: int | None = None
    year: int | None = None
    license: str | None = None
    gated: bool | None = None
    source: str | None = None


class SameWeights(Declared):
    """A repository that holds the weights of another."""

    hub_id: str
    same_weights_as: str
    library: Library
    match: str
    source: str


D = TypeVar("D", bound=Declared)


def read(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as text cells."""
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@cache
def declared(row_type: type[D], name: str) -> tuple[D, ...]:
    """Read and check a table beside this file."""
    rows = read(HERE / name)
    return tuple(row_type.model_validate({key: cell for key, cell in row.items() if cell}) for row in rows)


def number(text: str) -> Decimal | None:
    """Parse ``"1,014.45"``; None if empty."""
    return Decimal(text.replace(",", "")) if text else None


def share(text: str) -> Decimal | None:
    """Turn a percentage into a fraction, exactly."""
    value = number(text)
    return None if value is None else value / 100


def checkpoints(shared: Path, published: list[dict[str, str]]) -> list[Record]:
    """Return a record of each set of weights: timm's registry, and what is declared or has published scores."""
    ids = {row["hub_id"] for row in published} - {""}
    cards = {row["hub_id"]: row for row in read(shared / "cards" / "bases.csv")}
    aliases: dict[str, list[SameWeights]] = defaultdict(list)
    for alias in declared(SameWeights, "aliases.csv"):
        aliases[alias.same_weights_as].append(alias)
    others = {alias.hub_id for named in aliases.values() for alias in named}
    records = timm_records(shared, ids, others)
    records |= declared_records(shared, published, (ids | cards.keys()) - others - records.keys())
    if unknown := sorted(aliases.keys() - records.keys()):
        raise SystemExit(f"aliases.csv names weights that are nowhere: {', '.join(unknown)}")
    probes = linear_probes(published)
    licenses = {row["hub_id"]: row["license"] for row in read(HERE / "hub_licenses.csv")}
    found = []
    for record in records.values():
        named = named_as_people_do(record, aliases[record["hub_id"]], cards)
        names = [named["hub_id"], *(text.split()[0] for text in named["aliases"])]
        sources = set(named["facts_source"])
        if (value := next((probes[name] for name in names if name in probes), None)) is not None:
            named["in1k_linear_probe"], source = value
            sources.add(source)
        for name in names:
            card = cards.get(name, {})
            if probe := re.match(r"0\.\d+", card.get("in1k_linear_probe", "")):
                named.setdefault("in1k_linear_probe", probe[0])
                sources.add("hub_model_card")
            license_ = licenses.get(name) or card.get("license", "").split(" ")[0]
            if not named.get("license") and license_ not in ("", "other", "unknown"):
                named["license"] = license_
                sources.add("hub_model_card")
        if GATED.fullmatch(named["hub_id"]):
            named["gated"] = True
        found.append(named | {"facts_source": tuple(sorted(sources))})
    return found


def named_as_people_do(record: Record, aliases: Iterable[SameWeights], cards: Mapping[str, dict[str, str]]) -> Record:
    """Put the name that most people use in front, the others behind it."""

    def downloads(name: str) -> int:
        return int(cards.get(name, {}).get("downloads_last_month") or 0)

    aliases = list(aliases)
    open_ones = [alias for alias in aliases if alias.match == "exact" and not GATED.fullmatch(alias.hub_id)]
    loaded = [alias for alias in open_ones if alias.library in ("timm", "transformers")]
    best = max(loaded, key=lambda alias: downloads(alias.hub_id), default=None)
    on_hub = record.pop("on_hub", True)
    if best is not None and (not on_hub or downloads(best.hub_id) >= max(MANY_DOWNLOADS, downloads(record["hub_id"]))):
        behind = [f"{alias.hub_id} {alias.library} {alias.match} {alias.source}" for alias in aliases if alias != best]
        behind[:0] = [f"{record['hub_id']} {record['library']} exact {best.source}"] if on_hub else []
        return record | {"hub_id": best.hub_id, "library": best.library, "aliases": behind}
    behind = [f"{alias.hub_id} {alias.library} {alias.match} {alias.source}" for alias in aliases]
    return record | {"aliases": behind}


def pretraining_facts(pretraining: str | None, objective: str | None, corpus: str | None) -> Record:
    """Return what follows from the kind of pretraining and from the corpus."""
    facts: Record = {"pretraining": pretraining, "objective": objective or rules.OBJECTIVE_OF.get(pretraining or "")}
    if corpus is not None:
        about = next(row for row in declared(Corpus, "corpora.csv") if row.corpus == corpus)
        facts |= {"corpus": corpus, "corpus_images_m": about.images_m, "domain": about.domain}
        facts |= {"trained_on": set(filter(None, about.contains.split(";")))}
    return facts


def timm_records(shared: Path, published: set[str], others: set[str]) -> dict[str, Record]:
    """Return a record of each set of weights in timm's registry; several entries may load one repository."""
    from timm.models import get_pretrained_cfg, list_pretrained

    listed = {row["model"]: row for row in measured(shared).values()}
    records: dict[str, Record] = {}
    for name in sorted(list_pretrained(), key=lambda name: ("quickgelu" in name, name)):
        config, (architecture, _, tag) = get_pretrained_cfg(name), name.partition(".")
        hub_id = config.hf_hub_id or f"timm/{name}"
        if hub_id in records or hub_id in others or (VIEWS.search(name) and hub_id not in published):
            continue
        kind = next(row for row in declared(Tag, "timm_tags.csv") if re.search(row.pattern, name))
        license_ = (config.license or "").lower()
        facts = pretraining_facts(kind.pretraining, kind.objective, kind.corpus)
        seen = facts.pop("trained_on", set()) | set(rules.trained_on_of(architecture, tag))
        record = facts | {
            "hub_id": hub_id,
            "library": "timm",
            "architecture": architecture,
            "family": family_of("timm", architecture),
            "pretrain_tag": tag,
            "trained_on": tuple(sorted(seen)),
            "domain": facts.get("domain", "general"),
            "year": year_of(architecture, tag),
            "input_px": config.input_size[-1],
            "license": None if license_ in ("", "unknown", "other") else license_,
            "on_hub": bool(config.hf_hub_id) or hub_id in published,
            "facts_source": {"timm_registry"} | ({"corpora"} if kind.corpus else set()),
        }
        if (row := listed.get(name)) is not None:
            record |= {new: number(row[old]) for old, new in TIMM_COLUMNS.items() if row[old]}
            record |= {"in1k_top1": share(row["in1k_top1"]), "input_px": int(row["native_px"])}
            record["facts_source"] |= {"timm_checkpoints"}
        records[hub_id] = record | sizes(shared, architecture, record)
    unnamed = [hub_id for hub_id, record in records.items() if not record["on_hub"]]
    named = {alias.same_weights_as for alias in declared(SameWeights, "aliases.csv")}
    return {hub_id: record for hub_id, record in records.items() if hub_id not in set(unnamed) - named}


def declared_records(shared: Path, published: list[dict[str, str]], wanted: set[str]) -> dict[str, Record]:
    """Return a record of each repository that `weights.csv` declares, those `wanted` and those it spells out."""
    table = declared(Weights, "weights.csv")
    spelled = {row.hub_id.replace("\\.", ".") for row in table if not re.search(r"[*?|\[]", row.hub_id)}
    records = {}
    for hub_id in sorted(wanted | spelled):
        row = next((row for row in table if re.fullmatch(row.hub_id, hub_id)), None)
        if row is None:
            raise SystemExit(f"{hub_id}: add a row to benchmarks/index/weights.csv or aliases.csv")
        facts = pretraining_facts(row.pretraining, row.objective, row.corpus)
        record = facts | row.model_dump(include={"library", "family", "input_px", "year", "license", "gated"})
        record |= {
            "hub_id": hub_id,
            "architecture": row.architecture or hub_id.partition("/")[2],
            "trained_on": tuple(sorted(facts.get("trained_on", ()))),
            "domain": facts.get("domain", "general"),
            "facts_source": {"declared_weights"} | ({"corpora"} if row.corpus else set()),
        }
        if row.library == "timm" and "." in hub_id:
            record["pretrain_tag"] = hub_id.rpartition(".")[2]
        record |= sizes(shared, row.tower, record) if row.tower else {}
        # Zero-shot tables count the text tower too.
        of_image = [
            found for found in published if found["hub_id"] == hub_id and found["source"] != "openclip_zeroshot"
        ]
        said = {found["params_m"] for found in of_image} - {""}
        if "params_m" not in record and len(said) == 1:
            record["params_m"] = said.pop()
            record["facts_source"] |= {found["source"] for found in of_image if found["params_m"]}
        if record["input_px"] is None and (said := {found["input_px"] for found in of_image} - {""}):
            record["input_px"] = int(float(min(said)))
            record["facts_source"] |= {found["source"] for found in of_image if found["input_px"]}
        records[hub_id] = record
    return records


@cache
def measured(shared: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Return timm's results of each checkpoint at its native image size."""
    rows = read(shared / "published" / "timm_checkpoints.csv")
    return {(row["model"], row["img_size"]): row for row in rows if row["img_size"] == row["native_px"]}


@cache
def _sizes(shared: Path) -> dict[tuple[str, int], tuple[Decimal, Decimal, str]]:
    known = {
        size: (Decimal(row["params_m"]), Decimal(row["gmacs"]), "meta_device")
        for size, row in count_architectures.counted().items()
    }
    for row in read(shared / "published" / "timm_checkpoints.csv"):
        params, gmacs = number(row["params_m"]), number(row["gmacs"])
        if params is not None and gmacs is not None:
            known.setdefault((row["arch"], int(row["img_size"])), (params, gmacs, "timm_checkpoints"))
    return known


def sizes(shared: Path, architecture: str, record: Record) -> Record:
    """Return parameters and multiply-adds that the record lacks, for its input size."""
    found = _sizes(shared).get((architecture, record["input_px"]))
    if found is None or None not in (record.get("params_m"), record.get("gmacs")):
        return {}
    params, gmacs, source = found
    record["facts_source"] |= {source}
    return {"params_m": record.get("params_m") or params, "gmacs": record.get("gmacs") or gmacs}


def linear_probes(published: list[dict[str, str]]) -> dict[str, tuple[Decimal, str]]:
    """Return the best published linear-probe accuracy on ImageNet of each checkpoint, and its source."""
    best: dict[str, tuple[Decimal, str]] = {}
    for row in published:
        probe = row["protocol"] in ("linear_probe", "linear_probe_full") and row["hub_id_confidence"] == "exact"
        if row["dataset"] == "imagenet1k" and probe and row["metric"] == "top1":
            found = (Decimal(row["score"]), row["source"])
            best[row["hub_id"]] = max(best.get(row["hub_id"], found), found)
    return {hub_id: (value / 100, source) for hub_id, (value, source) in best.items()}


@cache
def year_of(architecture: str, tag: str) -> int | None:
    """Return the year of the paper that timm's module cites first, or of the tag's if that is later."""
    import timm

    module = sys.modules[timm.model_entrypoint(architecture).__module__]
    cited = re.search(r"arxiv\.org/(?:abs|pdf)/(\d\d)\d\d\.", module.__doc__ or "")
    years = [2000 + int(cited[1])] if cited else []
    years += [year for pattern, year in rules.YEARS if re.search(pattern, f"{architecture}.{tag}")]
    return max(years, default=None)
