"""Parts of a page as HTML: text, tables, charts, pictures.

Everything that comes from a file, such as the name of a scan, passes `text` before it is part of a
page.
"""

import base64
import io
from collections.abc import Iterable
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oasisvq.evaluation.figures import Chart, inline_svg
from oasisvq.text import printable

THUMBNAIL_QUALITY = 60


def text(name: object) -> str:
    """Anything as text of the page, whatever it holds."""
    return escape(printable(str(name)))


def percent(rate: float, digits: int = 0) -> str:
    """A signed share in per cent."""
    return f"{rate:+.{digits}f}\u00a0%".replace("-", "−")  # with a space that does not break


def row(cells: Iterable[str], tag: str = "td", kind: str = "") -> str:
    """Cells, which are HTML, as a row of a table; `kind` is its attributes."""
    return f"<tr{kind}>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def table(head: Iterable[str], rows: Iterable[str]) -> str:
    """Rows under a head, on a small screen to be scrolled."""
    return f"<div class='scroll'><table>{row(head, 'th')}{''.join(rows)}</table></div>"


def figure(chart: Chart, says: str = "") -> str:
    """A chart with a caption."""
    caption = f"<figcaption>{says}</figcaption>" if says else ""
    return f"<figure>{inline_svg(chart.figure, chart.name, printable(chart.says))}{caption}</figure>"


def image(picture: NDArray[np.uint8], says: str) -> str:
    """A picture (H, W) or (H, W, 3) of its own size, and what it shows."""
    height, width = picture.shape[:2]
    return f'<img src="{data_uri(picture)}" width="{width}" height="{height}" alt="{text(says)}">'


def data_uri(picture: NDArray[np.uint8], image_format: str = "PNG") -> str:
    """A picture (H, W) or (H, W, 3) as a part of its page."""
    content = io.BytesIO()
    encoded = Image.fromarray(picture)
    if image_format == "PNG":
        encoded.save(content, "PNG", optimize=True)
    else:
        encoded.save(content, image_format, quality=THUMBNAIL_QUALITY, optimize=True)
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
