"""A web page that ranks pretrained checkpoints for a visitor's images: ``python app.py``, or a Space.

It needs no network for the built-in sample and for a dropped zip. Every request is one ``hf-task2vec select`` in a
process of its own, bounded in time and memory and without any token; its folder is deleted when it ends.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, cast

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported

import gradio as gr

from hf_task2vec import ZooIndex

DIGITS = "sklearn:digits"
SECONDS, MEMORY, ARCHIVE = 600.0, 8 * 2**30, 200 * 10**6
"""Longest time and most memory of one request; largest zip."""
SIZES = {"any size": None, "100 million": 100e6, "30 million": 30e6, "10 million": 10e6}
PROTOCOLS = [("fine-tuned", "fine-tune"), ("frozen, under a linear classifier", "linear-probe")]
UNEXPECTED = "Something went wrong here, and it is not your doing. The log of this page says what."

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9][\w.,:+\[\]%/ -]{0,99}", re.ASCII)
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|API_KEY|CREDENTIAL", re.IGNORECASE)
# The command line with a limit on its memory.
_LIMITED = """
import resource
from hf_task2vec.cli import main
resource.setrlimit(resource.RLIMIT_DATA, ({0}, {0}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
main()
"""
# Fonts of the visitor's own system: some themes fetch theirs from Google.
THEME = gr.themes.Default(
    primary_hue="teal",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
).set(button_primary_background_fill="*primary_700", button_primary_background_fill_dark="*primary_700")
CSS = """
.t2v-alert, .t2v-warning {border-left: 4px solid #d97706; padding: .6rem .9rem; margin: .4rem 0}
.t2v-alert, #answer {overflow-wrap: anywhere}
.t2v-alert {border-color: #dc2626}
.t2v-scroll {overflow-x: auto; overflow-wrap: normal; margin: .8rem 0}
.t2v-scroll :is(th, td) {white-space: nowrap}
.t2v-scroll caption {text-align: left; font-weight: 600}
.t2v-scroll th, .t2v-scroll td {padding: .35rem .6rem; text-align: left; vertical-align: top}
.t2v-report {width: 100%; height: 44rem; border: 1px solid var(--border-color-primary); background: white}
"""


class RequestError(Exception):
    """A request cannot be done; the message is for the visitor."""


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a request: no token, and caches that go with `folder`.

    A Space's own token could open private datasets of its owner to any visitor.
    """
    kept = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    names = ("HF_HOME", "HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_XET_CACHE", "HF_TASK2VEC_CACHE", "TMPDIR")
    caches = dict.fromkeys(names, str(folder / "cache"))
    return kept | caches | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def arguments(
    dataset: str,
    place: dict[str, str | None],
    max_params: float | None,
    licences: list[str],
    protocol: str = "fine-tune",
) -> list[str]:
    """Return the words of ``hf-task2vec select`` for a dataset of the Hub, the sample or a dropped zip.

    What a visitor wrote is checked here: nothing of it can be a path of this machine, or an option.
    """
    words = ["select", "--json", "--no-cache", "--report", "report.html"]
    if not dataset.endswith(".zip") and dataset != DIGITS:
        if not _HUB_ID.fullmatch(dataset):
            raise RequestError(f"{dataset[:100]!r} is no id of a dataset on the Hub; one looks like org/name")
        words += ["--streaming", "--no-images"]  # never downloaded as a whole, and no image of it is shown
        for name, value in place.items():
            if value and (not _WORD.fullmatch(value) or ".." in value):
                raise RequestError(f"{name} {value[:100]!r} holds signs that the Hub does not use in such names")
            words += [f"--{name}", value] if value else []
    words += ["--max-params", f"{max_params:.0f}"] if max_params else []
    words += ["--protocol", protocol]
    return [*words, *(word for licence in licences for word in ("--license", licence)), "--", dataset]


def run(words: list[str], folder: Path, seconds: float = SECONDS) -> Iterator[str | dict[str, Any]]:
    """Run the command line in `folder`; yield a line for each stage, and last the document.

    Yields at least every half second, so that the page can be left. Closing the generator ends the process.
    """
    (folder / "cache").mkdir()
    command = [sys.executable, "-c", _LIMITED.format(MEMORY), *words]
    with (folder / "answer.json").open("w+", encoding="utf-8") as answer:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL, stdout=answer,
            stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
        lines: SimpleQueue[str] = SimpleQueue()
        assert process.stderr is not None
        reader = threading.Thread(target=lambda pipe: [lines.put(line.strip()) for line in pipe], args=[process.stderr])
        try:
            reader.start()
            said, end = ["starting"], time.monotonic() + seconds
            while process.poll() is None or reader.is_alive() or not lines.empty():
                if time.monotonic() > end:
                    raise RequestError(f"This took longer than {seconds:.0f} seconds. Take fewer or smaller images.")
                with contextlib.suppress(Empty):
                    said.append(lines.get(timeout=0.5))
                yield said[-1]
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stderr.close()
        if process.returncode:
            print(*said[-40:], sep="\n", file=sys.stderr)
            told = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
            known = process.returncode > 1 and told and "unexpected" not in told[-1]
            text = told[-1].replace(f"{folder}{os.sep}", "") if known else UNEXPECTED
            dropped = Path(words[-1])  # where a zip lies here, unlike the id of a dataset, is nothing to visitors
            raise RequestError(text.replace(f"{dropped.parent}{os.sep}", "") if dropped.is_absolute() else text)
        answer.seek(0)
        yield json.load(answer)


# ---------------------------------------------------------------------------------------------------- what is shown


def table(caption: str, heading: list[str], rows: list[list[Any]]) -> str:
    """Return a table; whatever comes from a dataset or the Hub is escaped."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heading)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="t2v-scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def shown(document: dict[str, Any]) -> str:
    """Return the answer: sentences, warnings, the short list and what each step down in size costs."""
    notes = "".join(f'<div class="t2v-warning">{html.escape(text)}</div>' for text in document["warnings"])
    to_try = [[pick["hub_id"], pick["reason"], *_facts(pick)] for pick in document["shortlist"]]
    sizes = [
        [
            "any" if best["max_params"] is None else f"{best['max_params'] / 1e6:.0f}M",
            best["candidate"]["hub_id"],
            f"{best['lower']:.1f} ({best['low']:.1f} to {best['high']:.1f})" if best["low"] < best["high"] else "",
            *_facts(best["candidate"]),
        ]
        for best in document["budgets"]
    ]
    facts = ["accuracy, %", "parameters", "licence"]
    return (
        f"<p>{html.escape(document['read'])}</p><p><b>{html.escape(document['summary'])}</b></p>{notes}"
        + table("To try", ["checkpoint", "why", *facts], to_try)
        + table("The best within a size", ["at most", "checkpoint", "points lower", *facts], sizes)
    )


def _facts(found: dict[str, Any]) -> list[str]:
    size = "?" if found["params_m"] is None else f"{found['params_m']:.1f}M"
    return [f"{100 * found['score']:.1f}", size, found["license"] or "?"]


def frame(report: str) -> str:
    """Return a report inside a frame of no origin: its own script may run, and cannot reach the page."""
    return f'<iframe class="t2v-report" title="Report" sandbox="allow-scripts" srcdoc="{html.escape(report)}"></iframe>'


def alert(message: str) -> str:
    """Return an error as a box."""
    return f'<div class="t2v-alert" role="alert"><b>That did not work.</b> {html.escape(message)}</div>'


def build() -> gr.Blocks:
    """Return the page."""
    title = "Which pretrained checkpoint should I fine-tune?"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(600, 1800)) as page:
        gr.Markdown(
            f"# {title}\nRanks over a thousand vision checkpoints of the Hub for your images. A small network looks at "
            "a sample of them once; no checkpoint is downloaded. Your images are deleted within the hour."
        )
        with gr.Tabs():
            with gr.Tab("Your images"):
                dropped = gr.File(file_types=[".zip"], label="Zip, one folder of images a class", elem_id="archive")
                from_zip = gr.Button("Rank for these images", variant="primary", elem_id="rank-zip")
            with gr.Tab("Hub dataset"):
                hub_id = gr.Textbox(label="Dataset id", placeholder="org/name", elem_id="hub-id", max_lines=1)
                with gr.Accordion("Configuration, split, revision", open=False):
                    place = [gr.Textbox(label=label, max_lines=1) for label in ("Configuration", "Split", "Revision")]
                from_hub = gr.Button("Rank for this dataset", variant="primary", elem_id="rank-hub")
            with gr.Tab("Sample"):
                gr.Markdown("1,797 handwritten digits of 8×8 pixels that come with scikit-learn.")
                from_digits = gr.Button("Rank for the digits", variant="primary", elem_id="rank-sample")
        with gr.Row():
            most = gr.Dropdown(list(SIZES), value="any size", label="Most parameters", elem_id="max-params")
            names = [str(name) for name in ZooIndex.load().checkpoints["license"].value_counts().index[:12]]
            licences = gr.Dropdown(names, multiselect=True, label="Licences to accept", info="None chosen: all.")
            protocol = gr.Radio(PROTOCOLS, value="fine-tune", label="To be used", elem_id="protocol")
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
        status = gr.HTML("<p>The answer appears here, usually within a minute.</p>", elem_id="status")
        with gr.Column(visible=False, elem_id="result") as result:
            answer = gr.HTML(elem_id="answer")
            with gr.Row():
                files = [gr.DownloadButton("Report (HTML)", elem_id="report-file")]
                files += [gr.DownloadButton("Answer (JSON)", elem_id="json")]
            with gr.Accordion("Report", open=False, elem_id="report-box"):
                report = gr.HTML(elem_id="report")
        outputs = [status, result, answer, *files, report, stop]

        def serve(
            dataset: str, where: list[str], most: str, licences: list[str] | None, protocol: str
        ) -> Iterator[dict[Any, Any]]:
            yield {result: gr.Column(visible=False), stop: gr.Button(visible=True)}
            with tempfile.TemporaryDirectory(prefix="task2vec-") as name:
                folder = Path(name)
                try:
                    given = {
                        k: (v or "").strip() or None for k, v in zip(("name", "split", "revision"), where, strict=False)
                    }
                    for found in run(arguments(dataset, given, SIZES[most], licences or [], protocol), folder):
                        if isinstance(found, str):
                            yield {status: f'<p role="status"><b>{html.escape(found)}…</b></p>'}
                            continue
                        yield {
                            status: "",
                            result: gr.Column(visible=True),
                            answer: shown(found),
                            **dict(zip(files, (str(folder / n) for n in ("report.html", "answer.json")), strict=True)),
                            report: frame((folder / "report.html").read_text(encoding="utf-8")),
                            stop: gr.Button(visible=False),
                        }
                except RequestError as error:
                    yield {status: alert(str(error)), stop: gr.Button(visible=False)}

        def of_zip(path: str | None, *chosen: Any) -> Iterator[dict[Any, Any]]:
            if path:
                yield from serve(path, [], *chosen)
            else:
                yield {status: alert("Drop a zip first: one folder of images a class.")}

        def of_hub(dataset: str, config: str, split: str, revision: str, *chosen: Any) -> Iterator[dict[Any, Any]]:
            yield from serve((dataset or "").strip(), [config, split, revision], *chosen)

        def of_digits(*chosen: Any) -> Iterator[dict[Any, Any]]:
            yield from serve(DIGITS, [], *chosen)

        handlers = ((from_zip, of_zip, [dropped]), (from_hub, of_hub, [hub_id, *place]), (from_digits, of_digits, []))
        starts: list[Any] = [
            button.click(
                handler, [*inputs, most, licences, protocol], outputs, show_progress="hidden", concurrency_limit=1,
                concurrency_id="selection", api_visibility="private",
            )
            for button, handler, inputs in handlers
        ]  # fmt: skip
        stopped = ("<p>Stopped.</p>", gr.Button(visible=False))
        stop.click(lambda: stopped, None, [status, stop], cancels=starts, queue=False, api_visibility="private")
    page.queue(max_size=20, api_open=False)
    return cast(gr.Blocks, page)


demo = build()

if __name__ == "__main__":
    demo.launch(theme=THEME, css=CSS, max_file_size=ARCHIVE, footer_links=[], show_error=False, ssr_mode=False)
