"""The charts of a training, from the metrics beside its model; each is a figure of a column's width."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from oasisvq.evaluation.colours import SERIES, level_colour
from oasisvq.evaluation.figures import Chart, hold, legend_above, new_chart
from oasisvq.files import MAX_METRICS_BYTES, METRICS_FILE, read_rows

Row = dict[str, Any]
Draw = Callable[[Axes, list[Row]], None]

_STAGES = {
    "codec": "codec",
    "prior": "prior",
    "volumes": "codec of volumes",
    "volumes prior": "prior of volumes",
    "residue": "residue's networks",
}
RESIDUE_PARTS = "lossless", "bound 3", "ground, a pixel"
_NUMBERS = ("loss", "ssim_loss", "l1", "mse", "commitment")
_LISTS = ("validation_ssim", "perplexity", "validation_bits")
_LARGEST = 1e12
LEAST_RANGE = {"validation_ssim": 0.02, "perplexity": 1.0, "validation_bits": 0.1}  # of an axis


def read_metrics(model: Path) -> list[Row]:
    """The rows of epochs in the metrics beside a model."""
    rows = read_rows(model.parent / METRICS_FILE, MAX_METRICS_BYTES)
    return [row for row in rows if row.get("kind") == "epoch" and _is_drawable(row)]


def _is_drawable(row: Row) -> bool:
    """Whether all values that charts take from a row are numbers; the file may come from anyone."""
    lists = [row[key] for key in _LISTS if row.get(key)]
    if not all(isinstance(values, list) for values in lists):
        return False
    numbers = [row.get("epoch"), *(row[key] for key in _NUMBERS if key in row)]
    numbers += [number for values in lists for number in values]
    return all(type(number) in (int, float) and abs(number) < _LARGEST for number in numbers)


def training_curves(rows: list[Row]) -> list[Chart]:
    """Curves of the rows of epochs, stage by stage: losses, validation SSIM, perplexity, bits."""
    charts = []
    for name, what, key, draw in _CURVES:
        having = [row for row in rows if row.get("what", "codec") == what and row.get(key)]
        having = [row for row in having if isinstance(row.get("epoch"), (int, float))]
        if not having:
            continue
        figure, axes = new_chart()
        draw(axes, having)
        axes.set_xlabel(f"epoch of the {_STAGES[what]}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        said = f"{key.replace('_', ' ')} over {len(having)} epochs of the {_STAGES[what]}"
        charts.append(Chart(name, figure, said))
    return charts


def _draw_loss(axes: Axes, epochs: list[Row]) -> None:
    parts = {
        "loss": "loss",
        "ssim_loss": "1 − SSIM",
        "l1": "L1",
        "mse": "MSE",
        "commitment": "commitment",
    }
    for (key, name), colour in zip(parts.items(), SERIES, strict=False):
        having = [row for row in epochs if isinstance(row.get(key), float)]
        axes.plot([r["epoch"] for r in having], [r[key] for r in having], "o-", color=colour, label=name)
    axes.set(ylabel="training loss (log scale)", yscale="log")
    legend_above(axes)


def _draw_levels(key: str, label: str, names: tuple[str, ...] = ()) -> Draw:
    """A curve for each number in a list: named by `names`, or by its level."""

    def draw(axes: Axes, epochs: list[Row]) -> None:
        levels = max(len(row[key]) for row in epochs)
        named = [*names[:levels], *(f"level {level + 1}" for level in range(len(names), levels))]
        values = [[float(each) for each in row[key]] for row in epochs]
        values = [each + [math.nan] * (levels - len(each)) for each in values]
        for level in range(levels):
            axes.plot(
                [row["epoch"] for row in epochs],
                [each[level] for each in values],
                "o-",
                color=level_colour(level, levels),
                label=named[level],
            )
        hold(axes, "y", itertools.chain(*values), LEAST_RANGE[key])
        axes.set_ylabel(label)
        legend_above(axes)

    return draw


_SSIM = "validation_ssim", _draw_levels("validation_ssim", "validation SSIM")
_BITS = "validation_bits", _draw_levels("validation_bits", "bits of an index")
_CURVES: tuple[tuple[str, str, str, Draw], ...] = (
    ("training-loss", "codec", "loss", _draw_loss),
    ("training-ssim", "codec", *_SSIM),
    ("training-perplexity", "codec", "perplexity", _draw_levels("perplexity", "perplexity (codes)")),
    ("training-prior", "prior", *_BITS),
    ("training-volumes-ssim", "volumes", *_SSIM),
    ("training-volumes-prior", "volumes prior", *_BITS),
    (
        "training-residue",
        "residue",
        "validation_bits",
        _draw_levels("validation_bits", "bits of a value", RESIDUE_PARTS),
    ),
)
