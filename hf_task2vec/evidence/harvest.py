"""Outcomes from the cards of the Hub's image classifiers, page by page; what was seen is remembered at its commit.

The state is a file of lines, one for each page of the list and one for each card that was read by itself, written as
soon as the answer is there: a harvest that ends for whatever reason goes on with the next request.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

from hf_task2vec.errors import HubAccessError, HubError, HubNotFoundError, ZooIndexError
from hf_task2vec.evidence.cards import LONGEST_CARD, CardError, Outcome, base_of, read_card, split_card
from hf_task2vec.evidence.outcomes import Added, add_outcomes
from hf_task2vec.files import cache_dir, sha256_bytes, why
from hf_task2vec.hub import HubSession, Token, without_tokens
from hf_task2vec.zoo import ZooIndex, parse_query

logger = logging.getLogger(__name__)

_PIPELINE = "image-classification"
_EXPAND = ("cardData", "model-index", "tags", "sha", "lastModified", "private", "library_name")
# As many as @huggingface/hub, the Hub's own client of the same list, asks for with `expand`.
_PAGE_SIZE, _LONGEST_PAGE = 500, 256 << 20
PATIENCE = 900.0
_THREADS = 8
_LONGEST_CHAIN = 4
# Harvests after which a card that cannot be had is given up.
_TRIES = 3
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9_][\w.\-]*", re.ASCII)
# In place of the next page's address when the last one was read, but not yet all that it leads to.
_AT_END = ""
# Reasons that the text of a card may do away with; lists hold its metadata only.
_IN_TEXT = frozenset({"no base", "no result", "no dataset"})

Json: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True)
class Harvest:
    """What a harvest came to."""

    index: ZooIndex = field(repr=False)
    """The index with the new rows."""
    state: Path
    """File that remembers what was seen."""
    listed: int
    """Repositories that are known by now, those of earlier harvests included."""
    cards: int
    """Cards that were read by themselves now, for the list lacked something."""
    outcomes: int
    """Outcomes that cards state."""
    rows: int
    """Scores that are new or changed in the index."""
    tasks: tuple[str, ...]
    """Tasks that are new."""
    skipped: Mapping[str, int]
    """Cards and outcomes left out, by reason."""
    finished: bool
    """Whether the list has come to its end, rather than to the limit."""

    def to_dict(self) -> Json:
        """Return plain JSON types."""
        facts = {name: getattr(self, name) for name in ("listed", "cards", "outcomes", "rows", "finished")}
        return {**facts, "tasks": list(self.tasks), "skipped": dict(self.skipped), "state": str(self.state)}


def harvest(
    index: ZooIndex,
    *,
    since: str | None = None,
    query: str | None = None,
    max_repositories: int | None = None,
    state: str | os.PathLike[str] | None = None,
    token: Token = None,
    timeout: float = PATIENCE,
    on_done: Callable[[int], object] = lambda n: None,
) -> Harvest:
    """Read outcomes of fine-tuning from the model cards of the Hub, and add them to an index.

    The list of image classifiers is read page by page, the most recently changed first; a card by itself only where the
    list lacks its base, data or result. What was seen before at the same commit is not asked for again, nor is anything
    after an interruption: the same call goes on where the last one ended.

    Parameters
    ----------
    index
        What to add to.
    since
        Date (``YYYY-MM-DD``): only what has changed since. By default, since the last harvest that came to its end.
    query
        Which repositories, as for ``candidates=`` of `select_backbone`: ``"author:timm"``, words of the id, …
    max_repositories
        Repositories to look at now.
    state
        File that remembers what was seen; by default one for each Hub and query in the cache folder.
    token
        Hub token. Private repositories are left out all the same.
    timeout
        Seconds that one request may take with all its tries: the Hub lets one wait for minutes when it is asked often.
    on_done
        Called with the number of repositories after each page and each card.

    Raises
    ------
    HubError
        The Hub cannot be reached, or goes on refusing. What was read is kept, and the same call goes on from there.
    ZooIndexError
        The date is none, or the state cannot be kept.
    """
    since = None if since is None else _date(since)
    memory = _Memory(_state_path(query) if state is None else Path(state), token)
    reader = _Reader(memory, token, timeout, on_done)
    finished = reader.walk(_parameters(query), since, math.inf if max_repositories is None else max_repositories)
    reader.follow_chains(index)
    if finished:
        memory.keep({}, next=None, end=True)
    outcomes = [one for seen in memory.seen.values() for one in seen["found"]]
    bases = {name: seen["base"] for name, seen in memory.seen.items() if seen.get("base")}
    added: Added = add_outcomes(index, outcomes, bases)
    reasons = (seen.get("reason") or ("card" in seen and "not yet read") for seen in memory.seen.values())
    skipped = Counter(reason for reason in reasons if reason) + added.skipped
    return Harvest(
        added.index, memory.path, len(memory.seen), reader.read, len(outcomes), added.rows, added.tasks,
        dict(skipped.most_common()), finished,
    )  # fmt: skip


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ZooIndexError(f"since={text!r} is no date; write YYYY-MM-DD") from None


def _parameters(query: str | None) -> Json:
    """Return the parameters of the first page's address."""
    asked = parse_query(query) if query else {}
    named = {name: asked[name] for name in ("author", "filter", "search", "num_parameters") if asked.get(name)}
    return {"pipeline_tag": _PIPELINE, "sort": "lastModified", "limit": _PAGE_SIZE, "expand": list(_EXPAND), **named}


def _state_path(query: str | None) -> Path:
    from huggingface_hub import constants

    name = sha256_bytes(f"{constants.ENDPOINT}\0{query or ''}".encode())[:16]
    return cache_dir() / "harvest" / f"{name}.jsonl"


class _Memory:
    """What was seen, in memory and as lines of a file; a line that was cut off is as if never written."""

    def __init__(self, path: Path, token: Token) -> None:
        self.path, self._token, self._lock = path, token, threading.Lock()
        self.seen: dict[str, Json] = {}
        """By repository: ``sha``, ``base``, ``found`` (outcomes) or ``reason``; ``card`` and ``tags`` while its text is
        still to be read."""
        self.next: str | None = None
        """Address of the page to go on with, None if a list is to be begun."""
        self.began = self.until = ""
        """Day on which the present list was begun, and the last that came to its end."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as handle:
                handle.seek(0)
                whole = 0
                for line in handle:
                    if not line.endswith(b"\n"):
                        break
                    self._take(json.loads(line))
                    whole += len(line)
                handle.truncate(whole)
        except OSError as error:
            raise ZooIndexError(f"what is harvested cannot be kept at {path}: {why(error)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ZooIndexError(f"{path} holds no state of a harvest ({error}); name another file") from error

    def _take(self, line: Json) -> None:
        self.next, self.began = line.get("next", self.next), line.get("began", self.began)
        if line.get("end"):
            self.until = self.began
        for name, seen in line["seen"].items():
            self.seen[name] = seen | {"found": [Outcome(**one) for one in seen.get("found", ())]}

    def keep(self, seen: Mapping[str, Json], **more: Any) -> None:
        """Write a line, and remember it."""
        with self._lock:
            text = json.dumps({"seen": seen, **more}, separators=(",", ":"))
            text = without_tokens(text, self._token)
            try:
                with self.path.open("ab") as handle:
                    handle.write(text.encode() + b"\n")
            except OSError as error:
                raise ZooIndexError(f"what is harvested cannot be kept at {self.path}: {why(error)}") from error
            self._take(json.loads(text))

    def knows(self, name: str, sha: object) -> bool:
        """Say whether a repository was seen at a commit."""
        return name in self.seen and self.seen[name]["sha"] == sha


class _Reader:
    """Asks the Hub, and puts what it says into the memory."""

    def __init__(self, memory: _Memory, token: Token, timeout: float, on_done: Callable[[int], object]) -> None:
        self._memory, self._on_done = memory, on_done
        self._session = partial(HubSession, repo_type="model", token=token, timeout=timeout)
        self._endpoint = self._session(None).api.endpoint
        self.read = 0

    def walk(self, parameters: Json, since: str | None, most: float) -> bool:
        """Read the list to its end, or to `most` repositories that are new; return whether it has ended."""
        memory = self._memory
        since = since or memory.until
        began = {} if memory.next is not None else {"began": datetime.now(timezone.utc).date().isoformat()}
        address = memory.next or f"{self._endpoint}/api/models?{urlencode(parameters, doseq=True)}"
        self.read_texts()
        while memory.next != _AT_END:
            items, following = self._page(address)
            recent = [item for item in items if str(item.get("lastModified", since))[:10] >= since]
            new = dict(self._judged(recent))
            taken = dict(list(new.items())[: int(min(most, len(new)))])
            most -= len(taken)
            if len(taken) == len(new):
                address = following if following is not None and len(recent) == len(items) else _AT_END
            memory.keep(taken, next=address, **began)
            began = {}
            self._on_done(len(taken))
            self.read_texts()
            if most <= 0:
                break
        return memory.next == _AT_END

    def _page(self, address: str) -> tuple[list[Json], str | None]:
        if not address.startswith(f"{self._endpoint}/api/models"):  # a token is for the Hub only
            raise HubError(f"the Hub's list goes on at another place ({address.partition('?')[0]}); it is not followed")
        items, following = self._session(None).get("listing models", address, _parsed, most=_LONGEST_PAGE)
        if not isinstance(items, list):
            raise HubError(f"{address.partition('?')[0]} answers with no list of models")
        return [item for item in items if isinstance(item, dict)], following

    def _judged(self, items: Iterable[Json]) -> Iterator[tuple[str, Json]]:
        """What a list says of each repository that was not seen at this commit."""
        for item in items:
            name, sha = item.get("id"), item.get("sha")
            if not isinstance(name, str) or not _REPOSITORY.fullmatch(name) or len(name) > 150:
                yield str(name)[:150], {"sha": None, "reason": "no name of a repository"}
            elif item.get("private"):
                yield name, {"sha": sha, "reason": "private"}
            elif not self._memory.knows(name, sha):
                yield name, self._judge(name, item)

    def _judge(self, name: str, item: Json) -> Json:
        card = {"library_name": item.get("library_name"), "model-index": item.get("model-index")}
        card |= found if isinstance(found := item.get("cardData"), dict) else {}
        tags = [tag for tag in _list(item.get("tags")) if isinstance(tag, str) and tag.startswith("base_model:")]
        sha = item["sha"] if re.fullmatch(r"[0-9a-f]{40}", str(item.get("sha"))) else None
        seen = _told(name, sha, card, "", tags, self._endpoint)
        if seen.get("reason") not in _IN_TEXT:
            return seen
        kept = ("base_model", "datasets", "model-index", "library_name", "tags")
        small = {key: value for key, value in card.items() if key in kept}
        fits = len(json.dumps(small)) < LONGEST_CARD
        return {"sha": sha, "base": seen.get("base"), "card": small if fits else {}, "tags": tags[:10]}

    def read_texts(self) -> None:
        """Read the cards of which the list has told too little."""
        waiting, failed = [name for name, seen in self._memory.seen.items() if "card" in seen], 0
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="hf_task2vec-cards") as pool:
            try:
                for error in pool.map(self._read_text, waiting):
                    self._on_done(0)
                    failed = 0 if error is None else failed + 1
                    if error is not None and failed == min(_THREADS, len(waiting)):
                        raise error  # not a card, but the Hub is in trouble
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what is on its way is waited for and kept
                raise

    def _read_text(self, name: str) -> HubError | None:
        """Read one card; what cannot be had now is left for the next time, and given up after some."""
        seen, error = self._memory.seen[name], None
        address = f"{self._endpoint}/{name}/resolve/{seen['sha'] or 'main'}/README.md"
        told: Json = {"sha": seen["sha"]}
        try:
            data, _ = self._session(name).get("reading its card", address, bytes, most=4 * LONGEST_CARD)
            self.read += 1
            metadata, text = split_card(data.decode("utf-8", "replace"))
            told = _told(name, seen["sha"], {**seen["card"], **metadata}, text, seen["tags"], self._endpoint)
        except CardError as found:
            told["reason"] = str(found)
        except HubAccessError:
            told["reason"] = "no access"
        except HubNotFoundError:
            told["reason"] = "no card"
        except HubError as found:
            error, tries = found, seen.get("tries", 0) + 1
            told = seen | {"tries": tries} if tries < _TRIES else {**told, "reason": "could not be read"}
        self._memory.keep({name: told})
        return error

    def follow_chains(self, index: ZooIndex) -> None:
        """Ask for the bases of bases that neither the index nor the list knows."""
        seen = self._memory.seen
        for _ in range(_LONGEST_CHAIN):
            bases = {base for one in seen.values() if (base := one.get("base")) and base not in index.names}
            unknown = sorted(base for base in bases - seen.keys() if _REPOSITORY.fullmatch(base))
            for name in unknown:
                self._memory.keep({name: self._looked_up(name)})
            self.read_texts()
            if not unknown:
                return

    def _looked_up(self, name: str) -> Json:
        address = f"{self._endpoint}/api/models/{name}?{urlencode({'expand': _EXPAND}, doseq=True)}"
        try:
            item, _ = self._session(name).get("looking it up", address, _parsed, most=_LONGEST_PAGE)
        except (HubAccessError, HubNotFoundError):
            return {"sha": None, "reason": "a base that is not on the Hub"}
        return self._judge(name, item if isinstance(item, dict) else {})


def _parsed(text: bytes) -> Any:
    """Read JSON; Python refuses numbers of thousands of digits."""
    try:
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 19 else float(digits))
    except RecursionError:
        raise ValueError("its answer is nested too deeply") from None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _told(name: str, sha: str | None, card: Json, text: str, tags: list[str], endpoint: str) -> Json:
    """Return what a card says, ready for JSON."""
    found: Json = {"sha": sha}
    try:
        found["base"] = base_of(name, card, text, tags)[0]
        address = f"{endpoint}/{name}/blob/{sha or 'main'}/README.md"
        outcomes = read_card(name, card, text, tags, commit=sha, address=address)
        found["found"] = [{key: value for key, value in asdict(one).items() if value is not None} for one in outcomes]
    except CardError as error:
        found["reason"] = str(error)
    return found
