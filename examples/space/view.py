"""What the page shows, as HTML: whatever comes from a visitor, a dataset or an archive is escaped here."""

from __future__ import annotations

import html
from typing import Any

STAGES = {
    "unpacking": "Unpacking the archive",
    "drawing": "Drawing a sample of the images",
    "embedding": "Starting the probe network",
    "head": "Fitting a classifier on the features",
    "features": "Looking at the images: features",
    "Fisher": "Looking at the images: Fisher information",
    "writing": "Ranking done; writing the report",
}
HEADERS = ["rank", "checkpoint", "accuracy", "80 % interval", "params", "licence"]

CSS = """
.t2v-status {display: flex; flex-direction: column; gap: .4rem; padding: .6rem .1rem}
.t2v-bar {height: .6rem; border-radius: .3rem; overflow: hidden; background: var(--border-color-primary)}
.t2v-bar div {height: 100%; background: var(--color-accent); transition: width .4s}
.t2v-bar.unknown div {width: 30%; animation: t2v-to-and-fro 1.6s ease-in-out infinite alternate}
@keyframes t2v-to-and-fro {from {margin-left: 0} to {margin-left: 70%}}
.t2v-note {color: var(--body-text-color); opacity: .75}
.t2v-alert, .t2v-warning {border-left: 4px solid; border-radius: 4px; padding: .6rem .9rem; margin: .4rem 0;
  background: var(--background-fill-secondary); overflow-wrap: anywhere}
.t2v-alert {border-color: #dc2626}
.t2v-warning {border-color: #d97706}
#table td, #table th, #table span {font-family: var(--font); font-size: .86rem}
.t2v-summary {font-size: 1.05rem; line-height: 1.5}
.t2v-why {white-space: pre-wrap; line-height: 1.5}
.t2v-report {width: 100%; height: 44rem; border: 1px solid var(--border-color-primary); border-radius: 6px;
  background: white}
"""


def status(stage: str, detail: str = "", share: float | None = None) -> str:
    """Return the lines that say what is being done, with a bar if it is known how much of it."""
    name = html.escape(STAGES.get(stage, stage))
    note = f'<span class="t2v-note">{html.escape(detail)}</span>' if detail else ""
    if share is None:
        bar = f'<div class="t2v-bar unknown" role="progressbar" aria-label="{name}"><div></div></div>'
    else:
        done = round(100 * min(max(share, 0.0), 1.0))
        state = f'role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{done}" aria-label="{name}"'
        bar = f'<div class="t2v-bar" {state}><div style="width: {done}%"></div></div>'
    return f'<div class="t2v-status" role="status"><b>{name}…</b>{bar}{note}</div>'


def alert(message: str) -> str:
    """Return an error as a box; the text may hold anything."""
    text = html.escape(message[:1].upper() + message[1:])
    return f'<div class="t2v-alert" role="alert"><b>That did not work.</b> {text}</div>'


def summary(document: dict[str, Any]) -> str:
    """Return the summary and the warnings of a ranking."""
    warnings = "".join(
        f'<div class="t2v-warning"><b>Note:</b> {html.escape(text)}</div>' for text in document["warnings"]
    )
    return f'<div class="t2v-summary">{html.escape(document["summary"])}</div>{warnings}'


def rows(document: dict[str, Any]) -> list[list[Any]]:
    """Return the table of a ranking, best first."""
    return [
        [
            found["rank"],
            _link(found["hub_id"]),
            f"{100 * found['score']:.1f}",
            f"{100 * found['low']:.1f}–{100 * found['high']:.1f}",
            "?" if found["params_m"] is None else f"{found['params_m']:.1f}M",
            found["license"] or "?",
        ]
        for found in document["candidates"]
    ]


def frame(report: str) -> str:
    """Return a report inside a frame of no origin: its own script may run, and cannot reach the page."""
    return f'<iframe class="t2v-report" title="Report" sandbox="allow-scripts" srcdoc="{html.escape(report)}"></iframe>'


def explanation(document: dict[str, Any]) -> str:
    """Return why the first candidate of a ranking is first."""
    return f'<div class="t2v-why">{html.escape(document["explanation"])}</div>'


def welcome(before: str = "") -> str:
    """Return what stands where the result will be."""
    text = f"{before} The ranking appears here: usually within a minute, longer while others wait before you.".strip()
    return f'<p class="t2v-note">{html.escape(text)}</p>'


def _link(hub_id: str) -> str:
    return f"[{hub_id}](https://huggingface.co/{hub_id})"
