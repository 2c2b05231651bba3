"""Charts hold and name what they show."""

import numpy as np
import pytest
from reports import EPOCH, make_dataset, make_report

from oasisvq.evaluation import figures
from oasisvq.evaluation.charts import draw_charts
from oasisvq.evaluation.figures import figure_bytes, hold, new_chart
from oasisvq.evaluation.report import Report
from oasisvq.evaluation.training_charts import training_curves


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("report")
    return make_report(make_dataset(folder / "data"), folder)


def test_axes_hold_what_they_show() -> None:
    _, axes = new_chart()
    hold(axes, "y", [0.91, float("nan"), 0.99], 0.02)
    low, high = axes.get_ylim()
    assert (0.90 < low < 0.91, 0.99 < high < 1.0) == (True, True)
    hold(axes, "y", [0.95, 0.951], 0.02)
    low, high = axes.get_ylim()
    assert 0.02 < high - low < 0.03
    hold(axes, "x", [float("nan")])
    assert axes.get_xlim() == (0, 1)


def test_legends_name_every_level_and_cover_nothing(report: Report) -> None:
    rows = [EPOCH | {"epoch": 1, "validation_ssim": [0.5]}, EPOCH | {"epoch": 2}]
    charts = draw_charts(report.seen, report.comparison, rows, **figures.PAGE_STYLE)
    named = {}
    for chart in charts:
        figure_bytes(chart.figure, ".svg")  # lays it out
        assert not any(axes.get_legend() for axes in chart.figure.axes), chart.name
        for legend in chart.figure.legends:
            box = legend.get_window_extent()
            width, height = chart.figure.bbox.width, chart.figure.bbox.height
            assert box.x0 >= 0, chart.name
            assert box.y0 >= 0, chart.name
            assert box.x1 <= width, chart.name
            assert box.y1 <= height, chart.name
            for axes in chart.figure.axes:
                assert not box.overlaps(axes.get_window_extent()), chart.name
            named[chart.name] = [entry.get_text() for entry in legend.get_texts()]
    levels = ["level 1", "level 2", "level 3"]
    assert named["codebook-ranks"] == named["training-ssim"] == named["training-perplexity"] == levels
    assert named["rate-ssim"] == ["oasisvq", "JPEG"]
    (curves,) = (chart for chart in training_curves(rows) if chart.name == "training-ssim")
    assert np.isnan(curves.figure.axes[0].lines[2].get_ydata()[0])


def test_every_stage_of_a_training_has_its_curves() -> None:
    rows = [
        {"what": what, "kind": "epoch", "epoch": epoch, key: values}
        for epoch in (1, 2)
        for what, key, values in (
            ("prior", "validation_bits", [6.0, 7.0]),
            ("volumes", "validation_ssim", [0.8, 0.9]),
            ("volumes prior", "validation_bits", [5.0, 6.0]),
            ("residue", "validation_bits", [3.9, 1.4, 0.02]),
        )
    ]
    charts = {chart.name: chart for chart in training_curves(rows)}
    assert list(charts) == [
        "training-prior",
        "training-volumes-ssim",
        "training-volumes-prior",
        "training-residue",
    ]
    axes = charts["training-residue"].figure.axes[0]
    assert [line.get_label() for line in axes.lines] == ["lossless", "bound 3", "ground, a pixel"]
    assert axes.get_xlabel() == "epoch of the residue's networks"
