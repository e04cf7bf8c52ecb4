"""What a recommended checkpoint, and the second stage, must keep to."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from hf_task2vec.errors import SelectionError
from hf_task2vec.selection.experts import Experts
from hf_task2vec.zoo import LOCAL_PREFIX, CheckpointRow, resolve_candidates

if TYPE_CHECKING:
    import pandas as pd

    from hf_task2vec.zoo import ZooIndex

logger = logging.getLogger(__name__)

# Weight, gradient and two moments of a parameter in float32.
_TRAINED_BYTES = 16


@dataclass(frozen=True)
class Constraints:
    """Limits that a recommended checkpoint must meet; None means no limit.

    Attributes
    ----------
    max_params
        Most parameters (a count, such as 30e6).
    max_gmacs
        Most multiply-accumulates for one image at the checkpoint's input size, in 10⁹.
    device_memory
        Bytes of the device to train on. Left out is what cannot be fine-tuned there at all: in float32 the weights,
        their gradients and the two moments of Adam take 4 · 4 bytes a parameter (as many as in mixed precision:
        Rajbhandari et al. 2020, section 3.1). Activations come on top and grow with the batch; the index has no fact to
        tell them by.
    latency
        Most milliseconds for one image on a desktop processor (Core i9, float32): 1000 over the images a second
        (``throughput_cpu``) of timm's benchmarks.
    licenses
        Accepted licences, such as ``("apache-2.0", "mit")``; a checkpoint of unknown licence is then left out.
    library
        ``"timm"`` or ``"transformers"`` (what ``AutoModelForImageClassification`` loads, timm's checkpoints through
        their wrapper included), ...
    input_size
        Input side in pixels.
    candidates
        Hub ids to rank, by any of their names; all others are left out.

    Raises
    ------
    SelectionError
        A value is of the wrong kind or leaves nothing.
    """

    max_params: float | None = None
    max_gmacs: float | None = None
    device_memory: float | None = None
    latency: float | None = None
    licenses: tuple[str, ...] | None = None
    library: str | None = None
    input_size: int | None = None
    candidates: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("max_params", "max_gmacs", "device_memory", "latency", "input_size"):
            _check_positive(name, getattr(self, name))
        for name in ("licenses", "candidates"):
            object.__setattr__(self, name, _texts(name, getattr(self, name)))

    @property
    def given(self) -> dict[str, Any]:
        """The limits that there are."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def in_their_names(self, zoo: ZooIndex) -> ZooIndex:
        """Return an index with each checkpoint by the name that was asked for: as a candidate, or by the library."""
        rows = zoo.by_name(CheckpointRow).values() if self.library else ()
        named = [row.name_in(str(self.library)) for row in rows]
        return zoo.called([*filter(None, named), *(self.candidates or ())])

    def eligible(self, zoo: ZooIndex) -> pd.DataFrame:
        """Return the checkpoints of an index that meet every limit: rows of ``checkpoints.csv``, at least one.

        A checkpoint of which a limited fact is unknown does not meet the limit. Weights on no Hub (``local:…``) are
        never candidates.

        Raises
        ------
        SelectionError
            There is none; the message counts them by the first limit that each fails.
        """
        frame = zoo.checkpoints
        hub_id, license_ = frame["hub_id"], [name.lower() for name in self.licenses or ()]
        loaded = ("transformers", "timm") if self.library == "transformers" else (self.library,)
        asked = [zoo.names.get(name, name) for name in self.candidates or ()]
        count, gmacs, size = self.max_params, self.max_gmacs, self.input_size
        memory, latency = self.device_memory, self.latency
        # Each limit, its column, what passes, the reason when the fact is known, and when it is not.
        rules = [
            (True, "hub_id", ~hub_id.str.startswith(LOCAL_PREFIX), "weights are on no Hub", ""),
            (self.candidates, "hub_id", hub_id.isin(asked), "not among the candidates asked for", ""),
            (self.library, "library", frame["library"].isin(loaded), f"library is not {self.library}", ""),
            (
                count,
                "params_m",
                frame["params_m"] * 1e6 <= (count or 0),
                f"more than {count or 0:,.0f} parameters",
                "number of parameters unknown",
            ),
            (gmacs, "gmacs", frame["gmacs"] <= (gmacs or 0), f"more than {gmacs or 0:g} GMACs", "GMACs unknown"),
            (
                memory,
                "params_m",
                _TRAINED_BYTES * frame["params_m"] * 1e6 <= (memory or 0),
                f"weights, gradients and Adam's moments take more than {memory or 0:,.0f} bytes",
                "number of parameters unknown",
            ),
            (
                latency,
                "throughput_cpu",
                1000.0 / frame["throughput_cpu"] <= (latency or 0),
                f"more than {latency or 0:g} ms an image",
                "time for an image unknown",
            ),
            (self.licenses, "license", frame["license"].isin(license_), "licence not accepted", "licence unknown"),
            (
                size,
                "input_px",
                frame["input_px"] == (size or 0),
                f"native image size is not {size} px",
                "native image size unknown",
            ),
        ]
        keep, dropped = hub_id.notna(), Counter[str]()
        for limit, column, passed, failed, unknown in rules:
            if limit is None:
                continue
            passed, known = passed.fillna(False).astype(bool), frame[column].notna()
            dropped[unknown] += int((keep & ~known).sum())
            dropped[failed] += int((keep & known & ~passed).sum())
            keep &= passed
        missing = sorted(set(self.candidates or ()) - set(zoo.names))
        dropped["not in the index"] = len(missing)
        if keep.any():
            if missing:
                logger.warning("not in the index, so not ranked: %s", ", ".join(missing))
            return frame[keep].reset_index(drop=True)
        given = ", ".join(f"{name}={value!r}" for name, value in self.given.items())
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common() if count)
        licences = frame["license"].value_counts().index[:8] if self.licenses is not None else ()
        raise SelectionError(
            f"no checkpoint of the index meets the limits ({given or 'none were given'}); "
            f"left out: {reasons or 'none, the index is empty'}; loosen a limit"
            + (f" (the licences it knows most of: {', '.join(licences)})" if len(licences) else "")
        )


@dataclass(frozen=True, eq=False)
class Eligible:
    """The checkpoints that may be recommended."""

    index: ZooIndex
    """Calls each by the name that was asked for."""
    checkpoints: pd.DataFrame
    """Rows of ``checkpoints.csv``."""
    limits: Constraints = field(default_factory=Constraints)
    not_in_index: tuple[str, ...] = ()
    """Those of which the facts come from the Hub."""
    queries: tuple[str, ...] = ()
    experts: Experts | None = None
    """What is known of those that were fine-tuned from others, if that is asked for."""

    @classmethod
    def of(
        cls,
        index: ZooIndex,
        limits: Constraints,
        candidates: str | Sequence[str] | None,
        token: str | None,
        *,
        experts: bool = False,
    ) -> Eligible:
        """Find the checkpoints that meet the limits among the candidates, which the Hub may know better."""
        asked = resolve_candidates(candidates, index, token=token)
        limits = replace(limits, candidates=asked.ids)
        index = limits.in_their_names(index)
        tuned = Experts.of(index, asked.experts, asked.ids, token) if experts else None
        rows = {row.hub_id: row for row in (*asked.rows, *(() if tuned is None else tuned.rows(asked.rows)))}
        checkpoints = limits.eligible(index.add_checkpoints(rows.values()) if rows else index)
        outside = tuple(sorted(row.hub_id for row in asked.rows))
        return cls(index, checkpoints, limits, outside, asked.queries, tuned)

    @property
    def provenance(self) -> dict[str, Any]:
        """The limits, and how candidates were found, in plain values."""
        asked = {"queries": list(self.queries), "not_in_index": list(self.not_in_index)}
        return {"limits": self.limits.given} | ({"candidates": asked} if any(asked.values()) else {})


@dataclass(frozen=True)
class Budget:
    """Limits of the second stage."""

    max_bytes: float | None = None
    """Most bytes to download, taking four for each parameter of a candidate; None for no limit."""
    max_seconds: float | None = None
    """Start no measurement that would end later than this, if it takes as long as those before did; None: no limit."""

    def __post_init__(self) -> None:
        _check_positive("refine's max_bytes", self.max_bytes)
        _check_positive("refine's max_seconds", self.max_seconds)


def _check_positive(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, Real):
        raise SelectionError(f"{name}={value!r} is no number; give a number such as 30e6, or None for no limit")
    if value is not None and not float(value) > 0:
        raise SelectionError(f"{name}={value!r} leaves nothing; give a positive number or None")


def _texts(name: str, values: Any) -> tuple[str, ...] | None:
    if values is None:
        return None
    if isinstance(values, str):
        raise SelectionError(f"{name} takes a list of strings, found the string {values!r}; pass [{values!r}]")
    found = tuple(values) if isinstance(values, Iterable) else (values,)
    if odd := [value for value in found if not isinstance(value, str)]:
        raise SelectionError(f"{name} takes a list of strings, found {odd[0]!r}")
    if not found:
        raise SelectionError(f"{name} is an empty list, which leaves nothing; pass None for no limit")
    return found
