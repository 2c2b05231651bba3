"""A picture of what a `.codes` file holds: original | code map | reconstruction | signed error.

Shapes: H×W image, h×w grid, L levels, K codes.
"""

import dataclasses
import math
import textwrap
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from oasisvq.codec.codec import Codec
from oasisvq.codec.codes import Codes
from oasisvq.codec.container import read_codes_file
from oasisvq.codec.headers import Coder, CodesHeader, Kind, placement_of, refuse_large_codes
from oasisvq.codec.measure import SMALLEST_SIDE, Scale, Similarity, scale_of, similarity
from oasisvq.codec.pixels import NOTHING
from oasisvq.errors import ImageError
from oasisvq.evaluation.colours import NEUTRAL, Colours, code_colours, error_colours, label_colours
from oasisvq.evaluation.figures import new_figure, styled
from oasisvq.evaluation.marks import NOSE, UNKNOWN, Marks, draw_marks, marks_of_codes
from oasisvq.scans.dicom import holds_dicom
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import read_scan, without_nan
from oasisvq.scans.source import SCAN_SUFFIXES, Source, source_at, stack_at
from oasisvq.text import printable

Plane = NDArray[np.generic]
TILE_INCHES = 2.1
TITLE_INCHES, SCORES_INCHES, HEADLINE_INCHES = 0.24, 0.36, 0.5
BAR_INCHES = 0.75  # of the colour bar and its label
BAR_WIDTH = 0.05  # share of a tile
LETTERS_PER_INCH = 15  # of the headline
MOST_COLUMNS = 6
ERROR_QUANTILE = 0.998  # of all absolute errors; the few beyond have the colours of the ends
MOST_NAMED_LABELS = 8


class View(NamedTuple):
    """An opened `.codes` file.

    Attributes:
        name: of the file.
        codes: header and indices, or labels.
        original: the original, cut into the same planes; None if it is not there.
        scale: that SSIM and PSNR refer to; None without an original.
        aspect: height of a pixel over its width.
        restored: all slices of a volume with more than indices, since these are decoded together.
        marks: the orientation of its slices.
    """

    name: str
    codes: Codes
    original: NDArray[np.generic] | None
    scale: Scale | None
    aspect: float
    restored: NDArray[np.generic] | None = None
    marks: Marks = UNKNOWN


class SliceView(NamedTuple):
    """One slice of a view.

    Attributes:
        place: from 0, in the order in which slices are coded.
        original: (H, W), if there is one.
        restored: (H, W).
        scores: None without an original, for exact labels, or if the slice is too small to measure.
    """

    place: int
    original: Plane | None
    restored: Plane
    scores: Similarity | None


def find_original(codes: Path) -> Source | None:
    """The image, volume or DICOM series of the same name beside a `.codes` file, if there is one.

    The codes of a series may also lie in its folder, if that has the same name. All images of a stack
    have to lie beside its codes.
    """
    header = read_codes_file(codes).header
    if header.stack:
        stack = stack_at(codes.parent, header.stack)
        return stack if all(path.is_file() for path in stack.files) else None
    for suffix in SCAN_SUFFIXES:
        path = codes.with_suffix(suffix)
        if path.is_file():
            return source_at(path)
    for folder in (codes.with_suffix(""), codes.parent):
        if folder.resolve().name == codes.stem and holds_dicom(folder):
            return source_at(folder)
    return None


def open_view(
    codec: Codec, path: Path, original: Source | None, max_pixels: int = DEFAULT_MAX_PIXELS
) -> View:
    """Read a `.codes` file and its original.

    Raises:
        CodesFileError: the file is damaged, or another model made it.
        FileError: a file is missing or cannot be read.
        ImageError: the original cannot be read, or has another shape.
    """
    file = read_codes_file(path)
    refuse_large_codes(file.header, str(path), max_pixels)
    codes = codec.codes_of(file)
    placement = placement_of(codes.header)
    aspect = 1.0
    if placement is not None:
        _, down, across = (placement.geometry.zooms[axis] for axis in placement.slicing.axes)
        aspect = down / across if down > 0 and across > 0 else 1.0
    restored, marks = None, marks_of_codes(codes.header, path)
    if codes.header.volume and codes.label_map is None:  # a slice alone would count as an image
        restored = codec.decode_codes(codes, str(path)).planes
    if original is None:
        return View(path.name, codes, None, None, aspect, restored, marks)
    scan = read_scan(original, max_pixels=max_pixels)
    planes = scan.planes
    if placement is not None and scan.placement is not None:
        planes = placement.slicing.planes(scan.voxels)  # cut as the codes were, not as by default
    expected = (codes.header.slices, *codes.header.shape)
    if planes.shape != expected:
        raise ImageError(
            f"{original.path}: {planes.shape} slices, rows and columns, but {path} was made from "
            f"{expected}; "
            "name its original with --original"
        )
    scale = scale_of(scan)
    planes = without_nan(planes, scale.low)
    return View(path.name, codes, planes, scale, aspect, restored, marks)


def choose_places(header: CodesHeader, place: int | None, count: int | None) -> list[int]:
    """The slices to show: the named one, `count` evenly spaced ones, or the middle coded one.

    Raises:
        ImageError: there is no such slice.
    """
    if place is not None:
        if not 0 <= place < header.slices:
            raise ImageError(f"slice {place}, expected 0 to {header.slices - 1}")
        return [place]
    coded = header.coded_slices or list(range(header.slices))
    wanted = 1 if count is None else min(count, len(coded))
    return [coded[int((number + 0.5) * len(coded) / wanted)] for number in range(wanted)]


def slice_codes(codes: Codes, place: int) -> Codes:
    """The codes of one slice of a volume, as those of an image; those of an image unchanged."""
    header = codes.header
    if header.volume is None:
        return codes
    alone = dataclasses.replace(
        header.of_indices,
        kind=Kind.IMAGE,
        volume=None,
        stack=None,
        intensity=header.slice_range(place),
        window=header.window if place in header.coded_slices else NOTHING,
    )
    indices = codes.indices[place][:, : alone.window.height, : alone.window.width]
    return Codes(alone, indices, codes.file_bytes)


def view_slice(codec: Codec, view: View, place: int) -> SliceView:
    """Decode one slice of a view and measure it."""
    codes = view.codes
    if codes.label_map is not None:
        restored: Plane = codes.label_map.reshape(codes.header.slices, *codes.header.shape)[place]
    elif view.restored is not None:
        restored = without_nan(view.restored[place], codes.header.intensity[0])
    else:
        restored = codec.decode_codes(slice_codes(codes, place), view.name).plane
    if view.original is None:
        return SliceView(place, None, restored, None)
    original: Plane = view.original[place]
    scores = None
    if codes.label_map is None and view.scale and min(restored.shape) >= SMALLEST_SIDE:
        low = view.scale.low
        before, after = (view.scale.plain(each) - low for each in (original, restored))
        scores = similarity(before, after, view.scale.range)
    return SliceView(place, original, restored, scores)


def code_map(indices: NDArray[np.uint16], header: CodesHeader, colours: Colours) -> Colours:
    """Indices (h, w) of one level -> (H, W, 3): each cell in the colour of its code.

    Places outside the coded window have no code and are grey.
    """
    stride, window, (height, width) = header.stride, header.window, header.shape
    image = np.full((height, width, 3), NEUTRAL)
    cells = colours[indices].repeat(stride, 0).repeat(stride, 1)
    inside = image[window.top * stride :, window.left * stride :]
    inside = inside[: cells.shape[0], : cells.shape[1]]
    inside[...] = cells[: inside.shape[0], : inside.shape[1]]
    return image


# --- drawing --------------------------------------------------------------------------------------


class _Tiles:
    """Draws the tiles of slices, with common scales."""

    def __init__(self, view: View, slices: list[SliceView], codebooks: NDArray[np.float32]) -> None:
        self.view, self.slices, self.header = view, slices, view.codes.header
        self.is_exact = self.header.coder is Coder.LABELS
        planes = [
            plane for each in slices for plane in (each.original, each.restored) if plane is not None
        ]
        self.low = float(min(plane.min() for plane in planes))
        self.high = float(max(plane.max() for plane in planes))
        self.limit = self._error_limit()
        levels = 0 if self.is_exact else self.header.levels
        self.colours = [code_colours(codebooks[level]) for level in range(levels)]
        self.label_colours = label_colours(len(self.header.labels)) if self.is_exact else None

    def _error_limit(self) -> float:
        errors = [np.abs(_error(each)).ravel() for each in self.slices if each.original is not None]
        return _rounded_up(float(np.quantile(np.concatenate(errors), ERROR_QUANTILE))) if errors else 0

    def kinds(self) -> list[str]:
        """What is shown of each slice, in order."""
        if self.is_exact:
            return ["original"] * (self.view.original is not None) + ["labels, kept exactly"]
        maps = [f"codes, level {level + 1}" for level in range(self.header.levels)]
        if self.view.original is None:
            return [*maps, "reconstruction"]
        return ["original", *maps, "reconstruction", "error"]

    def rows(self) -> list[list[str]]:
        """These kinds in rows of at most `MOST_COLUMNS`; the last row is aligned to the right."""
        kinds = self.kinds()
        down = math.ceil(len(kinds) / MOST_COLUMNS)
        across = math.ceil(len(kinds) / down)
        gap = [""] * (down * across - len(kinds))
        kinds = [*kinds[:-2], *gap, *kinds[-2:]]
        return [kinds[row * across : (row + 1) * across] for row in range(down)]

    def draw(self, axes: Axes, kind: str, each: SliceView) -> None:
        """Draw one tile."""
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        aspect = self.view.aspect
        if kind == "error":
            axes.imshow(_error(each), cmap=_error_map(), vmin=-self.limit, vmax=self.limit)
        elif kind.startswith("codes"):
            level = int(kind.rsplit(maxsplit=1)[1]) - 1
            alone = slice_codes(self.view.codes, each.place)
            axes.imshow(code_map(alone.indices[level], alone.header, self.colours[level]))
        elif kind.startswith("labels"):
            axes.imshow(self._label_picture(each.restored))
        else:
            plane = each.original if kind == "original" else each.restored
            assert plane is not None
            axes.imshow(plane.astype(np.float64), cmap="gray", vmin=self.low, vmax=self.high)
        draw_marks(axes, self.view.marks)
        axes.set_aspect(aspect)

    def _label_picture(self, plane: Plane) -> Colours:
        assert self.label_colours is not None
        labels = np.array(self.header.labels)
        picture: Colours = self.label_colours[np.searchsorted(labels, plane)]
        return picture

    def add_scale(self, figure: Figure, axes: Axes) -> None:
        """Add the colour bar of errors, or the names of labels."""
        if self.is_exact:
            self._add_label_names(figure)
        if self.is_exact or self.view.original is None:
            axes.set_axis_off()
            return
        scale = ScalarMappable(Normalize(-self.limit, self.limit), _error_map())
        what = "grey levels" if self.header.volume is None else "stored values"
        bar = figure.colorbar(scale, cax=axes, extend="both")
        bar.set_label(f"reconstruction − original\n({what})")
        bar.outline.set_visible(False)

    def _add_label_names(self, figure: Figure) -> None:
        assert self.label_colours is not None
        if len(self.header.labels) > MOST_NAMED_LABELS:
            return
        pairs = zip(self.label_colours, self.header.labels, strict=True)
        patches = [Patch(facecolor=tuple(colour), label=str(label)) for colour, label in pairs]
        figure.legend(
            handles=patches, loc="outside lower center", ncols=MOST_NAMED_LABELS, title="label"
        )


def draw_panel(
    view: View,
    slices: list[SliceView],
    codebooks: NDArray[np.float32],
    tile_inches: float = TILE_INCHES,
) -> Figure:
    """Draw the pictures of one slice side by side, or several slices with a column for each."""
    with styled():
        tiles = _Tiles(view, slices, codebooks)
        is_one = len(slices) == 1
        rows = tiles.rows() if is_one else [[kind] * len(slices) for kind in tiles.kinds()]
        down, across = len(rows), len(rows[0])
        height, width = view.codes.header.shape
        tall = tile_inches * min(2.0, max(0.4, view.aspect * height / width))
        titled_rows = down if is_one else 1
        text = TITLE_INCHES * titled_rows + SCORES_INCHES + HEADLINE_INCHES
        figure = new_figure(tall * down + text, tile_inches * across + BAR_INCHES)
        figure.set_layout_engine("constrained", hspace=0.03, wspace=0.03)
        spaces = figure.add_gridspec(down, across + 1, width_ratios=[1] * across + [BAR_WIDTH])
        grid = [
            [figure.add_subplot(spaces[row, column]) for column in range(across)] for row in range(down)
        ]
        tiles.add_scale(figure, figure.add_subplot(spaces[-1, -1]))
        if is_one:
            _fill_rows(grid, tiles, rows, slices[0])
        else:
            _fill_columns(grid, tiles, slices)
        letters = int(LETTERS_PER_INCH * figure.get_figwidth())
        lines = [line for part in _headline(view) for line in textwrap.wrap(part, letters)]
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8.5, parse_math=False)
        return figure


def _fill_rows(grid: list[list[Axes]], tiles: _Tiles, rows: list[list[str]], each: SliceView) -> None:
    """Draw the pictures of one slice, one after the other."""
    for axes, kind in zip(chain(*grid), chain(*rows), strict=True):
        if not kind:
            axes.set_axis_off()
            continue
        tiles.draw(axes, kind, each)
        axes.set_title(kind)
        if kind == "reconstruction":
            axes.set_xlabel(score_text(each.scores))


def _fill_columns(grid: list[list[Axes]], tiles: _Tiles, slices: list[SliceView]) -> None:
    """Draw a row for each kind of picture, and a column for each slice."""
    for row, kind in zip(grid, tiles.kinds(), strict=True):
        for axes, each in zip(row, slices, strict=True):
            tiles.draw(axes, kind, each)
            if kind == "reconstruction":
                axes.set_xlabel(score_text(each.scores, short=True))
        row[0].set_ylabel(kind, fontweight="bold", fontsize=8.5)
    for axes, each in zip(grid[0], slices, strict=True):
        axes.set_title(f"slice {each.place}", fontweight="normal")


def describe_slice(view: View, each: SliceView) -> str:
    """One line on a slice that is shown."""
    header = view.codes.header
    where = f"slice {each.place}" if header.volume else "image"
    if header.stack:
        where += f" ({header.stack.names[each.place]})"
    if view.codes.label_map is not None:
        return f"{where}, labels kept exactly{_agreement(view)}"
    return ", ".join([where, *score_text(each.scores).splitlines()])


def score_text(scores: Similarity | None, short: bool = False) -> str:
    """Scores in words, with the foreground SSIM if there is a foreground."""
    if scores is None:
        return ""
    if short:
        return f"SSIM {scores.ssim:.4f}\n{scores.psnr:.1f} dB"
    foreground = scores.foreground_ssim
    inside = "" if math.isnan(foreground) else f" (foreground {foreground:.4f})"
    return f"SSIM {scores.ssim:.4f}{inside}\nPSNR {scores.psnr:.2f} dB"


def _headline(view: View) -> list[str]:
    """Lines that say what the file is."""
    header = view.codes.header
    height, width = header.shape
    pixels = header.slices * height * width
    size = f"{header.slices}×{height}×{width} voxels" if header.volume else f"{height}×{width} pixels"
    unit = "voxel" if header.volume else "pixel"
    bits = 8 * view.codes.file_bytes / pixels
    parts = [size, f"{view.codes.file_bytes:,} bytes", f"{bits:.4f} bits/{unit}"]
    if header.coder is Coder.LABELS:
        parts.append("labels without loss" + _agreement(view))
    else:
        parts += [f"quality {header.levels}", f"model {header.fingerprint.hex()[:8]}"]
        if view.scale is not None:
            parts.append(f"scores on {view.scale.words}")
    if NOSE in view.marks:
        parts.append("▸ to the nose")
    return [printable(view.name), " · ".join(parts)]


def _agreement(view: View) -> str:
    """How a label map and its original agree."""
    if view.original is None or view.codes.label_map is None:
        return ""
    differ = int((view.codes.label_map.reshape(view.original.shape) != view.original).sum())
    return ", equal to the original" if not differ else f", {differ:,} values differ from the original"


def _error(each: SliceView) -> NDArray[np.float64]:
    assert each.original is not None
    return each.restored.astype(np.float64) - each.original.astype(np.float64)


def _error_map() -> ListedColormap:
    return ListedColormap(list(map(tuple, error_colours())), name="signed error")


def _rounded_up(limit: float) -> float:
    """The next of 1, 2, 3, 4, 5, 6, 8 and 10 times a power of ten; 1 if nothing is lost."""
    if limit <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(limit))
    return next(step * power for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * power >= limit * (1 - 1e-9))
