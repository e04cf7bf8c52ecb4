"""Candidates beyond the index: Hub ids and queries such as ``author:timm license:apache-2.0 params:<30M``.

A checkpoint that the index does not know gets a row of facts from what the Hub says of it: card, tags, ``config.json``
and the parameter counts of its safetensors header. Its weights are never downloaded. The metric then judges it as it
judges any checkpoint without scores: by those of its family, kind of pretraining and size.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hf_task2vec.errors import HubAccessError, HubError, HubNotFoundError, HubUnavailableError, SelectionError
from hf_task2vec.hub import REQUEST_TIMEOUT, HubSession
from hf_task2vec.hub_facts import FACTS, checkpoint_row, read_config
from hf_task2vec.schema import LOCAL_PREFIX

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

    from hf_task2vec.schema import CheckpointRow
    from hf_task2vec.zoo import ZooIndex

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 500
"""Models that a query lists at most, the most downloaded first, unless it says ``limit:N``."""
KEYS = ("author", "license", "library", "params", "tag", "limit")
EVIDENCE = "not in the index; judged by its family"
"""What a ranking says of a checkpoint whose facts come from the Hub."""

# Models for other inputs share tags and words with those for images.
_IMAGE_TASKS = ("image-classification", "image-feature-extraction", "zero-shot-image-classification")
_LIBRARIES = ("timm", "transformers", "open_clip")
_FACTORS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}
_THREADS = 8
_WHOLE_CONFIGS = 50  # of up to so many models config.json is read for the input size, which the Hub does not repeat


@dataclass(frozen=True)
class CandidateQuery:
    """A parsed query; see :func:`parse_query`.

    Attributes
    ----------
    author, license, library
        As the Hub names them; None for any.
    tags
        All of which a model must have.
    words
        Text that its id must hold.
    params
        Comparisons of the number of parameters: operator and number.
    limit
        Models to list at most.
    """

    author: str | None = None
    license: str | None = None
    library: str | None = None
    tags: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    params: tuple[tuple[str, float], ...] = ()
    limit: int = DEFAULT_LIMIT

    def fits(self, count: float | None) -> bool:
        """Say whether a number of parameters meets the comparisons; an unknown one (None) meets none."""
        tests: dict[str, Callable[[float, float], bool]] = {
            "<": lambda a, b: a < b,
            "<=": lambda a, b: a <= b,
            ">": lambda a, b: a > b,
            ">=": lambda a, b: a >= b,
        }
        return all(count is not None and tests[operator](count, number) for operator, number in self.params)


@dataclass(frozen=True)
class Candidates:
    """What ``candidates=`` stands for.

    Attributes
    ----------
    ids
        Hub ids; None for the whole index.
    rows
        Facts of those that the index does not know.
    queries
        The queries that were asked.
    """

    ids: tuple[str, ...] | None
    rows: tuple[CheckpointRow, ...] = ()
    queries: tuple[str, ...] = ()


def is_query(text: str) -> bool:
    """Say whether a text is a query rather than a Hub id."""
    return not text.startswith(LOCAL_PREFIX) and (":" in text or "/" not in text or " " in text.strip())


def parse_query(text: str) -> CandidateQuery:
    """Read a query: words and ``key:value`` parts, separated by spaces, all of which must hold.

    ``author:timm`` (user or organization), ``license:apache-2.0``, ``library:timm``, ``tag:image-classification``
    (repeatable), ``params:<30M`` (also ``<=``, ``>``, ``>=``; K, M and B are units; repeatable for a range),
    ``limit:200`` (models to list, the most downloaded first). Other words must occur in the model's id.

    Raises
    ------
    SelectionError
        A key is unknown, given twice, or its value is none.
    """
    query = CandidateQuery()
    for part in text.split():
        key, colon, value = part.partition(":")
        if not colon:
            query = replace(query, words=(*query.words, part))
            continue
        if key not in KEYS:
            known = ", ".join(f"{name}:" for name in KEYS)
            raise SelectionError(
                f"candidates query {text!r}: {key + ':'!r} is unknown; what would work: {known} and words of the id"
            )
        if not value:
            raise SelectionError(f"candidates query {text!r}: {key}: has no value; write it without a space after ':'")
        if key == "params":
            query = replace(query, params=(*query.params, _comparison(value, text)))
        elif key == "tag":
            query = replace(query, tags=(*query.tags, value))
        elif key == "limit":
            if not value.isdecimal() or int(value) < 1:
                raise SelectionError(f"candidates query {text!r}: limit:{value} is no positive whole number")
            query = replace(query, limit=int(value))
        elif getattr(query, key) is not None:
            raise SelectionError(
                f"candidates query {text!r}: {key}: is given twice; pass a list of two queries instead"
            )
        else:
            query = replace(query, **{key: value})  # type: ignore[arg-type]  # one of the texts
    if query == CandidateQuery(limit=query.limit):
        raise SelectionError(f"candidates query {text!r} asks for every model of the Hub; add an author:, tag: or word")
    return query


def _comparison(value: str, text: str) -> tuple[str, float]:
    match = re.fullmatch(r"(<=|>=|<|>)(\d+(?:\.\d+)?)([KMB]?)", value, re.IGNORECASE)
    if match is None:
        raise SelectionError(
            f"candidates query {text!r}: params:{value} is no comparison; write params:<30M, params:>=1.5M or the like"
        )
    return match[1], float(match[2]) * _FACTORS[match[3].upper()]


def resolve_candidates(
    given: str | Sequence[str] | None, zoo: ZooIndex, *, token: str | None = None, timeout: float | None = None
) -> Candidates:
    """Find out which checkpoints are meant, and facts of those that the index does not know.

    Parameters
    ----------
    given
        Hub ids and queries (see :func:`parse_query`), or one query; None for the whole index.
    zoo
        The index.
    token
        Hub token: private and gated models that it can read count too.
    timeout
        Seconds that all requests may take (default: ``$HF_TASK2VEC_HUB_TIMEOUT``, or 300).

    Raises
    ------
    SelectionError
        A query is malformed, or no model matches.
    HubError
        The Hub cannot be asked. An id that it does not know, or does not give, is left out with a warning.
    """
    if given is None or (isinstance(given, str) and not is_query(given)):
        return Candidates(given)  # type: ignore[arg-type]  # `Constraints` says what is wrong with a single id
    items = [given] if isinstance(given, str) else list(given)
    if not all(isinstance(item, str) for item in items):
        return Candidates(tuple(items))
    parsed = {item: parse_query(item) for item in items if is_query(item)}
    known = {row.key[0]: row for row in zoo.rows["checkpoints"]}
    named = [item for item in items if item not in parsed]
    session = HubSession(None, repo_type="model", token=token, timeout=timeout)
    infos = _named([item for item in named if item not in known and _is_hub_id(item)], session)
    ids = list(named)
    for text, query in parsed.items():
        found = _listed(query, text, session)
        infos |= {info.id: info for info in found if info.id not in known}
        ids += [info.id for info in found]
    rows = _rows(infos, zoo, session)
    left_out = set(infos) - {row.hub_id for row in rows}
    ids = [hub_id for hub_id in dict.fromkeys(ids) if hub_id not in left_out or hub_id in named]
    if parsed and not ids:
        raise SelectionError(f"no model that the Hub lists for {' or '.join(map(repr, parsed))} can be judged")
    return Candidates(tuple(ids), tuple(rows), tuple(parsed))


def _is_hub_id(text: str) -> bool:
    return not text.startswith(LOCAL_PREFIX) and re.fullmatch(r"[\w.-]+/[\w.-]+", text) is not None


def _named(ids: Iterable[str], session: HubSession) -> dict[str, ModelInfo]:
    """Ask about single models; those that cannot be had are left out with a warning."""
    infos: dict[str, ModelInfo] = {}
    for hub_id in dict.fromkeys(ids):
        one = HubSession(hub_id, repo_type="model", token=session.token, timeout=max(session.left, 1e-3))
        try:
            infos[hub_id] = one.call(
                "looking it up", one.api.model_info, hub_id, expand=FACTS, limit=REQUEST_TIMEOUT, attempts=2
            )
        except HubUnavailableError as error:
            logger.warning("what is not in the index cannot be looked up: %s", error)
            break
        except HubError as error:
            logger.warning("%s is left out: %s", hub_id, error)
    return infos


def _listed(query: CandidateQuery, text: str, session: HubSession) -> list[ModelInfo]:
    """List the models that a query asks for."""
    filters = [*query.tags, *([f"license:{query.license}"] if query.license else [])]
    filters += [query.library] if query.library else []
    bounds = [f"{'max' if sign[0] == '<' else 'min'}:{round(number)}" for sign, number in query.params]

    def ask() -> list[ModelInfo]:
        models = session.api.list_models(
            author=query.author,
            filter=filters or None,
            search=" ".join(query.words) or None,
            num_parameters=",".join(bounds) if len({bound[:3] for bound in bounds}) == len(bounds) and bounds else None,
            sort="downloads",
            limit=query.limit,
            expand=FACTS,
        )
        return list(models)

    found = session.call(f"listing models for {text!r}", ask)
    if len(found) == query.limit:
        logger.warning("only the %d most downloaded models for %r are looked at (limit:)", query.limit, text)
    fitting = [info for info in found if query.fits(info.safetensors.total if info.safetensors else None)]
    usable = [info for info in fitting if _is_image_model(info)]
    logger.info("%d models listed for %r, %d of them for images and of that size", len(found), text, len(usable))
    if not usable:
        raise SelectionError(
            f"no model on the Hub matches {text!r}: {len(found)} listed, {len(fitting)} of that size, none of them an "
            f"image model of {', '.join(_LIBRARIES)}; loosen the query"
        )
    return usable


def _is_image_model(info: ModelInfo) -> bool:
    if info.library_name == "timm" or "timm" in (info.tags or ()):
        return True
    return info.library_name in _LIBRARIES and info.pipeline_tag in _IMAGE_TASKS


def _rows(infos: dict[str, ModelInfo], zoo: ZooIndex, session: HubSession) -> list[CheckpointRow]:
    if not infos:
        return []

    def attempt(info: ModelInfo) -> CheckpointRow | str:
        one = HubSession(info.id, repo_type="model", token=session.token, timeout=max(session.left, 1e-3))
        try:
            if info.gated:
                one.call("asking for access", one.api.auth_check, info.id, limit=REQUEST_TIMEOUT)
            return checkpoint_row(info, read_config(one, info, whole=len(infos) <= _WHOLE_CONFIGS), zoo)
        except (HubAccessError, HubNotFoundError) as error:
            return str(error)
        except ValueError as error:
            return f"its facts are unusable: {error}"

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="hf_task2vec-facts") as pool:
        results = list(pool.map(attempt, infos.values()))
    rows = [row for row in results if not isinstance(row, str)]
    for hub_id, result in zip(infos, results, strict=True):
        if isinstance(result, str):
            logger.warning("%s is left out: %s", hub_id, result)
    families = Counter(row.family for row in rows)
    logger.info("%d candidates are not in the index and judged by their families: %s", len(rows), dict(families))
    return rows
