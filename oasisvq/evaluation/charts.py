"""The charts of what was measured, for a report or a paper; each is one figure of a column's width.

Shapes: N slices, L levels, K codes, rows×columns grid of cells.

A chart depends only on what was measured. `figures.py` turns it into a file or a part of a page; the
curves of a training are in `training_charts.py`. Artists with an id (`set_gid`) get their hover texts in
`sections.py` and `galleries.py`.
"""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from oasisvq.codec.measure import FOREGROUND_LEVEL, Scale
from oasisvq.evaluation.baselines import Comparison
from oasisvq.evaluation.colours import NEUTRAL, SERIES, level_colour, principal_components
from oasisvq.evaluation.figures import SOFT, Chart, hold, legend_above, new_chart, new_figure, styled
from oasisvq.evaluation.marks import draw_marks
from oasisvq.evaluation.observations import Observations, by_subject, level_usage
from oasisvq.evaluation.panels import BAR_INCHES, MOST_COLUMNS, SliceView, View, draw_panel
from oasisvq.evaluation.samples import Drawn
from oasisvq.evaluation.score import DATA_RANGE
from oasisvq.evaluation.training_charts import Row, training_curves
from oasisvq.text import printable

PAGE_INCHES = 7.09  # 180 mm, both columns
CELL_MAP = "viridis"
MARKS = "osD^vP*X"
NAMES = {
    "oasisvq": "oasisvq",
    "avif": "AVIF",
    "avif-data": "AVIF's bare data",
    "jpegxl": "JPEG XL",
    "webp": "WebP",
    "jpeg2000": "JPEG 2000",
    "jpeg": "JPEG",
}
FOREGROUND = FOREGROUND_LEVEL * DATA_RANGE
SIMILARITY_RANGE, PSNR_RANGE = 0.02, 2.0  # least ranges of axes, so that tiny differences look tiny
NAME_ROOM = 0.08  # share of an axis for a name beside the outermost value
SIZE_ROOM = 1.2  # factor by which an axis exceeds the smallest and the largest file
MEASURES = {"ssim": "SSIM", "foreground_ssim": "foreground SSIM", "psnr": "PSNR (dB)"}


def slice_histogram(seen: Observations) -> Chart:
    """How SSIM and foreground SSIM are distributed over slices."""
    figure, axes = new_chart()
    rows = seen.rows[seen.main]
    both = {"SSIM": rows.ssim, "foreground SSIM": rows.foreground_ssim}
    every = np.concatenate([each[np.isfinite(each)] for each in both.values()])
    hold(axes, "x", every, SIMILARITY_RANGE)
    bins = np.linspace(*axes.get_xlim(), 41).tolist()
    for (name, values), colour in zip(both.items(), SERIES, strict=False):
        finite = values[np.isfinite(values)]
        axes.hist(finite, bins, color=colour, alpha=0.75, label=name)
        if len(finite):
            axes.axvline(float(finite.mean()), color=colour, linewidth=1, linestyle="--")
    axes.set(xlabel="similarity of a slice (dashed: mean)", ylabel="slices")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(axes)
    says = f"Histogram over {len(rows.ssim)} slices: " + ", ".join(
        f"{name} from {np.nanmin(each):.4f} to {np.nanmax(each):.4f}, mean {np.nanmean(each):.4f}"
        for name, each in both.items()
        if np.isfinite(each).any()
    )
    return Chart("ssim-slices", figure, says)


def subject_ranges(seen: Observations) -> Chart:
    """Mean, lowest and highest SSIM of each subject."""
    figure, axes = new_chart()
    subjects = by_subject(seen)
    for place, values in enumerate(subjects.values()):
        axes.plot([place] * 2, [values.min(), values.max()], color=SERIES[0], alpha=0.35, linewidth=2.2)
        (dot,) = axes.plot(place, values.mean(), "o", color=SERIES[0])
        dot.set_gid(f"subject-{place}")
    axes.set(xlabel="subjects, by their mean", ylabel="SSIM (mean and range)", xticks=[])
    hold(axes, "y", np.concatenate(list(subjects.values())), SIMILARITY_RANGE)
    _make_room(axes, below=NAME_ROOM)
    lowest = next(iter(subjects))
    axes.annotate(
        printable(lowest),
        (0, float(subjects[lowest].min())),
        (-2, -4),
        textcoords="offset points",
        va="top",
        color=SOFT,
        parse_math=False,
    )
    means = [float(values.mean()) for values in subjects.values()]
    return Chart(
        "ssim-subjects",
        figure,
        f"SSIM of {len(means)} subjects, a dot for the mean, a bar from the worst to the best slice: "
        f"means from {means[0]:.4f} to {means[-1]:.4f}",
    )


def position_curve(seen: Observations) -> Chart:
    """SSIM and bytes by the position of a slice in the head."""
    figure, axes = new_chart()
    numbers = np.array([record.slice_number for record in seen.records])
    rows = seen.rows[seen.main]
    places = np.unique(numbers)
    for (name, values), colour in zip(
        {"SSIM": rows.ssim, "foreground SSIM": rows.foreground_ssim}.items(), SERIES, strict=False
    ):
        known = [values[(numbers == place) & np.isfinite(values)] for place in places]
        at = [place for place, each in zip(places, known, strict=True) if len(each)]
        known = [each for each in known if len(each)]
        axes.fill_between(
            at,
            [each.min() for each in known],
            [each.max() for each in known],
            color=colour,
            alpha=0.18,
            lw=0,
        )
        axes.plot(at, [each.mean() for each in known], color=colour, label=name)
    hold(axes, "y", [*rows.ssim, *rows.foreground_ssim], SIMILARITY_RANGE)
    axes.set(xlabel="slice number, as in the dataset", ylabel="mean and range")
    legend_above(axes)
    return Chart(
        "ssim-position", figure, "SSIM and foreground SSIM by slice number, mean and range over subjects"
    )


def rate_curve(seen: Observations, comparison: Comparison | None, measure: str) -> Chart:
    """Quality over bytes, beside the classic codecs if they were measured."""
    figure, axes = new_chart(2.7)
    if comparison:
        curves = {
            name: [(point.file_bytes, getattr(point, measure), point.setting) for point in points]
            for name, points in comparison.curves.items()
        }
    else:
        scores = seen.score.qualities
        curves = {
            "oasisvq": [
                (each.file_bytes, getattr(each, measure).mean, f"{each.levels}") for each in scores
            ]
        }
    for number, (name, points) in enumerate(curves.items()):
        sizes, values, settings = zip(*sorted(points), strict=True)
        ours = name == "oasisvq"
        for at in zip(sizes, values, settings, strict=True) if ours else ():
            _name_quality(axes, *at)
        axes.plot(
            sizes,
            values,
            marker=MARKS[number % len(MARKS)],
            color=SERIES[number % len(SERIES)],
            linewidth=2.2 if ours else 1.1,
            zorder=3 if ours else 2,
            label=NAMES.get(name, name),
        )
    axes.set_xscale("log")
    all_sizes = [point[0] for points in curves.values() for point in points]
    axes.set_xlim(min(all_sizes) / SIZE_ROOM, max(all_sizes) * SIZE_ROOM)
    reached = [point[1] for points in curves.values() for point in points]
    hold(axes, "y", reached, PSNR_RANGE if measure == "psnr" else SIMILARITY_RANGE)
    _make_room(axes, above=NAME_ROOM)
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = _byte_ticks(*axes.get_xlim())
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set(xlabel="mean bytes of a slice (log scale)", ylabel=MEASURES[measure])
    legend_above(axes, 3)
    return Chart(
        f"rate-{measure.replace('_', '-')}",
        figure,
        f"{MEASURES[measure]} over mean bytes of a slice: {', '.join(NAMES.get(n, n) for n in curves)}",
    )


def _make_room(axes: Axes, below: float = 0, above: float = 0) -> None:
    """Make room for a name, in shares of the axis."""
    low, high = axes.get_ylim()
    axes.set_ylim(low - below * (high - low), high + above * (high - low))


def _name_quality(axes: Axes, size: float, value: float, setting: str) -> None:
    """Write the quality of a dot of ours above it to the left, where a rising curve leaves room."""
    axes.annotate(
        setting.removeprefix("-q "),
        (size, value),
        (-3, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=SERIES[0],
    )


def _byte_ticks(low: float, high: float) -> list[int]:
    """1, 2, 5, 10, ... between two sizes."""
    steps = [step * 10**power for power in range(7) for step in (1, 2, 5)]
    return [step for step in steps if low <= step <= high]


def usage_bars(seen: Observations) -> Chart:
    """Codes in use and perplexity of every level."""
    figure, axes = new_chart()
    levels = np.arange(1, len(seen.usage) + 1)
    found = [level_usage(counts) for counts in seen.usage]
    size = seen.usage.shape[1]
    axes.axhline(size, color=SOFT, linewidth=0.9, linestyle="--")
    axes.text(levels[-1] + 0.45, size, f"all {size} codes", ha="right", va="bottom", color=SOFT)
    axes.bar(levels - 0.19, [each.used for each in found], 0.36, color=SERIES[0], label="codes in use")
    axes.bar(
        levels + 0.19, [each.perplexity for each in found], 0.36, color=SERIES[1], label="perplexity"
    )
    axes.set(xlabel="level", ylabel="codes", xticks=levels, ylim=(0, size * 1.15))
    axes.grid(axis="x", visible=False)
    legend_above(axes)
    says = "; ".join(
        f"level {level}: {each.used} of {size} codes, perplexity {each.perplexity:.0f}"
        for level, each in zip(levels, found, strict=True)
    )
    return Chart("codebook-usage", figure, says)


def usage_ranks(seen: Observations) -> Chart:
    """How often codes occur, the most frequent first, with a line for each level."""
    figure, axes = new_chart()
    levels, size = seen.usage.shape
    ranks = np.arange(1, size + 1)
    for level, counts in enumerate(seen.usage):
        shares = np.sort(counts)[::-1] / max(1, counts.sum())
        axes.plot(
            ranks[shares > 0],
            100 * shares[shares > 0],
            color=level_colour(level, levels),
            label=f"level {level + 1}",
        )
    axes.axhline(100 / size, color=SOFT, linewidth=0.9, linestyle="--")
    axes.set(xlabel="codes, the most frequent first", ylabel="share of indices (%)", yscale="log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g}"))
    legend_above(axes)
    return Chart("codebook-ranks", figure, f"Share of each code by rank, for {levels} levels")


def bits_map(seen: Observations) -> Chart:
    """Mean bits of each cell."""
    assert seen.bits is not None
    bits = seen.bits.sum(0)  # over levels
    figure = _picture(seen, np.where(bits > 0, bits, np.nan), "mean bits of a cell")
    return Chart(
        "bits",
        figure,
        f"Heat map of the mean bits of each of {bits.shape[0]}×{bits.shape[1]} grid cells, from 0 to "
        f"{bits.max():.1f}, with the outline of the heads",
    )


def error_map(seen: Observations) -> Chart:
    """Mean absolute error of each pixel."""
    figure = _picture(seen, seen.mean_error, "mean absolute error (grey levels)")
    return Chart(
        "error-map",
        figure,
        f"Heat map of the mean absolute error of each pixel, from 0 to {seen.mean_error.max():.1f} grey "
        "levels, with the outline of the heads",
    )


def _picture(seen: Observations, values: NDArray[np.float64], label: str) -> Figure:
    """A picture of values over the field of view, with the outline of the heads."""
    figure, axes = new_chart(2.9)
    height, width = seen.mean_plane.shape
    stride = math.ceil(height / values.shape[0])
    extent = 0, stride * values.shape[1], stride * values.shape[0], 0
    colours = colormaps[CELL_MAP].with_extremes(bad=str(NEUTRAL))
    shown = axes.imshow(values, cmap=colours, extent=extent, vmin=0)
    if seen.mean_plane.max() > FOREGROUND:
        head = binary_fill_holes(seen.mean_plane > FOREGROUND)
        axes.contour(head, [0.5], colors="white", linewidths=0.9)
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    draw_marks(axes, seen.marks)
    _scale_beside(figure, axes, shown, label)
    return figure


def _scale_beside(figure: Figure, axes: Axes, shown: ScalarMappable, label: str) -> None:
    """Add a colour bar that says what the colours of a picture or of dots stand for."""
    bar = figure.colorbar(shown, ax=axes, pad=0.02)
    bar.set_label(label)
    bar.outline.set_visible(False)


def latent_map(seen: Observations) -> Chart:
    """The slices in latent space, coloured by their position in the head."""
    figure, axes = new_chart(2.9)
    numbers = [record.slice_number for record in seen.records]
    across, along = principal_components(seen.pooled, 2).T
    dots = axes.scatter(across, along, c=numbers, cmap=CELL_MAP, s=10, linewidths=0.3, edgecolors=SOFT)
    dots.set_gid("latents")
    _scale_beside(figure, axes, dots, "slice number")
    axes.set(xlabel="first principal component", ylabel="second principal component")
    return Chart(
        "latent-map",
        figure,
        f"{len(seen.records)} slices by the two strongest principal components of their pooled latents, "
        "coloured by slice number",
    )


def draw_charts(
    seen: Observations, comparison: Comparison | None, metrics: list[Row], **style: object
) -> list[Chart]:
    """All charts for which there is data; `style` adds to our style."""
    with styled(**style):
        has_curve = comparison is not None or len(seen.score.qualities) > 1
        return [
            slice_histogram(seen),
            subject_ranges(seen),
            position_curve(seen),
            error_map(seen),
            *(rate_curve(seen, comparison, measure) for measure in MEASURES if has_curve),
            usage_bars(seen),
            usage_ranks(seen),
            *([bits_map(seen)] if seen.bits is not None else []),
            *training_curves(metrics),
            latent_map(seen),
        ]


def draw_cases(seen: Observations, codebooks: NDArray[np.float32]) -> list[Chart]:
    """Panels of the first best, median and worst case, each of a page's width."""
    charts = []
    for kind in ("best", "median", "worst"):
        case = next((case for case in seen.cases if case.kind == kind), None)
        if case is None:
            continue
        name, scale = case.record.source, Scale(0.0, DATA_RANGE)
        view = View(name, case.codes, case.original[None], scale, 1.0, marks=case.marks)
        slices = [SliceView(0, case.original, case.restored, case.scores)]
        tiles = min(MOST_COLUMNS, case.codes.header.levels + 3)
        figure = draw_panel(view, slices, codebooks, (PAGE_INCHES - BAR_INCHES) / tiles)
        charts.append(Chart(f"panel-{kind}", figure, f"{kind} case: {name}"))
    return charts


def draw_samples(drawn: list[Drawn]) -> Chart:
    """Samples, each above its nearest training slice."""
    with styled():
        has_neighbours = drawn[0].neighbour is not None
        figure = new_figure(0.9 * (1 + has_neighbours) + 0.25, PAGE_INCHES)
        grid = figure.subplots(1 + has_neighbours, len(drawn), squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for each, column in zip(drawn, grid.T, strict=True):
            column[0].imshow(each.plane, cmap="gray", vmin=0, vmax=DATA_RANGE)
            if each.neighbour is not None:
                column[1].imshow(each.neighbour.plane, cmap="gray", vmin=0, vmax=DATA_RANGE)
                column[1].set_title(f"SSIM {each.neighbour.ssim:.3f}", fontsize=7, fontweight="normal")
        grid[0, 0].set_title(
            "samples; below: the nearest training slices" if has_neighbours else "samples"
        )
        return Chart("samples", figure, f"{len(drawn)} samples of the prior")
