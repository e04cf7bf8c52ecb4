"""Facts of a checkpoint that the index does not know, from what the Hub says of it, without its weights."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from hf_task2vec.schema import CheckpointRow

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo
    from huggingface_hub.hf_api import ExpandModelProperty_T

    from hf_task2vec.hub import HubSession
    from hf_task2vec.zoo import ZooIndex

FACTS: list[ExpandModelProperty_T] = [
    "cardData",
    "config",
    "gated",
    "library_name",
    "pipeline_tag",
    "private",
    "safetensors",
    "sha",
    "tags",
]
"""What the Hub is asked to tell of a model."""

# Model types of transformers whose family the index calls otherwise, or whose pretraining they tell.
_FAMILY_OF_TYPE = {
    **dict.fromkeys(("dinov2", "dinov2_with_registers", "dinov3_vit", "siglip", "siglip_vision_model"), "vit"),
    **dict.fromkeys(("clip", "clip_vision_model", "vit_mae", "vit_msn", "ijepa"), "vit"),
    **dict.fromkeys(("convnextv2", "dinov3_convnext"), "convnext"),
    "mobilevitv2": "mobilevit",
    "pvt_v2": "pvt_v2",
}
_PRETRAINING_OF_TYPE = {
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2",
    "siglip": "siglip",
    "siglip_vision_model": "siglip",
    "clip": "clip",
    "clip_vision_model": "clip",
    "vit_mae": "mim",
}
_ARCHITECTURE_FACTS = ("gmacs",)


def read_config(session: HubSession, info: ModelInfo, *, whole: bool) -> dict[str, Any]:
    """Return what ``config.json`` of a model says.

    The file itself is read if the `whole` of it is wanted, or the Hub's answer does not tell the architecture.
    """
    config = dict(info.config or {})
    named = config.get("architecture") or config.get("model_type", "timm_wrapper") != "timm_wrapper"
    if named and not whole:
        return config
    path = session.download_first(["config.json"], revision=info.sha)
    if path is None:
        return config
    found = json.loads(path.read_text(encoding="utf-8"))
    return config | found if isinstance(found, dict) else config


def checkpoint_row(info: ModelInfo, config: dict[str, Any], zoo: ZooIndex) -> CheckpointRow:
    """Return a row of ``checkpoints.csv`` for a model, with what is known of its family.

    Parameters
    ----------
    info
        What the Hub says of it; see `FACTS`.
    config
        Its ``config.json``, or the part that the Hub repeats.
    zoo
        The index: what its checkpoints of the same architecture, family and pretraining tag have in common is taken
        over.

    Raises
    ------
    ValueError
        Nothing tells the architecture, or a fact is malformed.
    """
    library = _library(info, config)
    card = info.card_data.to_dict() if info.card_data else {}
    model_type = str(config.get("model_type") or "")
    architecture = config.get("architecture") or model_type or next(iter(config.get("architectures") or ()), None)
    if not isinstance(architecture, str) or not architecture:
        raise ValueError("its config.json names no architecture")
    architecture, _, tag = architecture.partition(".")
    tag = tag or _tag(info.id, architecture)
    like = zoo.checkpoints[zoo.checkpoints["architecture"] == architecture]
    total = info.safetensors.total if info.safetensors else None
    row: dict[str, Any] = {
        "hub_id": info.id,
        "library": library,
        "architecture": architecture,
        "family": _family(architecture, model_type, library, zoo),
        "pretrain_tag": tag or None,
        "pretraining": _pretraining(tag, model_type, card, zoo),
        "params_m": total / 1e6 if total else _shared(like["params_m"]),
        "input_px": _input_px(config) or _shared(like["input_px"]),
        "license": _license(card, info.tags or ()),
        "gated": bool(info.gated),
        "facts_source": (),  # it is in no index, and so has no row of its sources
    }
    return CheckpointRow(**row, **{name: _shared(like[name]) for name in _ARCHITECTURE_FACTS})


def _library(info: ModelInfo, config: dict[str, Any]) -> str:
    if info.library_name in ("timm", "transformers", "open_clip"):
        return str(info.library_name)
    return "timm" if "architecture" in config else "transformers" if "model_type" in config else "other"


def _tag(hub_id: str, architecture: str) -> str:
    """Return what follows the architecture in an id such as ``timm/resnet50.a1_in1k``."""
    name, _, tag = hub_id.rpartition("/")[2].partition(".")
    return tag if name == architecture else ""


def _family(architecture: str, model_type: str, library: str, zoo: ZooIndex) -> str:
    if library != "timm" and model_type and model_type != "timm_wrapper":
        return _FAMILY_OF_TYPE.get(model_type) or _slug(model_type)
    known = zip(zoo.checkpoints["architecture"], zoo.checkpoints["family"], strict=True)
    parts = architecture.split("_")
    closeness: Counter[str] = Counter()
    for other, family in known:
        same = 0
        for a, b in zip(parts, other.split("_"), strict=False):
            if a != b:
                break
            same += 1
        closeness[family] = max(closeness[family], same + (other == architecture))
    best = closeness.most_common(1)
    return best[0][0] if best and best[0][1] else _slug(parts[0])


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_.\-]", "_", text.lower()).lstrip("_.-") or "unknown"


def _pretraining(tag: str, model_type: str, card: dict[str, Any], zoo: ZooIndex) -> str | None:
    """Return the kind of pretraining; None for a fine-tuned copy and where nothing tells it."""
    if tag:
        frame = zoo.checkpoints
        found = set(frame.loc[frame["pretrain_tag"] == tag, "pretraining"].dropna())
        return str(found.pop()) if len(found) == 1 else None
    return None if card.get("base_model") else _PRETRAINING_OF_TYPE.get(model_type)


def _shared(values: Any) -> Any:
    """Return the value that all checkpoints of an architecture share, None if they differ or there is none."""
    found = set(values.dropna())
    return found.pop() if len(found) == 1 else None


def _input_px(config: dict[str, Any]) -> int | None:
    timm = config.get("pretrained_cfg")
    size = timm.get("input_size") if isinstance(timm, dict) else config.get("image_size")
    side = size[-1] if isinstance(size, (list, tuple)) and size else size
    return side if type(side) is int and 8 <= side <= 4096 else None


def _license(card: dict[str, Any], tags: Any) -> str | None:
    found = card.get("license") or next((tag[8:] for tag in tags if tag.startswith("license:")), None)
    return None if not isinstance(found, str) or found.lower() in ("other", "unknown", "") else found.lower()
