"""The sections of a report that show pictures: cases, a map of the slices, samples."""

import math
import re

import numpy as np
from numpy.typing import NDArray

from oasisvq.evaluation.colours import error_colours
from oasisvq.evaluation.figures import Chart
from oasisvq.evaluation.markup import data_uri, figure, image, text
from oasisvq.evaluation.observations import THUMBNAIL, Case, Observations
from oasisvq.evaluation.samples import Drawn, SampleScore

ERROR_PART = 0.998  # of all errors of the cases lie within the scale


def cases(seen: Observations) -> str:
    """The best, the median and the worst slices, with their errors."""
    errors = [np.abs(case.error) for case in seen.cases]
    limit = max(1.0, math.ceil(float(np.quantile(np.stack(errors), ERROR_PART))))
    scale = np.rint(255 * error_colours()[None].repeat(4, axis=0)).astype(np.uint8)
    legend = (
        f"<div class='scale'><span>−{limit:g}, too dark</span>"
        + image(scale, f"Colours of errors from minus {limit:g} to {limit:g} grey levels")
        + f"<span>+{limit:g} grey levels, too bright</span></div>"
    )
    return (
        f"<p>By foreground SSIM at quality {seen.main}, each of another subject. Move the slider "
        "from the reconstruction to the original; below it the signed error, reconstruction − "
        f"original.</p>{legend}<div class='cases' style='margin-top:14px'>"
        + "".join(_case(case, limit) for case in seen.cases)
        + "</div>"
    )


def _case(case: Case, limit: float) -> str:
    name = f"{case.record.subject}, slice {case.record.slice_number}"
    scores = case.scores
    inside = "" if math.isnan(scores.foreground_ssim) else f", foreground {scores.foreground_ssim:.4f}"
    return (
        f"<figure class='case'><h3>{case.kind}</h3><div class='compare'>"
        + image(case.original, f"Original: {name}")
        + image(case.restored, f"Reconstruction: {name}, SSIM {scores.ssim:.4f}")
        + "<span>original</span><span>reconstruction</span></div>"
        + "<input type='range' min='0' max='100' value='50' "
        + f'aria-label="Share of the original that is shown, {text(name)}">'
        + image(_error_picture(case, limit), f"Signed error: {name}")
        + f"<figcaption>{text(case.record.source)}<br>SSIM {scores.ssim:.4f}{inside}, PSNR "
        f"{scores.psnr:.2f} dB, {case.codes.file_bytes:,} bytes</figcaption></figure>"
    )


def _error_picture(case: Case, limit: float) -> NDArray[np.uint8]:
    palette = np.rint(255 * error_colours()).astype(np.uint8)
    steps = len(palette) - 1
    picture: NDArray[np.uint8] = palette[
        np.rint((case.error / limit).clip(-1, 1) * steps / 2 + steps / 2).astype(np.intp)
    ]
    return picture


def latents(seen: Observations, charts: dict[str, Chart]) -> str:
    """The slices in latent space, each shown when it is pointed at."""
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
    svg = _with_names(figure(charts["latent-map"]), names)
    return (
        "<p>Each dot is a slice: its latents averaged over nine parts of the picture, and of those the "
        "two strongest principal components. Point at a dot, or touch it, to see the slice.</p>"
        f"<div class='map'>{svg}<div><div id='thumb' role='img' data-columns='{columns}' "
        f"data-rows='{down}' aria-label=\"{text(names[0])}\" "
        f"style=\"background-image:url('{data_uri(sheet, 'JPEG')}')\"></div>"
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


def samples(drawn: list[Drawn] | None, score: SampleScore | None) -> str:
    """What the prior draws, beside the training slices nearest to it."""
    if not drawn:
        return "<p class='note'>This model has no prior to draw from.</p>"
    figures = []
    for number, each in enumerate(drawn, start=1):
        pictures, says = image(each.plane, f"Sample {number}, a brain of nobody"), f"sample {number}"
        if each.neighbour is not None:
            near = each.neighbour
            pictures += image(near.plane, f"Training slice nearest to sample {number}: {near.source}")
            says += f"; below, the nearest training slice: SSIM {near.ssim:.4f}, {text(near.source)}"
        figures.append(f"<figure class='pair'>{pictures}<figcaption>{says}</figcaption></figure>")
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
