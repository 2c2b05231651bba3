"""What was measured, as one HTML page that needs no network: `score --report`.

The page's frame, styles and script are in `report.html`. Everything that comes from a file, such as
the name of a scan, passes `text` before it is part of the page.
"""

import base64
import io
import math
import re
from collections.abc import Iterable
from datetime import date
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.data.dataset import Dataset
from oasisvq.evaluation.baselines import PEERS, Comparison
from oasisvq.evaluation.charts import (
    NAMES,
    Chart,
    by_subject,
    draw_cases,
    draw_charts,
    draw_samples,
    read_metrics,
)
from oasisvq.evaluation.colours import SERIES, error_colours
from oasisvq.evaluation.figures import inline_svg, write_figure
from oasisvq.evaluation.observations import THUMBNAIL, Case, Observations, level_usage
from oasisvq.evaluation.samples import Drawn, SampleScore
from oasisvq.evaluation.score import QualityScore, Spread
from oasisvq.files import make_folder, write_atomically
from oasisvq.text import printable

# the series on a dark page: the same hues, lighter
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
HEALTHY_SHARE = 0.95  # of the codes of each level in use
THUMBNAIL_QUALITY = 60
ERROR_PART = 0.998  # of all errors of the cases lie within the scale


class Report(NamedTuple):
    """Everything that a report tells."""

    codec: Codec
    model: Path
    dataset: Dataset
    every: int  # N-th slice
    seen: Observations
    comparison: Comparison | None = None
    drawn: list[Drawn] | None = None
    sample_score: SampleScore | None = None


def write_figures(report: Report, folder: Path) -> int:
    """Every chart and panel as PNG and SVG, for a paper; returns how many.

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
    """The page.

    Raises:
        FileError: it cannot be written.
    """
    write_atomically(path, page(report).encode("utf-8"))


def _charts(report: Report) -> list[Chart]:
    return draw_charts(report.seen, report.comparison, read_metrics(report.model))


def page(report: Report) -> str:
    """The page as text."""
    charts = {chart.name: chart for chart in _charts(report)}
    sections = [
        ("table", "How good, how small", _table(report)),
        ("distribution", "How it is distributed", _distribution(report, charts)),
        ("cases", "Best, median and worst", _cases(report)),
        ("comparison", "Against the classic codecs", _comparison(report, charts)),
        ("codebook", "The codebook", _codebook(report, charts)),
        ("bits", "Where the bits go", _bits(report, charts)),
        ("training", "The training", _training(charts)),
        ("latents", "The scans in latent space", _latents(report, charts)),
        ("samples", "Sampled brains", _samples(report)),
        ("method", "What was measured, and how", _method(report)),
    ]
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    frame = Template(files("oasisvq.evaluation").joinpath("report.html").read_text("utf-8"))
    score = report.seen.score
    return frame.substitute(
        title=text(f"oasisvq: {score.split}, model {score.fingerprint[:8]}"),
        light=_variables(SERIES),
        dark=_variables(DARK_SERIES),
        head=_head(report) + f"<nav aria-label='Sections'>{links}</nav>",
        body="\n".join(
            f'<section id="{key}"><h2>{name}</h2>\n{content}</section>'
            for key, name, content in sections
        ),
        foot="Pictures of scans are as confidential as the scans: pass this page on as you would them.",
    )


def text(name: object) -> str:
    """Anything as text of the page, whatever it holds."""
    return escape(printable(str(name)))


def _variables(colours: Iterable[str]) -> str:
    return " ".join(f"--series-{place}: {colour};" for place, colour in enumerate(colours, start=1))


# --- the answers ----------------------------------------------------------------------------------


def _head(report: Report) -> str:
    seen, score = report.seen, report.seen.score
    main = _main(seen)
    answers = [
        ("How good?", f"SSIM {main.ssim.mean:.4f}", _good(seen, main)),
        ("How small?", f"{main.file_bytes:,.0f} bytes", _small(seen, main)),
        ("Where does it fail?", f"SSIM {main.worst_ssim:.4f}", _fails(seen, main)),
        ("Is the codebook healthy?", *_healthy(seen)),
        ("How does it compare?", *_compares(report)),
    ]
    which = "" if report.every == 1 else f" (one in {report.every})"
    cards = "".join(
        f"<div><h3>{question}</h3><b>{answer}</b><p>{detail}</p></div>"
        for question, answer, detail in answers
    )
    return (
        f"<h1>Brain MRI in {main.file_bytes:,.0f} bytes a slice</h1>"
        f"<p class='soft'>{score.slices:,} slices{which} of {score.subjects:,} subjects of the "
        f"{text(score.split)} split, coded with model <code>{score.fingerprint[:8]}</code> at quality "
        f"{seen.main} of {len(seen.usage)}.</p><div class='answers'>{cards}</div>"
    )


def _main(seen: Observations) -> QualityScore:
    return next(each for each in seen.score.qualities if each.levels == seen.main)


def _good(seen: Observations, main: QualityScore) -> str:
    return (
        f"1 is identical, an all-black image has {seen.score.black.ssim.mean:.4f}. In the foreground "
        f"{main.foreground_ssim.mean:.4f}; PSNR {main.psnr.mean:.2f} dB."
    )


def _small(seen: Observations, main: QualityScore) -> str:
    raw = seen.score.size**2 / main.file_bytes
    return (
        f"for a slice of {seen.score.size}×{seen.score.size} pixels, whole file: "
        f"{main.bits_per_pixel:.4f} bits a pixel, {main.ratio_to_png:.1f} times smaller than PNG, "
        f"{raw:.0f} times smaller than raw."
    )


def _fails(seen: Observations, main: QualityScore) -> str:
    subject, values = next(iter(by_subject(seen).items()))
    return (
        f"is the worst slice, {text(main.worst_slice)}. Weakest subject: {text(subject)}, mean "
        f"{values.mean():.4f}. See the <a href='#distribution'>map of errors</a> and the "
        "<a href='#cases'>worst cases</a>."
    )


def _healthy(seen: Observations) -> tuple[str, str]:
    levels = [level_usage(counts) for counts in seen.usage]
    size = seen.usage.shape[1]
    fewest = min(each.used for each in levels)
    low, high = min(each.perplexity for each in levels), max(each.perplexity for each in levels)
    healthy = fewest >= HEALTHY_SHARE * size
    short = sum(each.used < HEALTHY_SHARE * size for each in levels)
    answer = "Yes" if healthy else f"Not fully: {short} of {len(levels)} levels"
    detail = (
        f"At least {fewest} of {size} codes are in use on each of {len(levels)} levels"
        + ("" if healthy else f", less than {HEALTHY_SHARE:.0%} on {short}")
        + f". Perplexity {low:.0f} to {high:.0f}."
    )
    if levels[0].indices < 20 * size:
        detail += " With so few slices, unused codes say little."
    return answer, detail


def _compares(report: Report) -> tuple[str, str]:
    if report.comparison is None:
        return "Not measured", "Add <code>--against avif,jpegxl</code> to compare with classic codecs."
    rates = {
        NAMES[name]: rate.foreground_ssim
        for name, rate in report.comparison.bd_rates.items()
        if rate.foreground_ssim is not None
    }
    if not rates:
        return "No common range", "Ours and the classic codecs reach no common foreground SSIM."
    name, hardest = max(rates.items(), key=lambda each: each[1])
    others = ", ".join(f"{other} {_percent(rate)}" for other, rate in rates.items() if other != name)
    return (
        f"{_percent(hardest)} bytes",
        f"against {name} at equal foreground SSIM (BD-rate), the strongest of those measured"
        + (f"; {others}." if others else "."),
    )


def _percent(rate: float, digits: int = 0) -> str:
    return f"{rate:+.{digits}f}\u00a0%".replace("-", "−")  # with a space that does not break


# --- sections -------------------------------------------------------------------------------------


def _figure(chart: Chart, says: str = "") -> str:
    caption = f"<figcaption>{says}</figcaption>" if says else ""
    return f"<figure>{inline_svg(chart.figure, chart.name, printable(chart.says))}{caption}</figure>"


def _row(cells: Iterable[str], tag: str = "td", kind: str = "") -> str:
    return f"<tr{kind}>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _rows(head: Iterable[str], rows: Iterable[str]) -> str:
    return f"<div class='scroll'><table>{_row(head, 'th')}{''.join(rows)}</table></div>"


def _spread(spread: Spread) -> str:
    return f"{spread.mean:.4f} ± {spread.deviation:.4f}"


def _table(report: Report) -> str:
    score = report.seen.score
    labels = list(score.qualities[0].dice)
    head = [
        "quality",
        "bytes",
        "bits/pixel",
        "vs PNG",
        "SSIM",
        "foreground SSIM",
        "PSNR (dB)",
        "worst SSIM",
    ]
    rows = [
        _row(
            (
                f"{each.levels}",
                f"{each.file_bytes:,.0f}",
                f"{each.bits_per_pixel:.4f}",
                f"{each.ratio_to_png:.1f}×",
                _spread(each.ssim),
                _spread(each.foreground_ssim),
                f"{each.psnr.mean:.2f}",
                f"{each.worst_ssim:.4f}",
                *(f"{value:.4f}" for value in each.dice.values()),
            ),
            kind=" class='main'" if each.levels == report.seen.main else "",
        )
        for each in score.qualities
    ]
    black = score.black
    rows.append(
        _row(
            (
                "all black",
                *["–"] * 3,
                _spread(black.ssim),
                _spread(black.foreground_ssim),
                f"{black.psnr.mean:.2f}",
                f"{black.worst_ssim:.4f}",
                *["–"] * len(labels),
            )
        )
    )
    return (
        "<p>Means over slices, ± the standard deviation between subjects' means; quality is the number "
        "of levels that a file keeps.</p>" + _rows(head, rows)
    )


def _distribution(report: Report, charts: dict[str, Chart]) -> str:
    names = {
        place: f"{subject}: mean SSIM {values.mean():.4f}, {values.min():.4f} to {values.max():.4f}"
        for place, (subject, values) in enumerate(by_subject(report.seen).items())
    }
    subjects = _figure(
        charts["ssim-subjects"], "A dot is a subject; its bar reaches from worst to best slice."
    )
    for place, says in names.items():
        mark = f'<g id="ssim-subjects-subject-{place}">'
        subjects = subjects.replace(mark, f"{mark}<title>{text(says)}</title>")
    return (
        f"<p>At quality {report.seen.main}.</p><div class='charts'>"
        + _figure(charts["ssim-slices"], "Over all slices. Plain SSIM counts the empty ground as well.")
        + subjects
        + _figure(charts["ssim-position"], "By the slice's number, with the range over subjects.")
        + _figure(
            charts["error-map"], "Where in the picture the errors lie; white: outline of the heads."
        )
        + "</div>"
    )


def _comparison(report: Report, charts: dict[str, Chart]) -> str:
    curves = [chart for name, chart in charts.items() if name.startswith("rate-")]
    drawn = f"<div class='charts'>{''.join(map(_figure, curves))}</div>" if curves else ""
    comparison = report.comparison
    if comparison is None:
        return (
            drawn + "<p class='note'>No classic codec was measured; add for example <code>--against "
            "avif,jpegxl,webp,jpeg2000,jpeg</code>, and <code>--every 4</code> to do so on every "
            "fourth slice.</p>"
        )
    which = "" if comparison.every == 1 else f", one in {comparison.every} of the split"
    rows = [
        _row(
            (
                f"{NAMES[name]} ({PEERS[name].says})",
                *("no common range" if value is None else _percent(value, 1) for value in rate),
            )
        )
        for name, rate in comparison.bd_rates.items()
    ]
    return (
        f"<p>Whole files of {comparison.slices:,} slices{which}. A BD-rate is the mean difference of "
        "bytes at equal quality: below zero, ours are smaller.</p>"
        + drawn
        + _rows(("BD-rate against", "by SSIM", "by foreground SSIM", "by PSNR"), rows)
    )


def _codebook(report: Report, charts: dict[str, Chart]) -> str:
    size = report.seen.usage.shape[1]
    rows = [
        _row(
            (
                str(level),
                f"{each.used} of {size}",
                f"{each.perplexity:.1f}",
                f"{math.log2(max(1.0, each.perplexity)):.2f}",
                f"{100 * counts.max() / max(1, each.indices):.1f} %",
            )
        )
        for level, counts in enumerate(report.seen.usage, start=1)
        for each in [level_usage(counts)]
    ]
    return (
        "<p>How often each code is the nearest one, over the model's field of view of all slices. "
        "Perplexity is how many equally frequent codes would be as hard to guess; a code that never "
        "comes is dead weight.</p><div class='charts'>"
        + _figure(charts["codebook-usage"])
        + _figure(charts["codebook-ranks"], "The most frequent codes are those of the empty ground.")
        + "</div>"
        + _rows(("level", "codes in use", "perplexity", "bits (log₂)", "most frequent code"), rows)
    )


def _bits(report: Report, charts: dict[str, Chart]) -> str:
    seen = report.seen
    if seen.bits is None:
        return (
            "<p>This model has no prior: every index takes the same number of bits. <code>oasisvq train "
            "data/ --prior-only --model ...</code> gives it one.</p>"
        )
    levels = [float(each.sum()) / 8 for each in seen.bits]
    header = _main(seen).file_bytes - sum(levels)
    parts = ", ".join(f"level {level} {size:,.0f}" for level, size in enumerate(levels, start=1))
    return (
        f"<p>What the prior's frequencies make of each cell of {seen.stride}×{seen.stride} pixels, over "
        f"all levels of quality {seen.main}. Of a mean file, in bytes: {parts}, header {header:,.0f}. "
        "Grey cells are never coded.</p><div class='charts'>"
        + _figure(
            charts["bits"],
            "Cells are coded in passes; later ones know their neighbours, hence the fine pattern.",
        )
        + "</div>"
    )


def _training(charts: dict[str, Chart]) -> str:
    curves = [chart for name, chart in charts.items() if name.startswith("training-")]
    if not curves:
        return "<p class='note'>No metrics.jsonl lies beside the model.</p>"
    return f"<div class='charts'>{''.join(map(_figure, curves))}</div>"


def _method(report: Report) -> str:
    seen, dataset, codec = report.seen, report.dataset, report.codec
    card = codec.card
    facts = {
        "measured": f"{date.today():%Y-%m-%d} with oasisvq {oasisvq.__version__}",
        "data": f"{dataset.folder}, split {seen.score.split}: {dataset.layout}, {dataset.images.value}, "
        f"{dataset.size}×{dataset.size}, SHA-256 {dataset.splits[seen.score.split].sha256[:16]}…",
        "slices": f"{seen.score.slices:,} of {seen.score.subjects:,} subjects"
        + ("" if report.every == 1 else f", one in {report.every} of the split"),
        "model": f"{report.model}, {codec.fingerprint.hex()}"
        + ("" if codec.prior else ", without a prior"),
        "design": f"{codec.config.levels} levels of {codec.config.codebook_size} codes, cells of "
        f"{codec.config.stride}×{codec.config.stride} pixels, {codec.config.code_dim} dimensions",
        "trained on": ", ".join(
            f"{key.replace('_', ' ')} {value}"
            for key, value in card.items()
            if not isinstance(value, dict)
        ),
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


# --- pictures -------------------------------------------------------------------------------------


def _data_uri(picture: NDArray[np.uint8], image_format: str = "PNG") -> str:
    content = io.BytesIO()
    image = Image.fromarray(picture)
    if image_format == "PNG":
        image.save(content, "PNG", optimize=True)
    else:
        image.save(content, image_format, quality=THUMBNAIL_QUALITY, optimize=True)
    return f"data:image/{image_format.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def _image(picture: NDArray[np.uint8], says: str) -> str:
    height, width = picture.shape[:2]
    return f'<img src="{_data_uri(picture)}" width="{width}" height="{height}" alt="{text(says)}">'


def _error_picture(case: Case, limit: float) -> NDArray[np.uint8]:
    error = case.restored.astype(np.float64) - case.original
    palette = np.rint(255 * error_colours()).astype(np.uint8)
    steps = len(palette) - 1
    picture: NDArray[np.uint8] = palette[
        np.rint((error / limit).clip(-1, 1) * steps / 2 + steps / 2).astype(np.intp)
    ]
    return picture


def _cases(report: Report) -> str:
    cases = report.seen.cases
    errors = [np.abs(case.restored.astype(np.float64) - case.original) for case in cases]
    limit = max(1.0, math.ceil(float(np.quantile(np.stack(errors), ERROR_PART))))
    scale = np.rint(255 * error_colours()[None].repeat(4, axis=0)).astype(np.uint8)
    legend = (
        f"<div class='scale'><span>−{limit:g}, too dark</span>"
        + _image(scale, f"Colours of errors from minus {limit:g} to {limit:g} grey levels")
        + f"<span>+{limit:g} grey levels, too bright</span></div>"
    )
    return (
        f"<p>By foreground SSIM at quality {report.seen.main}, each of another subject. Move the slider "
        "from the reconstruction to the original; below it the signed error, reconstruction − "
        f"original.</p>{legend}<div class='cases' style='margin-top:14px'>"
        + "".join(_case(case, limit) for case in cases)
        + "</div>"
    )


def _case(case: Case, limit: float) -> str:
    name = f"{case.record.subject}, slice {case.record.slice_number}"
    scores = case.scores
    inside = "" if math.isnan(scores.foreground_ssim) else f", foreground {scores.foreground_ssim:.4f}"
    return (
        f"<figure class='case'><h3>{case.kind}</h3><div class='compare'>"
        + _image(case.original, f"Original: {name}")
        + _image(case.restored, f"Reconstruction: {name}, SSIM {scores.ssim:.4f}")
        + "<span>original</span><span>reconstruction</span></div>"
        + "<input type='range' min='0' max='100' value='50' "
        + f'aria-label="Share of the original that is shown, {text(name)}">'
        + _image(_error_picture(case, limit), f"Signed error: {name}")
        + f"<figcaption>{text(case.record.source)}<br>SSIM {scores.ssim:.4f}{inside}, PSNR "
        f"{scores.psnr:.2f} dB, {case.codes.file_bytes:,} bytes</figcaption></figure>"
    )


def _latents(report: Report, charts: dict[str, Chart]) -> str:
    seen = report.seen
    rows = seen.rows[seen.main]
    names = [
        f"{record.subject}, slice {record.slice_number}: SSIM {ssim:.4f}, {size:,.0f} bytes"
        for record, ssim, size in zip(seen.records, rows.ssim, rows.file_bytes, strict=True)
    ]
    columns = math.ceil(math.sqrt(len(names)))
    down = math.ceil(len(names) / columns)
    sheet = np.zeros((down * THUMBNAIL, columns * THUMBNAIL), np.uint8)
    for place, thumbnail in enumerate(seen.thumbnails):
        top, left = place // columns * THUMBNAIL, place % columns * THUMBNAIL
        sheet[top : top + THUMBNAIL, left : left + THUMBNAIL] = thumbnail
    svg = _with_names(_figure(charts["latent-map"]), names)
    return (
        "<p>Each dot is a slice: its latents averaged over nine parts of the picture, and of those the "
        "two strongest principal components. Point at a dot, or touch it, to see the slice.</p>"
        f"<div class='map'>{svg}<div><div id='thumb' role='img' data-columns='{columns}' "
        f"data-rows='{down}' aria-label=\"{text(names[0])}\" "
        f"style=\"background-image:url('{_data_uri(sheet, 'JPEG')}')\"></div>"
        f"<p id='thumb-says' aria-live='polite'>{text(names[0])}</p></div></div>"
    )


def _with_names(svg: str, names: list[str]) -> str:
    """A scatter chart whose n-th dot says the n-th name."""
    start = svg.index('id="latent-map-latents"')
    dots = iter(enumerate(names))

    def named(found: re.Match[str]) -> str:
        place, name = next(dots)
        return f'<use data-slice="{place}"{found[1]}><title>{text(name)}</title></use>'

    return svg[:start] + re.sub(r"<use((?:\s[^>]*?)?)/>", named, svg[start:], count=len(names))


def _samples(report: Report) -> str:
    if not report.drawn:
        return "<p class='note'>This model has no prior to draw from.</p>"
    figures = []
    for number, each in enumerate(report.drawn, start=1):
        pictures, says = _image(each.plane, f"Sample {number}, a brain of nobody"), f"sample {number}"
        if each.neighbour is not None:
            near = each.neighbour
            pictures += _image(near.plane, f"Training slice nearest to sample {number}: {near.source}")
            says += f"; below, the nearest training slice: SSIM {near.ssim:.4f}, {text(near.source)}"
        figures.append(f"<figure class='pair'>{pictures}<figcaption>{says}</figcaption></figure>")
    score = report.sample_score
    distance = (
        f"<p>Fréchet distance to the {score.slices:,} slices, in latents averaged over quarters: "
        f"{score.samples:,} samples {score.frechet_samples:.4f}, as many training slices "
        f"{score.frechet_training:.4f}.</p>"
        if score
        else ""
    )
    return (
        "<p>Drawn from the prior; they belong to nobody. A copy of a training slice would have an SSIM "
        f"near 1 with it.</p>{distance}<div class='pairs'>{''.join(figures)}</div>"
    )
