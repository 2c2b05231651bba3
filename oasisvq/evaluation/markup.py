"""Parts of a page as HTML: text, tables, charts, pictures.

Everything that comes from a file, such as the name of a scan, goes through `text` before it becomes part
of a page.
"""

import base64
import io
import re
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oasisvq.evaluation.figures import Chart, inline_svg
from oasisvq.text import printable

THUMBNAIL_QUALITY = 60


def text(name: object) -> str:
    """Anything as text of a page, escaped."""
    return escape(printable(str(name)))


def path_text(name: object) -> str:
    """The name of a file as text of a page, which may break after folders and words."""
    return re.sub("([/_])", r"\1<wbr>", text(name))


def percent(rate: float, digits: int = 0) -> str:
    """A signed share in per cent."""
    return f"{rate:+.{digits}f}\u00a0%".replace("-", "−")  # with a space that does not break


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], main: int | None = None, *, wide: bool = False
) -> str:
    """Rows of cells, which are HTML, under a head.

    Args:
        head: names of the columns.
        rows: each with one cell for each column.
        main: number of the row that is highlighted.
        wide: whether each row becomes a separate list on a small screen.
    """
    lines = []
    for number, cells in enumerate(rows):
        pairs = zip(head, cells, strict=True)
        inside = "".join(f'<td data-name="{name}">{cell}</td>' for name, cell in pairs)
        lines.append(f"<tr{' class=main' if number == main else ''}>{inside}</tr>")
    names = "".join(f"<th>{name}</th>" for name in head)
    kind = " class='wide'" if wide else ""
    return (
        f"<div class='scroll'><table{kind}><thead><tr>{names}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def figure(chart: Chart, says: str = "") -> str:
    """A chart with a caption."""
    caption = f"<figcaption>{says}</figcaption>" if says else ""
    return f"<figure>{inline_svg(chart.figure, chart.name, printable(chart.says))}{caption}</figure>"


def image(picture: NDArray[np.uint8], says: str) -> str:
    """A picture (H, W) or (H, W, 3) at its own size, with a text that says what it shows."""
    height, width = picture.shape[:2]
    return f'<img src="{data_uri(picture)}" width="{width}" height="{height}" alt="{text(says)}">'


def data_uri(picture: NDArray[np.uint8], image_format: str = "PNG") -> str:
    """A picture (H, W) or (H, W, 3) as a data URI, so that it is part of the page."""
    content = io.BytesIO()
    encoded = Image.fromarray(picture)
    if image_format == "PNG":
        encoded.save(content, "PNG", optimize=True)
    else:
        encoded.save(content, image_format, quality=THUMBNAIL_QUALITY, optimize=True)
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
