"""The rows of metrics.jsonl -> curves.png: losses, validation SSIM, codebooks; bits of the prior.

Everything is drawn from all rows each time, so a resumed training shows its whole course. Only this file
imports matplotlib, which a machine that trains may lack.
"""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

Row = dict[str, Any]  # of metrics.jsonl
Chart = Callable[["Axes", list[Row], list[Row]], None]

PARTS = {
    "ssim_loss": "1 − SSIM",
    "l1": "L1",
    "mse": "MSE",
    "commitment": "commitment",
}
RESIDUE_PARTS = "lossless", "bound 3", "ground, a pixel"
INCHES = 4.8, 3.4  # of a chart
DOTS_PER_INCH = 100
MARGIN = 0.5  # inches, beside each chart
LEGEND_LEVELS = 6  # more would make the legend too long
MARKED_EPOCHS = 30  # more are drawn as a line without points


def draw_curves(rows: list[Row]) -> bytes:
    """A PNG with a chart for each quantity in the rows.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # not pyplot, which would look for a screen
    from matplotlib.ticker import MaxNLocator

    drawn = [
        (chart, steps, epochs)
        for what, charts in CHARTS.items()
        for steps, epochs in [(_of(rows, what, "step"), _of(rows, what, "epoch"))]
        for chart in charts
        if epochs
    ]
    columns = {0: 1, 4: 2}.get(len(drawn), min(3, len(drawn)))
    lines = max(1, -(-len(drawn) // columns))
    figure = Figure((columns * INCHES[0], lines * INCHES[1]), DOTS_PER_INCH)
    for number, (chart, steps, epochs) in enumerate(drawn, start=1):
        axes = figure.add_subplot(lines, columns, number)
        chart(axes, steps, epochs)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    figure.subplots_adjust(*_margins(columns, lines))
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def recent_losses(steps: list[Row], steps_per_epoch: float) -> tuple[list[float], list[float]]:
    """For each report of steps, the epochs done and the mean loss since the previous report.

    A report itself holds the mean over its epoch so far, which moves less and less during the epoch.
    """
    places, losses = [], []
    sum_before, done_before, epoch_before = 0.0, 0.0, 0
    for row in steps:
        if row["epoch"] != epoch_before:
            sum_before, done_before, epoch_before = 0.0, 0.0, row["epoch"]
        done = row["step"] - (row["epoch"] - 1) * steps_per_epoch
        if done > done_before:
            places.append(row["step"] / steps_per_epoch)
            losses.append((row["loss"] * done - sum_before) / (done - done_before))
        sum_before, done_before = row["loss"] * done, done
    return places, losses


def _of(rows: list[Row], what: str, kind: str) -> list[Row]:
    return [row for row in rows if row.get("what") == what and row.get("kind") == kind]


def _margins(columns: int, lines: int) -> tuple[float, float, float, float, float, float]:
    """Left, bottom, right, top, and gaps between charts; `tight_layout` would draw everything twice."""
    across, down = MARGIN / (columns * INCHES[0]), MARGIN / (lines * INCHES[1])
    between = MARGIN / (INCHES[0] - MARGIN), 1.7 * MARGIN / (INCHES[1] - 1.7 * MARGIN)
    return across, down, 1 - 0.3 * across, 1 - 0.7 * down, *between


def _curve(
    axes: "Axes",
    epochs: list[Row],
    values: list[float],
    label: str | None = None,
    color: "ColorType | None" = None,
    dotted: bool = False,
) -> None:
    axes.plot(
        [row["epoch"] for row in epochs],
        values,
        label=label,
        color=color,
        linestyle=":" if dotted else "-",
        marker="" if dotted or len(epochs) > MARKED_EPOCHS else "o",
        markersize=3,
    )


def _levels(
    axes: "Axes", epochs: list[Row], key: str, label: str | None = "level {}", dotted: bool = False
) -> None:
    """One curve for each level of a list in each row, from dark to bright."""
    from matplotlib import colormaps

    epochs = [row for row in epochs if row.get(key)]
    count = min((len(row[key]) for row in epochs), default=0)
    for level in range(count):
        named = count <= LEGEND_LEVELS or level in (0, count // 2, count - 1)
        name = label.format(level + 1) if label and named else None
        color = colormaps["viridis"](0.9 * level / max(1, count - 1))
        _curve(axes, epochs, [row[key][level] for row in epochs], name, color, dotted)


def _losses(axes: "Axes", steps: list[Row], epochs: list[Row]) -> None:
    axes.set_title("training loss")
    axes.set_yscale("log")
    places, losses = recent_losses(steps, epochs[-1]["step"] / epochs[-1]["epoch"])
    axes.plot(places, losses, color="0.75", linewidth=0.8, zorder=1)
    _curve(axes, epochs, [row["loss"] for row in epochs], color="k", label="loss")
    for key, name in PARTS.items():
        _curve(axes, epochs, [row[key] for row in epochs], label=name)


def _similarity(axes: "Axes", _: list[Row], epochs: list[Row]) -> None:
    if any(row["validation_ssim"] for row in epochs):
        axes.set_title("validation SSIM, by levels kept")
        _levels(axes, epochs, "validation_ssim", label="{}")
        return
    axes.set_title("training SSIM (no validation split)")
    _curve(axes, epochs, [1 - row["ssim_loss"] for row in epochs])


def _codebooks(axes: "Axes", _: list[Row], epochs: list[Row]) -> None:
    axes.set_title("active codes; dotted: perplexity")
    _levels(axes, epochs, "active")
    _levels(axes, epochs, "perplexity", None, dotted=True)
    axes.set_ylim(bottom=0)


def _bits(axes: "Axes", _: list[Row], epochs: list[Row]) -> None:
    if any(row["validation_bits"] for row in epochs):
        axes.set_title("prior: validation bits an index; dotted: training")
        _levels(axes, epochs, "validation_bits")
        _levels(axes, epochs, "bits_of_levels", None, dotted=True)
        return
    axes.set_title("prior: training bits an index")
    _levels(axes, epochs, "bits_of_levels")


def _residue(axes: "Axes", _: list[Row], epochs: list[Row]) -> None:
    axes.set_title("residue: validation bits a value; dotted: training")
    for place, name in enumerate(RESIDUE_PARTS):
        having = [row for row in epochs if len(row["validation_bits"]) > place]
        if having:
            _curve(axes, having, [row["validation_bits"][place] for row in having], name)
    _curve(axes, epochs, [row["loss"] for row in epochs], dotted=True)


def _of_volumes(chart: Chart) -> Chart:
    """A chart whose title says that it is about volumes."""

    def draw(axes: "Axes", steps: list[Row], epochs: list[Row]) -> None:
        chart(axes, steps, epochs)
        axes.set_title(f"volumes, {axes.get_title()}")

    return draw


CHARTS: dict[str, tuple[Chart, ...]] = {
    "codec": (_losses, _similarity, _codebooks),
    "prior": (_bits,),
    "volumes": (_of_volumes(_similarity),),
    "volumes prior": (_of_volumes(_bits),),
    "residue": (_residue,),
}
