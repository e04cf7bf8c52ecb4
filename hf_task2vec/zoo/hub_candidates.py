"""Candidates beyond the index: Hub ids and queries such as ``author:timm license:apache-2.0 params:<30M``.

A checkpoint that the index does not know gets a row of facts from what the Hub says of it: card, tags, ``config.json``
and the parameter counts of its safetensors header. Its weights are never downloaded. The metric then judges it as it
judges any checkpoint without scores: by those of its family, kind of pretraining and size.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import HubAccessError, HubError, HubNotFoundError, SelectionError
from hf_task2vec.hub import REQUEST_TIMEOUT, HubSession
from hf_task2vec.zoo.experts import Expert, expert_of_card
from hf_task2vec.zoo.schema import LOCAL_PREFIX, CheckpointRow, as_slug

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo
    from huggingface_hub.hf_api import ExpandModelProperty_T

    from hf_task2vec.zoo.index import ZooIndex

logger = logging.getLogger(__name__)

#: Models that a query lists at most, the most downloaded first, unless it says ``limit:N``.
DEFAULT_LIMIT = 500
_KEYS = ("author", "license", "library", "params", "tag", "limit")
# What the Hub is asked to tell of a model.
_FACTS: list[ExpandModelProperty_T] = [
    "cardData", "config", "gated", "library_name", "pipeline_tag", "private", "safetensors", "sha", "tags",
]  # fmt: skip
# Models for other inputs share tags and words with those for images.
_IMAGE_TASKS = ("image-classification", "image-feature-extraction", "zero-shot-image-classification")
_LIBRARIES = ("timm", "transformers", "open_clip")
_THREADS = 8
_WHOLE_CONFIGS = 50  # of up to so many models config.json is read for the input size, which the Hub does not repeat
# Model types of transformers whose family the index calls otherwise, or whose pretraining they tell.
_FAMILY_OF_TYPE = {
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "dinov3_vit", "siglip", "siglip_vision_model"), "vit"),
    **dict.fromkeys(("clip", "clip_vision_model", "vit_mae", "vit_msn", "ijepa"), "vit"),
    **dict.fromkeys(("convnextv2", "dinov3_convnext"), "convnext"),
    "mobilevitv2": "mobilevit",
}
_PRETRAINING_OF_TYPE = {
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), "dinov2"),
    **dict.fromkeys(("siglip", "siglip_vision_model"), "siglip"),
    **dict.fromkeys(("clip", "clip_vision_model"), "clip"),
    "vit_mae": "mim",
}


@dataclass(frozen=True)
class Candidates:
    """What ``candidates=`` stands for."""

    ids: tuple[str, ...] | None
    """Hub ids; None for the whole index."""
    rows: tuple[CheckpointRow, ...] = ()
    """Facts of those that the index does not know."""
    queries: tuple[str, ...] = ()
    """The queries that were asked."""
    experts: tuple[Expert, ...] = ()
    """Those of `rows` whose cards say what they were fine-tuned from and on."""


def is_query(text: str) -> bool:
    """Say whether a text is a query rather than a Hub id."""
    return not text.startswith(LOCAL_PREFIX) and (":" in text or "/" not in text or " " in text.strip())


def parse_query(text: str) -> dict[str, Any]:
    """Read a query as arguments of ``HfApi.list_models``: words and ``key:value`` parts, all of which must hold.

    ``author:timm`` (user or organization), ``license:apache-2.0``, ``library:timm``, ``tag:image-classification``
    (repeatable), ``params:<30M`` (also ``<=``, ``>``, ``>=``; K, M and B are units; repeatable for a range),
    ``limit:200`` (models to list, the most downloaded first). Other words must occur in the model's id.
    """

    def wrong(problem: str) -> SelectionError:
        return SelectionError(f"candidates query {text!r}{problem}")

    parts: dict[str, list[str]] = {name: [] for name in (*_KEYS, "words")}
    for part in text.split():
        key, colon, value = part.partition(":")
        if not colon:
            key, value = "words", part
        elif key not in _KEYS:
            known = ", ".join(f"{name}:" for name in _KEYS)
            raise wrong(f": {key + ':'!r} is unknown; what would work: {known} and words of the id")
        elif not value:
            raise wrong(f": {key}: has no value; write it without a space after ':'")
        elif parts[key] and key not in ("params", "tag"):
            raise wrong(f": {key}: is given twice; pass a list of two queries instead")
        parts[key].append(value)
    if not any(values for key, values in parts.items() if key != "limit"):
        raise wrong(" asks for every model of the Hub; add an author:, tag: or word")
    bounds = {}
    for value in parts["params"]:
        match = re.fullmatch(r"([<>])=?(\d+(?:\.\d+)?[KMB]?)", value, re.IGNORECASE)
        if match is None:
            raise wrong(f": params:{value} is no comparison; write params:<30M, params:>=1.5M or the like")
        bounds["max" if match[1] == "<" else "min"] = match[2].upper()
    limit = next(iter(parts["limit"]), str(DEFAULT_LIMIT))
    if not limit.isdecimal() or int(limit) < 1:
        raise wrong(f": limit:{limit} is no positive whole number")
    return {
        "author": next(iter(parts["author"]), None),
        "filter": [*parts["tag"], *(f"license:{name}" for name in parts["license"]), *parts["library"]] or None,
        "search": " ".join(parts["words"]) or None,
        "num_parameters": ",".join(f"{name}:{bound}" for name, bound in sorted(bounds.items())) or None,
        "limit": int(limit),
    }


def resolve_candidates(given: str | Sequence[str] | None, zoo: ZooIndex, token: str | None = None) -> Candidates:
    """Find out which checkpoints are meant, and facts of those that the index does not know.

    `given` are Hub ids and queries (see :func:`parse_query`), or one query; None is the whole index. An id that the Hub
    does not know, or does not give, is left out with a warning.
    """
    if given is None or (isinstance(given, str) and not is_query(given)):
        return Candidates(given)  # type: ignore[arg-type]  # `Constraints` says what is wrong with a single id
    items = [given] if isinstance(given, str) else list(given)
    if not all(isinstance(item, str) for item in items):
        return Candidates(tuple(items))
    queries = {item: parse_query(item) for item in items if is_query(item)}
    session, known = HubSession(None, repo_type="model", token=token), zoo.names
    named = [item for item in items if item not in queries]
    ids, infos = list(named), dict[str, "ModelInfo | None"]()
    infos |= {item: None for item in named if item not in known and not item.startswith(LOCAL_PREFIX)}
    for text, query in queries.items():
        found = _listed(query, text, session)
        infos |= {info.id: info for info in found if info.id not in known}
        ids += [info.id for info in found]
    rows, experts = _rows(infos, list(zoo.by_name(CheckpointRow).values()), session)
    left_out = set(infos) - {row.hub_id for row in rows}
    ids = [hub_id for hub_id in dict.fromkeys(ids) if hub_id not in left_out or hub_id in named]
    if queries and not ids:
        raise SelectionError(f"no model that the Hub lists for {' or '.join(map(repr, queries))} can be judged")
    return Candidates(tuple(ids), tuple(rows), tuple(queries), tuple(experts))


def _listed(query: dict[str, Any], text: str, session: HubSession) -> list[ModelInfo]:
    """List the image models that a query asks for."""

    def ask() -> list[ModelInfo]:
        return list(session.api.list_models(**query, sort="downloads", expand=_FACTS))

    found = session.call(f"listing models for {text!r}", ask, limit=2 * REQUEST_TIMEOUT)
    if len(found) == query["limit"]:
        logger.warning("only the %d most downloaded models for %r are looked at (limit:)", query["limit"], text)
    usable = [info for info in found if _is_image_model(info)]
    logger.info("%d models listed for %r, %d of them for images", len(found), text, len(usable))
    if not usable:
        raise SelectionError(
            f"no model on the Hub matches {text!r}: {len(found)} listed, none of them an image model of "
            f"{', '.join(_LIBRARIES)}; loosen the query"
        )
    return usable


def _is_image_model(info: ModelInfo) -> bool:
    if info.library_name == "timm" or "timm" in (info.tags or ()):
        return True
    return info.library_name in _LIBRARIES and info.pipeline_tag in _IMAGE_TASKS


def _rows(
    infos: dict[str, ModelInfo | None], known: Sequence[CheckpointRow], session: HubSession
) -> tuple[list[CheckpointRow], list[Expert]]:
    """Return the rows of models that are listed, or named only; those that cannot be had are warned of."""
    experts = list[Expert]()

    def attempt(hub_id: str) -> CheckpointRow | str:
        one = HubSession(hub_id, repo_type="model", token=session.token, timeout=max(session.left, 1e-3))
        try:
            info = infos[hub_id] or one.call(
                "looking it up", one.api.model_info, hub_id, expand=_FACTS, limit=REQUEST_TIMEOUT, attempts=2
            )
            if info.gated:
                one.call("asking for access", one.api.auth_check, hub_id, limit=REQUEST_TIMEOUT)
            row = _checkpoint_row(info, _read_config(one, info, whole=len(infos) <= _WHOLE_CONFIGS), known)
            if expert := expert_of_card(info.id, _card(info)):
                experts.append(expert)
            return row
        except HubError as error:
            if infos[hub_id] is not None and not isinstance(error, (HubAccessError, HubNotFoundError)):
                raise
            return str(error)
        except ValueError as error:
            return f"its facts are unusable: {error}"

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="hf_task2vec-facts") as pool:
        results = dict(zip(infos, pool.map(attempt, infos), strict=True))
    for hub_id, result in results.items():
        if isinstance(result, str):
            logger.warning("%s is left out: %s", hub_id, result)
    rows = [row for row in results.values() if not isinstance(row, str)]
    if rows:
        families = Counter(row.family for row in rows)
        logger.info("%d candidates are not in the index and judged by their families: %s", len(rows), dict(families))
    return rows, experts


def _card(info: ModelInfo) -> dict[str, Any]:
    return info.card_data.to_dict() if info.card_data else {}


def _read_config(session: HubSession, info: ModelInfo, *, whole: bool) -> dict[str, Any]:
    """Return what ``config.json`` of a model says; the Hub's answer repeats a part of it."""
    config = dict(info.config or {})
    named = config.get("architecture") or config.get("model_type", "timm_wrapper") != "timm_wrapper"
    if named and not whole:
        return config
    path = session.download_first(["config.json"], revision=info.sha)
    found = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    return config | found if isinstance(found, dict) else config


def _checkpoint_row(info: ModelInfo, config: dict[str, Any], known: Sequence[CheckpointRow]) -> CheckpointRow:
    """Return a row of ``checkpoints.csv`` for a model; what all checkpoints of its architecture share is taken over."""
    card = _card(info)
    model_type = str(config.get("model_type") or "")
    architecture = config.get("architecture") or model_type or next(iter(config.get("architectures") or ()), None)
    if not isinstance(architecture, str) or not architecture:
        raise ValueError("its config.json names no architecture")
    architecture, _, tag = architecture.partition(".")
    if not tag:  # an id such as ``timm/resnet50.a1_in1k`` names it
        name, _, rest = info.id.rpartition("/")[2].partition(".")
        tag = rest if name == architecture else ""
    library = info.library_name
    if library not in _LIBRARIES:
        library = "timm" if "architecture" in config else "transformers" if "model_type" in config else "other"
    like = [row for row in known if row.architecture == architecture]
    total = info.safetensors.total if info.safetensors else None
    return CheckpointRow.model_validate(
        {
            "hub_id": info.id,
            "library": library,
            "architecture": architecture,
            "family": _family(architecture, model_type, library, known),
            "pretrain_tag": tag or None,
            "pretraining": _pretraining(tag, model_type, card, known),
            "params_m": total / 1e6 if total else _shared(row.params_m for row in like),
            "gmacs": _shared(row.gmacs for row in like),
            "input_px": _input_px(config) or _shared(row.input_px for row in like),
            "license": _license(card, info.tags or ()),
            "gated": bool(info.gated),
            "facts_source": (),  # it is in no index, and so has no row of its sources
        }
    )


def _family(architecture: str, model_type: str, library: str, known: Sequence[CheckpointRow]) -> str:
    """Return the family of the architecture in the index that begins with the most of the same words."""
    if library != "timm" and model_type and model_type != "timm_wrapper":
        return _FAMILY_OF_TYPE.get(model_type) or as_slug(model_type)
    parts = architecture.split("_")
    closest, family = 0, as_slug(parts[0]) or "unknown"
    for row in known:
        pairs = zip(parts, row.architecture.split("_"), strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) + (row.architecture == architecture)
        if same > closest:
            closest, family = same, row.family
    return family


def _pretraining(tag: str, model_type: str, card: dict[str, Any], known: Sequence[CheckpointRow]) -> str | None:
    """Return the kind of pretraining; None for a fine-tuned copy and where nothing tells it."""
    if tag:
        return _shared(row.pretraining for row in known if row.pretrain_tag == tag)
    return None if card.get("base_model") else _PRETRAINING_OF_TYPE.get(model_type)


def _shared(values: Iterable[Any]) -> Any:
    """Return the value that all share, None if they differ or there is none."""
    found = {value for value in values if value is not None}
    return found.pop() if len(found) == 1 else None


def _input_px(config: dict[str, Any]) -> int | None:
    timm = config.get("pretrained_cfg")
    size = timm.get("input_size") if isinstance(timm, dict) else config.get("image_size")
    side = size[-1] if isinstance(size, (list, tuple)) and size else size
    return side if type(side) is int and 8 <= side <= 4096 else None


def _license(card: dict[str, Any], tags: Iterable[str]) -> str | None:
    found = card.get("license") or next((tag[8:] for tag in tags if tag.startswith("license:")), None)
    return None if not isinstance(found, str) or found.lower() in ("other", "unknown", "") else found.lower()
