"""What model cards say of fine-tuned image classifiers: base, data, result, and how it was reached.

Cards are anybody's text: nothing in them is trusted, and each ends in outcomes or in a reason for leaving it out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

#: Characters of a card, and of its metadata, beyond which nobody has written it by hand or by a trainer.
LONGEST_CARD, LONGEST_HEAD = 1 << 18, 1 << 16
_LONGEST_NAME = 96
# Brackets in metadata: a parser needs the square of their number.
_MOST_BRACKETS = 1000
# Names of loaders and stand-ins where the name of the data should be.
_LOADERS = re.compile(
    r"image_?folder|audiofolder|webdataset|json|csv|parquet|arrow|pandas|generator|unknown|none|custom|local|dataset|"
    r"datasetx|default|n/a|null"
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+|nan|inf)"
_VALUE = re.compile(rf"\{{?\s*(?:'\w+':\s*)?{_NUMBER}\s*(%?)", re.IGNORECASE)
_TRAINER = re.compile(
    r"fine-?tuned version of \[?([^\]\s(),]{1,200})\]?(?:\((\S{0,300}?)\))?,? on (?:the |an? )?(.{1,150}?) dataset",
    re.IGNORECASE,
)
_BY_HAND = re.compile(
    r"(?:base[ _]model|fine-?tuned from(?: model)?|model architecture)\b(?:\W{0,6}optional\b)?[^\n\w/]*([^\n]{3,300})",
    re.IGNORECASE,
)
_LINK = re.compile(r"(?:huggingface\.co|hf\.co)/(?!datasets/|spaces/)([A-Za-z0-9][\w.\-]*/[\w.\-]+)")
_DATA_LINK = re.compile(r"dataset source\W{0,8}(?:\[[^\]]*\]\()?https?://(?:www\.)?([^\s)\]]{5,200})", re.IGNORECASE)
_RATE = re.compile(
    rf"\b(?:initial_)?(?:learning[_ ]rate|lr)\b[`'\"*]*\s*(?:[:=|]|of|was|is)?\s*['\"]?\s*{_NUMBER}", re.IGNORECASE
)
_RATE_ALONE = re.compile(r"\b(\d(?:\.\d+)?e-\d+),? (?:effective )?batch", re.IGNORECASE)
_EPOCHS = re.compile(rf"\b(?:num_)?(?:train_)?epochs?\b[`'\"*]*\s*[:=]\s*{_NUMBER}", re.IGNORECASE)
_STOPPED = re.compile(r"planned epochs\D{0,9}\d+\D{1,9}trained\D{0,9}(\d+)", re.IGNORECASE)
_REPORT = re.compile(r"^[ \t]*accuracy[ \t]+([01]?\.\d+|1\.0+)[ \t]+(\d+)[ \t]*$", re.MULTILINE)
_BULLET = re.compile(r"^( {0,20})[-*+] {1,20}([^\n:]{1,80}?)(?::[ *_`]*([^\n]{0,200}))?$", re.MULTILINE)
_PROSE = re.compile(
    r"(?:accuracy\b[^\n%]{0,40}?(\d{1,3}(?:\.\d+)?) ?%|(\d{1,3}(?:\.\d+)?) ?% ?(?:acc\b|accuracy|on the (test|valid)))",
    re.IGNORECASE,
)
_BROKEN = re.compile(
    r"^[ \t]*[-*] (?:(?:\w* )?(?:eval_)?loss: (?:nan|inf)|step: 0[ \t]*$)", re.IGNORECASE | re.MULTILINE
)
_SPLITS = {
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("train", "training"), "train"),
}
_FILLERS = re.compile(r"set|the|on|of|score|eval|evaluation|final|best|overall|model|top1|classification")
_METRICS = {
    "accuracy": "top1", "acc": "top1", "f1": "f1", "f1 weighted": "f1", "f1 macro": "macro_f1", "macro f1": "macro_f1",
}  # fmt: skip
_FROZEN = re.compile(r"linear.?prob|frozen", re.IGNORECASE)
_ADAPTERS = re.compile(r"(?:^|[^a-z])(?:lora|dora|peft|adapter)(?:[^a-z]|$)", re.IGNORECASE)
# Words of architectures that exclude each other: a name with one, of a base with another, contradicts itself.
_KINDS = ("vit", "swin", "convnext", "resnet", "mobilenet", "efficientnet", "densenet", "clip")


class CardError(Exception):
    """A card tells no outcome; the message is the reason, the same for all cards of its kind."""


@dataclass(frozen=True)
class Outcome:
    """One evaluation of one fine-tuned checkpoint."""

    repository: str
    base: str
    """The base model as the card states it: a Hub id, or a name."""
    dataset: str
    """Hub id or name; of data that only the repository's name tells, that name without the base's."""
    value: float
    """A share."""
    metric: str = "top1"
    base_from: Literal["metadata", "text", "name"] = "metadata"
    dataset_from: Literal["card", "name"] = "card"
    config: str | None = None
    split: str | None = None
    """As stated; often the split that was loaded, of which a part was held out."""
    method: Literal["full", "adapter", "frozen", "multitask"] = "full"
    epochs: float | None = None
    learning_rate: float | None = None
    n_train: int | None = None
    n_test: int | None = None
    commit: str | None = None
    address: str | None = None

    @property
    def owner(self) -> str:
        """Who trained it."""
        return self.repository.partition("/")[0]


@dataclass(frozen=True)
class _Result:
    value: float
    metric: str = "top1"
    split: str | None = None
    names: tuple[str, ...] = ()
    config: str | None = None
    protocol: str = ""
    n_train: int | None = None
    n_test: int | None = None


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Return the metadata of a README and its text; metadata that are no mapping are none."""
    import yaml

    if len(text) > LONGEST_CARD:
        raise CardError("too long")
    match = re.match(r"\s*---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", text, re.DOTALL | re.MULTILINE)
    if match is None:
        return {}, text
    if len(match[1]) > LONGEST_HEAD:
        raise CardError("too long")
    if match[1].count("[") + match[1].count("{") > _MOST_BRACKETS:
        raise CardError("unreadable metadata")

    class Loader(yaml.SafeLoader):
        """Without references, by which a small text stands for a huge one."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise CardError("unreadable metadata")
            return super().compose_node(parent, index)

    try:
        found = yaml.load(match[1], Loader)
    except Exception as error:
        raise CardError("unreadable metadata") from error
    return found if isinstance(found, dict) else {}, text[match.end() :]


def read_card(
    repository: str, metadata: Mapping[str, Any], text: str = "", tags: Iterable[str] = (), **more: Any
) -> tuple[Outcome, ...]:
    """Return what a card says.

    Parameters
    ----------
    repository
        Its Hub id.
    metadata
        The mapping at its head, or what a list of the Hub repeats of it.
    text
        The rest, if that has been read.
    tags
        What the Hub tags it with.
    more
        Further attributes of all outcomes: ``commit``, ``address``.

    Raises
    ------
    CardError
        It tells no outcome.
    """
    base, base_from = base_of(repository, metadata, text, tags)
    if _contradicts(repository, base):
        raise CardError("its name contradicts its base")
    facts = _facts(text)
    if facts.pop("broken"):
        raise CardError("a run that broke")
    results = list(_indexed(metadata)) or list(_told(metadata, text))
    if not results:
        raise CardError("no result")
    adapter = metadata.get("library_name") == "peft" or _ADAPTERS.search(repository)
    several = len({result.names for result in results if result.names}) > 2
    frozen = _FROZEN.search(repository) or any(_FROZEN.match(result.protocol) for result in results)
    method = "multitask" if several else "adapter" if adapter else "frozen" if frozen else "full"
    how: dict[str, Any] = {"method": method, **facts, **more}
    found = []
    for result in results:
        dataset, dataset_from, config = _dataset(repository, base, metadata, text, result)
        outcome = Outcome(repository, base, dataset, result.value, result.metric, base_from, dataset_from, config)
        found.append(replace(outcome, split=result.split, n_train=result.n_train, n_test=result.n_test, **how))
    return tuple(found)


def _texts(value: Any) -> list[str]:
    """Return the short texts of a value that should be a text or a list of them."""
    items = value if isinstance(value, list) else [value]
    return [item.strip() for item in items[:50] if isinstance(item, str) and 0 < len(item.strip()) <= _LONGEST_NAME]


# ------------------------------------------------------------------------------------------------------------ the base


def base_of(
    repository: str, metadata: Mapping[str, Any], text: str = "", tags: Iterable[str] = ()
) -> tuple[str, Literal["metadata", "text", "name"]]:
    """Return the base model that a card states, and where; arguments and errors as of :func:`read_card`."""
    found = list(dict.fromkeys(_texts(metadata.get("base_model"))))
    found = found or [tag.rpartition(":")[2] for tag in tags if tag.startswith("base_model:")]
    found = list(dict.fromkeys(found or [name for name in _texts(metadata.get("tags")) if name.startswith("timm/")]))
    if len(found) > 1:
        raise CardError("several bases")
    if found:
        base, base_from = found[0].removeprefix("https://huggingface.co/"), "metadata"
    elif match := _TRAINER.search(text):
        link = _LINK.search(match[2] or "")
        base, base_from = link[1] if link else match[1], "text"
    elif match := _BY_HAND.search(text):
        link = _LINK.search(match[1]) or _HUB_ID.search(match[1]) or re.search(r"[a-z]\w*-[\w.\-]*\d[\w.\-]*", match[1])
        base, base_from = (link[1] if link and link.re.groups else link[0] if link else ""), "text"
    else:
        # ``vit-base-patch16-224-finetuned-leaves``: what stands before is a checkpoint's name
        match = re.match(r"(.+?\d.*?)[-_](?:finetuned|ft|lora)[-_]", repository.rpartition("/")[2])
        base, base_from = match[1] if match else "", "name"
    base = base.strip("`*_.,;:'\" ").replace("-224-21k", "-224-in21k")
    if not base:
        raise CardError("no base")
    if base.startswith(("/", ".", "~")) or base.count("/") > 1 or re.search(r"checkpoint-\d+$", base):
        raise CardError("its base is in no repository")
    if base == repository:
        raise CardError("its base is itself")
    return base, base_from  # type: ignore[return-value]


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+(?:v\d)?", name.lower()))


def _contradicts(repository: str, base: str) -> bool:
    named, stated = (
        {kind for kind in _KINDS for word in _words(name.rpartition("/")[2]) if word.startswith(kind)}
        for name in (repository, base)
    )
    return bool(named and stated and not named & stated)


# ------------------------------------------------------------------------------------------------------------ the data


def _dataset(
    repository: str, base: str, metadata: Mapping[str, Any], text: str, result: _Result
) -> tuple[str, Literal["card", "name"], str | None]:
    """Return the data of a result, who says so, and the configuration."""
    if link := _DATA_LINK.search(text):
        parts = link[1].rstrip("/.,").split("/")
        return "/".join(parts[-2 if "huggingface.co" in parts[0] else -1 :]), "card", result.config
    listed = [name for name in _texts(metadata.get("datasets")) if _is_data(name)]
    named = [name for name in result.names if _is_data(name)]
    if not named and not listed and (match := _TRAINER.search(text)):
        named = [name for name in _texts(match[3].strip("[]`* ").partition("](")[0]) if _is_data(name)]
    if named and "local" in result.names:  # a folder of the author's
        return named[0], "name", result.config
    if len(listed) > 1:  # the one that is meant
        listed = [name for name in listed if _tail(name) in map(_tail, named)]
        if not listed:
            raise CardError("several datasets")
    if found := sorted((*listed, *named), key=lambda name: "/" not in name):  # a Hub id, or else what is listed
        return found[0], "card", result.config
    if guess := data_in_name(repository, base):
        return guess, "name", None
    raise CardError("no dataset")


def _is_data(name: str) -> bool:
    words = name.strip("[]`* ").lower()
    return not _LOADERS.fullmatch(words) and len(words.split()) <= 5 and bool(re.fullmatch(r"[\w.\-/ ():]+", words))


def _tail(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.rpartition("/")[2].lower())


# Words of repository names that tell of the run or the network, not of the data.
_OF_RUNS = re.compile(
    r"fine|tun(?:ed|ing)|finetun(?:ed?|ing)|ft|models?|classif(?:ier|ication|y)|images?|img|detect(?:ion|or)|recognition|"
    r"vit|vision|transformer|trainer|base|tiny|small|large|huge|xs|xl|nano|mini|demo|test|my|awesome|new|final|best|latest|"
    r"head|adamw?|adamax|sgd|rms|rmsprop|lr|folds?|epochs?|ep|bs|batch|seed|exp|run|lora|peft|net|network|and|from|scratch|"
    r"the|hf|hub|pretrain(?:ed)?|full|data|dataset|example|notebook|colab|using|species|augmented|shuffled|version|lr\d+|"
    r"\d+[a-z]{0,2}|v\d+|[a-z]|\D{1,5}\d{1,3}"
)
# Data whose names look like counts of something.
_NUMBERED = frozenset({"cifar10", "cifar100", "food101", "stl10", "fer2013", "caltech101", "flowers102"})


def data_in_name(repository: str, base: str) -> str | None:
    """Return the words of a repository's name that are neither of the base nor of the run; None if none are left."""
    name = repository.rpartition("/")[2]
    after = re.split(r"finetuned?[-_]", name, maxsplit=1)[-1]
    of_base = set(re.findall(r"[a-z0-9]+", base.lower())) | _words(base)
    found = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "-", after).lower())
    words = [word for word in found if word in _NUMBERED or not (word in of_base or _OF_RUNS.fullmatch(word))]
    return "_".join(words[:6]) or None


# ---------------------------------------------------------------------------------------------------------- the result


def _indexed(metadata: Mapping[str, Any]) -> Iterator[_Result]:
    """Results of the ``model-index``, in whatever order and with whatever parts missing."""
    index = metadata.get("model-index")
    for model in index[:5] if isinstance(index, list) else ():
        results = model.get("results") if isinstance(model, dict) else None
        for result in results[:50] if isinstance(results, list) else ():
            if isinstance(result, dict):
                yield from _results_of(result)


def _results_of(result: Mapping[str, Any]) -> Iterator[_Result]:
    task, data = (part if isinstance(part := result.get(name), dict) else {} for name in ("task", "dataset"))
    if task.get("type", "image-classification") != "image-classification":
        return
    metrics = result.get("metrics")
    found: dict[str, float] = {}
    for metric in metrics[:50] if isinstance(metrics, list) else ():
        if isinstance(metric, dict) and isinstance(metric.get("type"), str):
            value, kind = _number(metric.get("value")), metric["type"].lower()
            if value is not None and kind in ("accuracy", "f1", "precision", "recall"):
                found.setdefault(kind, value)
    per_cent = any(1.0 < value <= 100.0 for value in found.values())
    kind = next((kind for kind in ("accuracy", "f1") if kind in found), None)
    share = None if kind is None else round(found[kind] / 100.0, 12) if per_cent else found[kind]
    if kind is None or share is None or not 0.0 <= share <= 1.0:
        return
    args, config, split = data.get("args"), *(_texts(data.get(name)) for name in ("config", "split"))
    more = args if isinstance(args, dict) else {}
    counts = {name: count for name in ("n_train", "n_test") if type(count := more.get(name)) is int and 0 < count < 1e9}
    config = [name for name in config or _texts(args) if name not in ("default", "plain_text")]
    names = tuple(_texts(data.get("name")) + _texts(data.get("type")))
    protocol = next(iter(_texts(more.get("protocol"))), "")
    yield _Result(share, _METRICS[kind], next(iter(split), None), names, next(iter(config), None), protocol, **counts)


def _number(value: Any) -> float | None:
    """Return a finite number ≥ 0, also of a text; None for anything else."""
    if isinstance(value, str):
        match = _VALUE.fullmatch(value.strip())
        value = float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1e6:
        return None
    return float(value)


def _share(text: str) -> float | None:
    """Return the share that a text begins with; numbers above 1 are per cent, with or without the sign."""
    match = _VALUE.match(text.strip().lstrip("*_`~ "))
    value = None if match is None else _number(float(match[1]))
    if match is None or value is None or value > 100.0:
        return None
    return round(value / 100.0, 12) if match[2] or value > 1.0 else value


def _told(metadata: Mapping[str, Any], text: str) -> Iterator[_Result]:
    """Results that only the text tells: the first of the ways to write them that gives any."""
    if match := _REPORT.search(text):
        return iter([_Result(float(match[1]), n_test=int(match[2]))])
    for way in (_bullets(text), _tables(metadata, text), _prose(text)):
        if found := list(way):
            found = [result for result in found if result.metric == "top1"] or found[:1]
            if all(result.split == "train" for result in found):
                raise CardError("accuracy on the training split only")
            return iter([result for result in found if result.split != "train"])
    return iter(())


def _labelled(label: str, value: str) -> _Result | None:
    """Return the result that a label and its value state: the label must be a metric's as a whole."""
    words = [word for word in re.findall(r"[a-z0-9]+", label.lower()) if not _FILLERS.fullmatch(word)]
    if {"pre", "pretrained", "zero", "shot", "before"} & set(words):
        return None
    splits = [_SPLITS[word] for word in words if word in _SPLITS]
    rest = " ".join(word for word in words if word not in _SPLITS and word not in ("fine", "tuned", "finetuned"))
    if not rest and "tuned" in label.lower():
        rest = "accuracy"
    share = _share(value)
    return None if rest not in _METRICS or share is None else _Result(share, _METRICS[rest], next(iter(splits), None))


def _bullets(text: str) -> Iterator[_Result]:
    heading = ""
    for match in _BULLET.finditer(text[:LONGEST_CARD]):
        label, value = match[2].strip("*_` "), (match[3] or "").strip()
        if not value:
            heading = label
        elif (found := _labelled(f"{heading} {label}" if match[1] and heading else label, value)) is not None:
            yield found
        elif not match[1]:
            heading = ""


def _tables(metadata: Mapping[str, Any], text: str) -> Iterator[_Result]:
    """Results of the first table that is no log of a training: one a row, one a split, or one a dataset."""
    for block in re.findall(r"(?:^[ \t]*\|[^\n]*\n?){3,}", text[:LONGEST_CARD], re.MULTILINE):
        head, _, *body = (
            [cell.strip(" *`") for cell in line.strip().strip("|").split("|")] for line in block.split("\n")
        )
        names = [name.lower() for name in head]
        if {"step", "epoch", "training loss", "train loss"} & set(names):
            continue
        listed = _texts(metadata.get("datasets"))
        if len(listed) > 1 and len(head) >= len(listed) + 1:
            if rows := [
                row for row in body if len(row) == len(head) and not re.search("pre-?train|zero", row[0], re.IGNORECASE)
            ]:
                shares = [_share(cell) for cell in rows[-1][1:]]
                yield from (
                    _Result(x, "top1", None, (name,)) for name, x in zip(listed, shares, strict=False) if x is not None
                )
            return
        column = next((i for i, name in enumerate(names) if name in ("accuracy", "acc", "test accuracy")), None)
        for row in body:
            if column is not None and len(row) == len(head):
                found = _labelled(f"{row[0] if row[0].lower() in _SPLITS else ''} {names[column]}", row[column])
            else:
                found = _labelled(row[0], row[1]) if len(row) > 1 else None
            if found is not None:
                yield found
                if found.split is None:
                    return
        return


def _prose(text: str) -> Iterator[_Result]:
    match = _PROSE.search(text[:LONGEST_CARD])
    if match and (share := _share((match[1] or match[2]) + "%")) is not None:
        yield _Result(share, "top1", {"test": "test", "valid": "validation"}.get((match[3] or "").lower()))


def _facts(text: str) -> dict[str, Any]:
    """Return learning rate and epochs, and whether the run went wrong or never began."""
    rate = _RATE.search(text) or _RATE_ALONE.search(text)
    epochs = _STOPPED.search(text) or _EPOCHS.search(text)
    learning_rate, number = (None if match is None else _number(float(match[1])) for match in (rate, epochs))
    broken = _BROKEN.search(text)
    return {
        "learning_rate": learning_rate or None,
        "epochs": number or None,
        "broken": bool(broken) or (learning_rate or 0.0) >= 1.0,
    }


def sizes_agree(value: float, n: int) -> bool:
    """Say whether a share can be one of `n` images, as far as its digits tell."""
    return math.isclose(value * n, round(value * n), abs_tol=max(n * 10.0 ** -len(repr(value)), 1e-6))
