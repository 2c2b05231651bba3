"""Figures: one style, and how they become files or parts of a page.

Only matplotlib's figures are used, and not pyplot, which would look for a screen.
"""

import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from oasisvq.evaluation.colours import SERIES
from oasisvq.files import write_atomically

COLUMN_INCHES = 3.46  # 88 mm, a column of most journals
DOTS_PER_INCH = 300
ROOM = 0.06  # share of an axis beyond the values that it must hold
SUFFIXES = (".png", ".svg", ".pdf")
INK, SOFT, GRID = "#1b1f24", "#5f6975", "#d5dae0"  # text; axes and notes; lines behind
STYLE: dict[str, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is there on every machine
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=SERIES),
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.04,
    "image.interpolation": "nearest",
    "svg.hashsalt": "oasisvq",  # names inside a file do not change from run to run
}
PAGE_STYLE: dict[str, Any] = {  # for charts on a page, which must be readable on a phone too
    "font.size": 9.2,
    "axes.titlesize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
}


class Chart(NamedTuple):
    """A drawn chart.

    Attributes:
        name: of its file, and of its place on a page.
        figure: what was drawn.
        says: what it shows, for those who cannot see it.
    """

    name: str
    figure: Figure
    says: str


@contextmanager
def styled(**more: object) -> Iterator[None]:
    """Draw and save in our style, regardless of the user's own settings of matplotlib."""
    settings: Any = STYLE | more  # matplotlib's own type names every key
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def new_figure(height: float = 2.3, width: float = COLUMN_INCHES) -> Figure:
    """An empty figure of a size in inches."""
    return Figure((width, height), layout="constrained")


def new_chart(height: float = 2.3) -> tuple[Figure, Axes]:
    """A figure of a column's width with one pair of axes."""
    figure = new_figure(height)
    return figure, figure.add_subplot()


def hold(axes: Axes, along: str, values: Iterable[float], least: float = 0.0) -> None:
    """Set the limits of an axis so that it holds all values, with some room.

    Args:
        axes: to limit.
        along: `x` or `y`.
        values: that must be visible; those that are not finite are ignored.
        least: the least range of the axis, so that tiny differences look tiny.
    """
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return
    low, high = min(finite), max(finite)
    short = max(0.0, least - (high - low)) / 2
    room = ROOM * max(high - low, least)
    limit = axes.set_xlim if along == "x" else axes.set_ylim
    limit(low - short - room, high + short + room)


def legend_above(axes: Axes, columns: int = 4) -> None:
    """Add a legend over the figure's whole width that covers nothing: the axes make room for it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(loc="outside upper left", ncols=columns, columnspacing=1.0, handlelength=1.1)


def figure_bytes(figure: Figure, suffix: str, **more: object) -> bytes:
    """A figure as the content of a .png, .svg or .pdf file; the same figure gives the same bytes."""
    nothing = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    kind, content = suffix.removeprefix("."), io.BytesIO()
    with styled(**more), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a file's name in a script that the font lacks
        figure.savefig(content, format=kind, dpi=DOTS_PER_INCH, metadata=nothing[kind])
    return content.getvalue()


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of its name's ending.

    Raises:
        FileError: it cannot be written.
    """
    write_atomically(path, figure_bytes(figure, path.suffix.lower()))


def inline_svg(figure: Figure, name: str, says: str) -> str:
    """A figure as an `<svg>` element for a page.

    Text stays text. Ink and series are CSS variables (--ink, --soft, --grid, --series-1, ...), so
    that a page can be dark.

    Args:
        figure: to draw.
        name: unique on its page; names inside the figure begin with it.
        says: what it shows, for those who cannot see it.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    text = figure_bytes(figure, ".svg", **{"svg.fonttype": "none"}).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: [^;\"]*?(\d[\d.]*px) [^;\"]*", r"font-size: \1", text)
    variables = {INK: "--ink", SOFT: "--soft", GRID: "--grid"}
    variables |= {colour: f"--series-{place}" for place, colour in enumerate(SERIES, start=1)}
    for colour, variable in variables.items():
        text = text.replace(colour, f"var({variable})")
    # text without a colour of its own is black in SVG
    head = f'<svg role="img" aria-label="{escape(says)}" class="chart" fill="var(--ink)"'
    width_and_height = re.compile(r'<svg( height="[^"]*"| width="[^"]*")+')
    return width_and_height.sub(head, re.sub(r"<svg ([^>]*?)>", _reordered, text, count=1), count=1)


def _reordered(found: re.Match[str]) -> str:
    """The opening tag with width and height first."""
    attributes = re.findall(r'[\w:-]+="[^"]*"', found[1])
    sizes = [each for each in attributes if each.startswith(("width=", "height="))]
    others = [each for each in attributes if not each.startswith(("width=", "height=", "version="))]
    return f"<svg {' '.join(sizes + others)}>"
