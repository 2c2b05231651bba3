"""What was measured, as one HTML page that needs no network: `score --report`.

The frame, styles and script of the page are in `report.html`; its parts are in `answers.py` (the head),
`sections.py` (numbers and charts) and `galleries.py` (pictures of scans).
"""

from collections.abc import Iterable
from datetime import date
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.data.dataset import Dataset
from oasisvq.evaluation import galleries, sections
from oasisvq.evaluation.answers import head
from oasisvq.evaluation.baselines import Comparison
from oasisvq.evaluation.charts import draw_cases, draw_charts, draw_samples
from oasisvq.evaluation.colours import SERIES
from oasisvq.evaluation.figures import PAGE_STYLE, Chart, write_figure
from oasisvq.evaluation.markup import text
from oasisvq.evaluation.observations import Observations
from oasisvq.evaluation.samples import Drawn, SampleScore, training_of
from oasisvq.evaluation.training_charts import read_metrics
from oasisvq.files import make_folder, write_atomically

# the colours of series on a dark page: the same hues, but lighter
DARK_SERIES = (
    "#4ba6de",
    "#f08a3c",
    "#2fc79a",
    "#d98cc4",
    "#cfa93a",
    "#8cc8f2",
    "#a995f0",
    "#c4a48e",
)
SAMPLES = 8  # that are shown


class Report(NamedTuple):
    """Everything that a report tells.

    Attributes:
        codec: that was measured.
        model: the file of the model.
        model_given: the model as the user named it, or how it was chosen.
        dataset: that was measured, perhaps prepared only for this.
        every: every `every`-th slice was measured.
        seen: what the pass over the split gathered.
        comparison: with the classic codecs.
        drawn: samples of the prior.
        sample_score: how far samples are from the split.
    """

    codec: Codec
    model: Path
    model_given: str
    dataset: Dataset
    every: int
    seen: Observations
    comparison: Comparison | None = None
    drawn: list[Drawn] | None = None
    sample_score: SampleScore | None = None


def write_figures(report: Report, folder: Path) -> int:
    """Write every chart and panel as PNG and SVG, for a paper; returns how many there are.

    Raises:
        FileError: a file cannot be written.
    """
    charts = _charts(report) + draw_cases(report.seen, report.codec.file.codebooks)
    if report.drawn:
        charts.append(draw_samples(report.drawn))
    make_folder(folder)
    for chart in charts:
        for suffix in (".png", ".svg"):
            write_figure(chart.figure, folder / f"{chart.name}{suffix}")
    return len(charts)


def write_report(report: Report, path: Path) -> None:
    """Write the page.

    Raises:
        FileError: it cannot be written.
    """
    write_atomically(path, page(report).encode("utf-8"))


def _charts(report: Report, **style: object) -> list[Chart]:
    return draw_charts(report.seen, report.comparison, read_metrics(report.model), **style)


def page(report: Report) -> str:
    """The page as HTML."""
    seen, charts = report.seen, {chart.name: chart for chart in _charts(report, **PAGE_STYLE)}
    training = training_of(report.codec, report.dataset)
    slices = len(report.dataset.splits["train"].records) if "train" in report.dataset.splits else 0
    every = [
        ("table", "How good, how small", sections.qualities(seen)),
        ("distribution", "How it is distributed", sections.distribution(seen, charts)),
        ("cases", "Best, median and worst", galleries.cases(seen)),
        (
            "comparison",
            "Against the classic codecs" if report.comparison else "Quality over bytes",
            sections.comparison(report.comparison, charts),
        ),
        ("codebook", "The codebook", sections.codebook(seen, charts)),
        ("bits", "Where the bits go", sections.bits(seen, charts)),
        ("training", "The training", sections.training(charts)),
        ("latents", "The scans in latent space", galleries.latents(seen, charts)),
        (
            "samples",
            "Sampled brains",
            galleries.samples(
                report.drawn, report.sample_score, training, slices, f"{report.dataset.shown}"
            ),
        ),
        ("method", "What was measured, and how", _method(report)),
    ]
    contents = [(key, name, content) for key, name, content in every if content]
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in contents)
    frame = Template(files("oasisvq.evaluation").joinpath("report.html").read_text("utf-8"))
    score = seen.score
    return frame.substitute(
        title=text(f"oasisvq: {score.split}, model {score.fingerprint[:8]}"),
        light=_variables(SERIES),
        dark=_variables(DARK_SERIES),
        head=head(seen, report.every, report.comparison) + f"<nav aria-label='Sections'>{links}</nav>",
        body="\n".join(
            f'<section id="{key}"><h2>{name}</h2>\n{content}</section>'
            for key, name, content in contents
        ),
        foot="Pictures of scans are as confidential as the scans: pass this page on as you would them.",
    )


def _variables(colours: Iterable[str]) -> str:
    return " ".join(f"--series-{place}: {colour};" for place, colour in enumerate(colours, start=1))


def _method(report: Report) -> str:
    seen, dataset, codec = report.seen, report.dataset, report.codec
    card = codec.card
    facts = {
        "measured": f"{date.today():%Y-%m-%d} with oasisvq {oasisvq.__version__}",
        "data": f"{dataset.shown}, split {seen.score.split}: {dataset.layout}, "
        f"{dataset.images.value}, {dataset.size}×{dataset.size}, SHA-256 "
        f"{dataset.splits[seen.score.split].sha256[:16]}…",
        "slices": f"{seen.score.slices:,} of {seen.score.subjects:,} subjects"
        + ("" if report.every == 1 else f", one in {report.every} of the split"),
        "model": f"{report.model_given}, {codec.fingerprint.hex()}",
        "design": f"{codec.config.levels} levels of {codec.config.codebook_size} codes, cells of "
        f"{codec.config.stride}×{codec.config.stride} pixels, {codec.config.code_dim} dimensions",
        "training": ", ".join(
            f"{key.replace('_', ' ')} {value}"
            for key, value in card.items()
            if not isinstance(value, dict) and key != "training_data"
        ),
        "not here": "; ".join(_left_out(report)),
    }
    rows = "".join(
        f"<tr><th>{key}</th><td>{text(fact)}</td></tr>" for key, fact in facts.items() if fact
    )
    return (
        f"<table class='facts'>{rows}</table>"
        "<p>Every slice was encoded to a whole <code>.codes</code> file and decoded from it. SSIM is "
        "scikit-image's with gaussian_weights=True, sigma=1.5, use_sample_covariance=False on a range "
        "of 255, after rounding to grey levels; foreground SSIM is the mean of its map where the "
        "original is above 20; PSNR is on a range of 255.</p>"
    )


def _left_out(report: Report) -> list[str]:
    """What the page lacks, and how to get it."""
    said = []
    if report.comparison is None:
        said.append(
            "classic codecs: add --against avif,jpegxl,webp,jpeg2000,jpeg, on every fourth slice with "
            "--every 4"
        )
        if len(report.seen.score.qualities) == 1:
            said.append("other qualities: give -q several times")
    if report.codec.prior is None:
        said.append(
            "samples and the bits of cells: the model has no prior; train --prior-only makes one"
        )
    if not read_metrics(report.model):
        said.append("the training: no metrics.jsonl lies beside the model")
    return said
