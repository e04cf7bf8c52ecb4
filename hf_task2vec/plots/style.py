"""What all plots share: figures without global state, colours and shapes that everyone can tell apart, safe texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_task2vec.errors import Task2VecError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Paul Tol's "vibrant" colours, made to be told apart with any colour vision (https://sronpersonalpages.nl/~pault/).
COLOURS = ("#0077bb", "#ee7733", "#009988", "#cc3311", "#33bbee", "#ee3377")
#: Matplotlib's markers, in the order of :data:`SHAPES`.
MARKERS = ("o", "s", "^", "D")
#: The same shapes by name.
SHAPES = ("circle", "square", "triangle", "diamond")
INK, MUTED, FAINT = "#22262b", "#6b7280", "#d5d9de"
ACCENT = COLOURS[0]
FONT_SIZE = 9.0
_OTHER = (len(COLOURS), 0)


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches, which belongs to no window and no pyplot.

    Raises
    ------
    Task2VecError
        Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise Task2VecError("plots need Matplotlib, which is missing: pip install 'hf-task2vec[report]'") from None
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure


def tidy(axes: Axes) -> None:
    """Leave only what carries information: two axes, a faint grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(labelsize=FONT_SIZE, color=MUTED, labelcolor=INK)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def domain_styles(domains: Sequence[str | None]) -> dict[str | None, tuple[int, int]]:
    """Return positions in `COLOURS` and `SHAPES` for each domain, the most frequent first.

    There are 24 combinations; further domains, and tasks without one, share a grey circle (position 6).
    """
    counts = Counter(domain for domain in domains if domain is not None)
    ordered = sorted(counts, key=lambda domain: (-counts[domain], domain))
    styles: dict[str | None, tuple[int, int]] = {}
    for i, domain in enumerate(ordered):
        turn, colour = divmod(i, len(COLOURS))
        styles[domain] = (colour, (colour + turn) % len(SHAPES)) if turn < len(SHAPES) else _OTHER
    if None in domains:
        styles[None] = _OTHER
    return styles


def shortened(text: str, longest: int = 32) -> str:
    """Return one line of text of at most `longest` signs, each of which can be printed."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= longest else printable[: longest - 1] + "…"


def drawable(text: str, longest: int = 32) -> str:
    """Return :func:`shortened` text with a sign in place of those that Matplotlib's font does not have.

    Matplotlib itself would warn about each of them and draw a box.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(c if ord(c) in known else "?" for c in shortened(text, longest))
