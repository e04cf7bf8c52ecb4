"""A ranking as one HTML page that needs nothing else: no network, no other file, no program but a browser.

The page forbids itself everything but its own style, its own script (by their hashes) and the images it holds. Names
of datasets, classes, files and checkpoints come from elsewhere: the template escapes whatever it prints.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hf_task2vec import __version__
from hf_task2vec import report_parts as parts
from hf_task2vec.errors import SelectionError
from hf_task2vec.files import atomic_path
from hf_task2vec.material import Call, secrets, without_tokens
from hf_task2vec.ranking import percent
from hf_task2vec.report_figures import MISSING, cost_plot, has_matplotlib

if TYPE_CHECKING:
    from jinja2 import Environment

    from hf_task2vec.ranking import Candidate, Ranking

_LONGEST_TEXT = 2000
_COSTS = (
    ("params_m", "size", "parameters, millions", "M parameters"),
    ("gmacs", "compute", "10⁹ multiply-adds for one image", "GMACs"),
)


def write_report(ranking: Ranking, path: str | os.PathLike[str], *, images: bool = True) -> Path:
    """Write a ranking as one HTML page; see :meth:`hf_task2vec.ranking.Ranking.report`."""
    target = Path(path)
    if target.is_dir():
        raise SelectionError(f"the report cannot be written to {target}: it is a folder; give a file in it")
    page = render_report(ranking, images=images)
    try:
        with atomic_path(target) as temporary:
            temporary.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise SelectionError(f"the report cannot be written to {target}: {error.strerror or error}") from error
    return target


def render_report(ranking: Ranking, *, images: bool = True) -> str:
    """Return the page; see :meth:`hf_task2vec.ranking.Ranking.report`.

    Raises
    ------
    SelectionError
        The ranking holds no candidate.
    """
    from markupsafe import Markup

    if not len(ranking):
        raise SelectionError("the ranking holds no candidate, so there is nothing to report; run select_backbone again")
    style, script = (Markup(_part(f"report.{suffix}")) for suffix in ("css", "js"))
    material, why = ranking._material, parts.explanations(ranking)
    task, drawn = ranking.provenance.get("task", {}), has_matplotlib()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            style=style,
            script=script,
            policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
            "base-uri 'none'; form-action 'none'",
            ranking=ranking,
            best=ranking.best,
            rows=parts.candidate_rows(ranking.candidates),
            with_measured=any(c.measured is not None for c in ranking),
            facts=parts.sample_facts(ranking),
            classes=parts.class_rows(ranking),
            max_classes=parts.MAX_CLASSES,
            skipped=task.get("skipped") or [],
            max_skipped=parts.MAX_SKIPPED,
            pictures=parts.pictures(material.thumbnails) if images and material is not None else [],
            hidden_pictures=not images and material is not None and bool(material.thumbnails),
            plots=_plots(ranking, drawn=drawn),
            no_plots="" if drawn else MISSING,
            why=why[0] if why else None,
            others=list(zip(ranking.candidates[1:], why[1:], strict=False)),
            max_measurements=parts.MAX_MEASUREMENTS,
            neighbours=parts.neighbour_rows(ranking, why[0]) if why else [],
            steps=next_steps(ranking),
            origin=parts.origin(ranking),
            version=__version__,
            written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def next_steps(ranking: Ranking) -> list[dict[str, str]]:
    """Return what to run next: a title, why, and the exact command or code, which never holds a token."""
    best, call = ranking.best, None if ranking._material is None else ranking._material.call
    call = call if call is not None else Call(None, {})
    task, found = ranking.provenance.get("task", {}), ranking.provenance.get("descriptors", {})
    drawn, n_rows = task.get("n_samples"), task.get("n_rows")
    steps = []

    def again(title: str, why: str, **changes: Any) -> None:
        command = call.command(n_rows, **changes)
        code = command if command is not None else _python(call, "print(ranking)", **changes)
        steps.append({"title": title, "why": why, "code": code, "language": "sh" if command else "python"})

    if drawn and n_rows and found and drawn < min(n_rows, 8 * found["n_classes"]):
        more = int(min(n_rows, 16 * found["n_classes"]))
        again("Draw more images", f"{drawn} images are few for {found['n_classes']:.0f} classes.", max_samples=more)
    if task.get("label_kind") != "multi_label" and all(c.measured is None for c in ranking):
        again(
            "Measure three of the best on your sample",
            f"It downloads their weights ({_download(ranking)}), and ranks all again with what was measured.",
            refine=3,
        )
    if call.dataset is not None:
        steps.append(
            {
                "title": "Fine-tune the first candidate",
                "why": "From a checkout of hf_task2vec; --help shows the other options.",
                "code": _fine_tune(best, call),
                "language": "sh",
            }
        )
    classes = int(found["n_classes"]) if "n_classes" in found else "NUMBER_OF_CLASSES"
    steps.append(
        {
            "title": "Or load it in Python",
            "why": "With a fresh head and its own preprocessing, ready to fine-tune.",
            "code": _python(call, f"model, transform = ranking.best.load(num_classes={classes})  # {best.hub_id}"),
            "language": "python",
        }
    )
    return steps


def _python(call: Call, then: str, **changes: Any) -> str:
    return f"from hf_task2vec import select_backbone\n\nranking = {call.python(**changes)}\n{then}"


def _fine_tune(best: Candidate, call: Call) -> str:
    script = "finetune_timm.py" if best.library == "timm" else "finetune_trainer.py"
    words = ["python", f"examples/{script}", "--dataset", str(call.dataset), "--checkpoint", best.hub_id]
    for name in ("name", "image_column", "label_column"):
        if call.options.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(call.options[name])]
    return shlex.join([*words, "--output", "fine-tuned"])


def _download(ranking: Ranking) -> str:
    sizes = [c.params_m for c in ranking.candidates[:3] if c.params_m is not None]
    return "of unknown size" if not sizes else f"up to {4 * max(sizes) / 1e3:.1f} GB each among the first three"


def _plots(ranking: Ranking, *, drawn: bool) -> list[dict[str, Any]]:
    field = parts.Field.of(ranking)
    found = []
    for quantity, name, axis, unit in _COSTS:
        if (trade_off := parts.trade_off(field, quantity)) is None:
            continue
        cloud, rows = trade_off
        named = "; ".join(f"{_printable(row['hub_id'])} {row['score']} % for {row['limit']} {unit}" for row in rows)
        title = f"Predicted {ranking.score_name} against {name}"
        description = (
            f"{len(cloud.cost)} checkpoints. The best within each budget, which the table below names too: {named}."
        )
        labels = {"axis": axis, "score": f"predicted {ranking.score_name}, %"}
        svg = cost_plot(cloud, **labels, title=title, description=description, prefix=name) if drawn else ""
        found.append({"name": name, "title": title, "unit": unit, "svg": svg, "rows": rows, "count": len(cloud.cost)})
    return found


def _part(name: str) -> str:
    return (files("hf_task2vec") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a content security policy calls a text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _printable(value: object) -> str:
    """Return text without control and formatting signs, which could turn a line round; long text is cut."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _environment() -> Environment:
    from huggingface_hub.constants import ENDPOINT
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    hidden = secrets()

    def shown(value: object) -> object:
        return value if isinstance(value, Markup) else without_tokens(_printable(value), hidden)

    environment = Environment(
        loader=PackageLoader("hf_task2vec"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )

    def breakable(text: str) -> Markup:  # where an id may go on in the next line
        return Markup(re.sub(r"([/._])", r"\1<wbr>", str(Markup.escape(shown(text)))))

    def sentence(text: str) -> str:  # cleaned first: a token without its first letter is none
        clean = str(shown(text))
        return clean[:1].upper() + clean[1:]

    def code(text: str) -> Markup:
        return Markup(re.sub(r"(--[\w-]+)", r"<span>\1</span>", str(Markup.escape(without_tokens(text, hidden)))))

    environment.filters["sentence"] = sentence
    environment.filters["breakable"] = breakable
    environment.filters["percent"] = percent
    environment.filters["code"] = code
    environment.filters["card"] = lambda hub_id: f"{ENDPOINT}/{quote(hub_id, safe='/')}"
    environment.filters["signed"] = parts.signed
    return environment
