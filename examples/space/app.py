"""A web page that ranks pretrained checkpoints for a visitor's images: ``python app.py``, or a Space.

It needs no network for the built-in sample and for a dropped zip. Every request runs in a process of its own
(`worker.py`) with limits on time and memory; its folder is deleted when it ends.
"""

from __future__ import annotations

import html
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported

import gradio as gr
from archive import Limits
from jobs import DIGITS, Job, WorkerError, run, title_of
from view import CSS, HEADERS, alert, explanation, frame, rows, status, summary, welcome

from hf_task2vec import ZooIndex
from hf_task2vec.errors import Task2VecError

logger = logging.getLogger(__name__)

UNEXPECTED = "Something went wrong here, and it is not your doing. The log of this page says what."
NO_FILE = "Drop a zip first: one folder of images a class."
NO_ID = "Name a dataset of the Hub first, such as org/name."

# Fonts of the visitor's own system: some themes fetch theirs from Google.
THEME = gr.themes.Default(
    primary_hue="teal",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
).set(
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
)


def build() -> gr.Blocks:
    """Return the page."""
    limits = Limits()
    with gr.Blocks(
        title="Which checkpoint should I fine-tune?", analytics_enabled=False, delete_cache=(600, 1800)
    ) as page:
        gr.Markdown(
            "# Which pretrained checkpoint should I fine-tune?\n"
            "Ranks over a thousand vision checkpoints of the Hub for your images. A small network looks at a sample of "
            "them once; no checkpoint is downloaded. Your images are deleted when the ranking is done, the dropped "
            "file and the results within the hour."
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                with gr.Tabs():
                    with gr.Tab("Your images"):
                        dropped = gr.File(
                            file_types=[".zip"],
                            label=f"Zip, one folder a class ({limits.archive // 10**6} MB at most)",
                            elem_id="archive",
                        )
                        from_zip = gr.Button("Rank for these images", variant="primary", elem_id="rank-zip")
                    with gr.Tab("Hub dataset"):
                        hub_id = gr.Textbox(label="Dataset id", placeholder="org/name", elem_id="hub-id", max_lines=1)
                        with gr.Accordion("Configuration, split, revision", open=False):
                            config = gr.Textbox(label="Configuration", info="Of a dataset with several.", max_lines=1)
                            split = gr.Textbox(label="Split", placeholder="train", max_lines=1)
                            revision = gr.Textbox(label="Revision", info="Branch, tag or commit.", max_lines=1)
                        from_hub = gr.Button("Rank for this dataset", variant="primary", elem_id="rank-hub")
                    with gr.Tab("Sample"):
                        gr.Markdown("1,797 handwritten digits of 8×8 pixels that come with scikit-learn.")
                        from_digits = gr.Button("Rank for the digits", variant="primary", elem_id="rank-sample")
                with gr.Accordion("Options", open=True):
                    max_params = gr.Number(
                        0, label="Most parameters, in millions", info="0: no limit.", minimum=0, elem_id="max-params"
                    )
                    licenses = gr.Dropdown(
                        _licences(), multiselect=True, label="Licences to accept", info="None chosen: all."
                    )
                    max_samples = gr.Slider(
                        32,
                        512,
                        256,
                        step=32,
                        label="Images to look at",
                        elem_id="max-samples",
                        info="More are steadier and take longer.",
                    )
                    top_k = gr.Slider(1, 50, 10, step=1, label="Checkpoints to show")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
            with gr.Column(scale=5, min_width=420):
                shown = gr.HTML(welcome(), elem_id="status")
                with gr.Column(visible=False, elem_id="result") as result:
                    said = gr.HTML(elem_id="summary")
                    table = gr.Dataframe(
                        headers=HEADERS,
                        datatype=["number", "markdown", "str", "str", "str", "str"],
                        interactive=False,
                        label="Best first",
                        elem_id="table",
                        wrap=True,
                        max_height=2400,
                        column_widths=["7%", "46%", "11%", "13%", "9%", "14%"],
                    )
                    with gr.Row():
                        files = [
                            gr.DownloadButton(label, elem_id=name, size="sm")
                            for label, name in (
                                ("Ranking (JSON)", "json"),
                                ("Ranking (CSV)", "csv"),
                                ("Report (HTML)", "report-file"),
                            )
                        ]
                    with gr.Accordion("Why the first?", open=True):
                        why = gr.HTML(elem_id="why")
                    with gr.Accordion("Report", open=False, elem_id="report-box"):
                        report = gr.HTML(elem_id="report")

        options = [max_params, licenses, max_samples, top_k]
        outputs = [shown, result, said, table, *files, why, report, stop]

        def serve(make: Callable[..., Job], *values: Any) -> Iterator[dict[Any, Any]]:
            yield {shown: status("Waiting"), result: gr.Column(visible=False), stop: gr.Button(visible=True)}
            folder = Path(tempfile.mkdtemp(prefix="task2vec-"))
            try:
                *where, parameters, accepted, count, most = values
                job = make(
                    *where,
                    max_params=1e6 * float(parameters or 0) or None,
                    licenses=tuple(accepted or ()),
                    max_samples=int(count),
                    top_k=int(most),
                )
                for text, document in _progress(job, folder):
                    if not document:
                        yield {shown: text}
                paths = [folder / name for name in ("ranking.json", "ranking.csv", "report.html")]
                yield {
                    shown: "",
                    result: gr.Column(visible=True),
                    said: summary(document),
                    table: rows(document),
                    **dict(zip(files, map(str, paths), strict=True)),
                    why: explanation(document),
                    report: frame(paths[-1].read_text(encoding="utf-8")),
                    stop: gr.Button(visible=False),
                }
            except Task2VecError as error:
                yield _failed(str(error))
                raise gr.Error(html.escape(str(error)), print_exception=False) from None
            except WorkerError:
                yield _failed(UNEXPECTED)
                raise gr.Error(UNEXPECTED, print_exception=False) from None
            finally:
                shutil.rmtree(folder, ignore_errors=True)

        def _failed(message: str) -> dict[Any, Any]:
            return {shown: alert(message), result: gr.Column(visible=False), stop: gr.Button(visible=False)}

        def serve_zip(*values: Any) -> Iterator[dict[Any, Any]]:
            yield from serve(_zip_job, *values)

        def serve_hub(*values: Any) -> Iterator[dict[Any, Any]]:
            yield from serve(_hub_job, *values)

        def serve_digits(*values: Any) -> Iterator[dict[Any, Any]]:
            yield from serve(lambda **chosen: Job(DIGITS, **chosen), *values)

        starts: list[Any] = [
            button.click(
                handler,
                [*inputs, *options],
                outputs,
                show_progress="hidden",
                concurrency_limit=1,
                concurrency_id="selection",
                api_visibility="private",
            )
            for button, handler, inputs in (
                (from_zip, serve_zip, [dropped]),
                (from_hub, serve_hub, [hub_id, config, split, revision]),
                (from_digits, serve_digits, []),
            )
        ]
        stop.click(
            lambda: (welcome("Stopped."), gr.Button(visible=False)),
            None,
            [shown, stop],
            cancels=starts,
            queue=False,
            api_visibility="private",
        )
    page.queue(max_size=20, api_open=False)
    return cast(gr.Blocks, page)


def launch(page: gr.Blocks, **options: Any) -> Any:
    """Serve the page; `options` go to `gradio.Blocks.launch`."""
    return page.launch(
        theme=THEME,
        css=CSS,
        max_file_size=Limits().archive,
        footer_links=[],
        show_error=False,
        mcp_server=False,
        ssr_mode=False,
        **options,
    )


def _progress(job: Job, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what to show as the job goes on, at least every half second, and last the result."""
    begin, detail, text = time.monotonic(), "", status("Starting")
    for message in run(job, folder):
        if "result" in message:
            logger.info("ranked in %.0f s", time.monotonic() - begin)
            yield "", message["result"]
            return
        if "stage" in message:
            detail = message["detail"] or detail
            text = status(message["stage"], detail)
        elif "bar" in message and message["total"]:
            text = status(message["bar"], detail, message["done"] / message["total"])
        yield text, {}


def _zip_job(path: str | None, **chosen: Any) -> Job:
    if not path:
        raise Task2VecError(NO_FILE)
    return Job(archive=path, title=title_of(path), **chosen)


def _hub_job(hub_id: str | None, config: str | None, split: str | None, revision: str | None, **chosen: Any) -> Job:
    given = [(text or "").strip() or None for text in (config, split, revision)]
    if not (hub_id or "").strip():
        raise Task2VecError(NO_ID)
    return Job(str(hub_id).strip(), config=given[0], split=given[1], revision=given[2], **chosen)


def _licences() -> list[str]:
    """Return the licences that most checkpoints of the index have."""
    return [str(name) for name in ZooIndex.load().checkpoints["license"].value_counts().index[:12]]


demo = build()

if __name__ == "__main__":
    launch(demo)
