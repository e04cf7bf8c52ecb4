"""Which checkpoints of an index may be recommended under a user's constraints, and why the others may not."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from hf_task2vec.schema import LOCAL_PREFIX

if TYPE_CHECKING:
    import pandas as pd


class _Rule(NamedTuple):
    column: str
    passed: pd.Series
    failed: str  # the reason when the fact is known
    unknown: str  # the reason when it is not


def filter_checkpoints(
    frame: pd.DataFrame,
    *,
    max_params: float | None = None,
    max_gmacs: float | None = None,
    licenses: Collection[str] | None = None,
    library: str | None = None,
    input_size: int | None = None,
    ids: Collection[str] | None = None,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows of `frame` that meet every constraint, and how many fail each.

    A checkpoint of which a limited fact is unknown does not meet the limit. Weights on no Hub (``local:…``) are never
    candidates.
    """
    hub_id = frame["hub_id"]
    rules = [_Rule("hub_id", ~hub_id.isin(_local(frame)), "weights are on no Hub", "")]
    if ids is not None:
        rules.append(_Rule("hub_id", hub_id.isin(list(ids)), "not among the ids asked for", ""))
    if library is not None:
        rules.append(_Rule("library", frame["library"] == library, f"library is not {library}", ""))
    if max_params is not None:
        small = frame["params_m"] * 1e6 <= max_params
        rules.append(
            _Rule("params_m", small, f"more than {max_params:,.0f} parameters", "number of parameters unknown")
        )
    if max_gmacs is not None:
        rules.append(_Rule("gmacs", frame["gmacs"] <= max_gmacs, f"more than {max_gmacs:g} GMACs", "GMACs unknown"))
    if licenses is not None:
        accepted = frame["license"].isin([name.lower() for name in licenses])
        rules.append(_Rule("license", accepted, "licence not accepted", "licence unknown"))
    if input_size is not None:
        same = frame["input_px"] == input_size
        rules.append(_Rule("input_px", same, f"native image size is not {input_size} px", "native image size unknown"))
    keep, dropped = hub_id.notna(), {}
    for rule in rules:
        passed = rule.passed.fillna(False).astype(bool)
        known = frame[rule.column].notna()
        dropped[rule.unknown] = int((keep & ~known).sum())
        dropped[rule.failed] = int((keep & known & ~passed).sum())
        keep &= passed
    dropped["not in the index"] = len(set(ids or ()) - set(hub_id))
    return frame[keep].reset_index(drop=True), {reason: count for reason, count in dropped.items() if count}


def _local(frame: pd.DataFrame) -> list[str]:
    return [hub_id for hub_id in frame["hub_id"] if hub_id.startswith(LOCAL_PREFIX)]
