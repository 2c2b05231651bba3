"""The sections of a report that show pictures: cases, a map of the slices, samples.

A section is empty if there is nothing to show.
"""

import math
import re

import numpy as np
from numpy.typing import NDArray

from oasisvq.evaluation.colours import error_colours
from oasisvq.evaluation.figures import Chart
from oasisvq.evaluation.marks import NOSE, Marks
from oasisvq.evaluation.markup import data_uri, figure, image, path_text, text
from oasisvq.evaluation.observations import THUMBNAIL, Case, Observations
from oasisvq.evaluation.samples import Drawn, SampleScore, Training

ERROR_PART = 0.998  # share of all errors of the cases that lies within the scale
_TRIANGLES = {"top": "▴", "bottom": "▾", "left": "◂", "right": "▸"}


def cases(seen: Observations) -> str:
    """The best, the median and the worst slices, with their errors."""
    errors = [np.abs(case.error) for case in seen.cases]
    limit = max(1.0, math.ceil(float(np.quantile(np.stack(errors), ERROR_PART))))
    scale = np.rint(255 * error_colours()[None].repeat(4, axis=0)).astype(np.uint8)
    legend = (
        f"<div class='scale'><span>−{limit:g}</span>"
        + image(scale, f"Colours of errors from minus {limit:g} to {limit:g} grey levels")
        + f"<span>+{limit:g} grey levels</span></div>"
    )
    nose = " The triangle points to the nose." if any(NOSE in case.marks for case in seen.cases) else ""
    return (
        f"<p>By foreground SSIM at quality {seen.main}; the slices of a kind are of different subjects. "
        "Move the slider from the reconstruction to the original. Below it is the error: blue is too "
        f"dark, red too bright.{nose}</p>{legend}<div class='cases'>"
        + "".join(_case(case, limit) for case in seen.cases)
        + "</div>"
    )


def _case(case: Case, limit: float) -> str:
    name = f"{case.record.subject}, slice {case.record.slice_number}"
    scores = case.scores
    inside = "" if math.isnan(scores.foreground_ssim) else f", foreground {scores.foreground_ssim:.4f}"
    lies = f", {case.marks.says}" if any(case.marks) else ""
    both = (
        "<div class='compare'>"
        + image(case.original, f"Original: {name}{lies}")
        + image(case.restored, f"Reconstruction: {name}, SSIM {scores.ssim:.4f}")
        + "<span>original</span><span>reconstruction</span></div>"
    )
    error = image(_error_picture(case, limit), f"Signed error: {name}")
    return (
        f"<figure class='case'><h3>{case.kind}</h3>"
        + _marked(both, case.marks)
        + "<input type='range' min='0' max='100' value='50' "
        + f'aria-label="Share of the original that is shown, {text(name)}">'
        + _marked(error, case.marks)
        + f"<figcaption>{path_text(case.record.source)}<br>SSIM {scores.ssim:.4f}{inside}, PSNR "
        f"{scores.psnr:.2f}\u00a0dB, {case.codes.file_bytes:,}\u00a0bytes</figcaption></figure>"
    )


def _marked(picture: str, marks: Marks) -> str:
    """A picture with marks at its edges."""
    beside = "".join(
        f"<b class='{edge}' aria-hidden='true'>{_TRIANGLES[edge] if mark == NOSE else mark}</b>"
        for edge, mark in marks.edges().items()
    )
    return f"<div class='marked'>{picture}{beside}</div>"


def _error_picture(case: Case, limit: float) -> NDArray[np.uint8]:
    palette = np.rint(255 * error_colours()).astype(np.uint8)
    steps = len(palette) - 1
    picture: NDArray[np.uint8] = palette[
        np.rint((case.error / limit).clip(-1, 1) * steps / 2 + steps / 2).astype(np.intp)
    ]
    return picture


def latents(seen: Observations, charts: dict[str, Chart]) -> str:
    """The slices in latent space; pointing at one shows it."""
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
    """A scatter chart whose n-th dot has the n-th name as its title."""
    start = svg.index('id="latent-map-latents"')
    dots = iter(enumerate(names))

    def named(found: re.Match[str]) -> str:
        place, name = next(dots)
        return f'<use data-slice="{place}"{found[1]}><title>{text(name)}</title></use>'

    return svg[:start] + re.sub(r"<use((?:\s[^>]*?)?)/>", named, svg[start:], count=len(names))


def samples(
    drawn: list[Drawn] | None, score: SampleScore | None, training: Training, slices: int, data: str
) -> str:
    """Samples from the prior, beside their nearest training slices.

    Args:
        drawn: the samples.
        score: how far they are from the split.
        training: how the training slices of the dataset relate to the model.
        slices: how many training slices there are.
        data: the dataset, as the user named it.
    """
    if not drawn:
        return ""
    if training is not Training.OTHERS and drawn[0].neighbour is None:
        training = Training.NONE
    figures = []
    for number, each in enumerate(drawn, start=1):
        pictures, says = image(each.plane, f"Sample {number}, a brain of nobody"), f"{number}"
        if each.neighbour is not None:
            near = each.neighbour
            pictures += image(near.plane, f"Training slice nearest to sample {number}: {near.source}")
            says += f": SSIM {near.ssim:.4f} with {path_text(near.source)}"
        figures.append(f"<figure class='pair'>{pictures}<figcaption>{says}</figcaption></figure>")
    distance = (
        f"<p>Fréchet distance to the {score.slices:,} slices, in latents averaged over quarters: "
        f"{score.samples:,} samples {score.frechet_samples:.4f}, as many training slices "
        f"{score.frechet_training:.4f}.</p>"
        if score
        else ""
    )
    return (
        f"<p>Drawn from the prior; they belong to nobody. {_searched(training, slices, data)}</p>"
        f"{distance}<div class='pairs'>{''.join(figures)}</div>"
    )


def _searched(training: Training, slices: int, data: str) -> str:
    """Where the neighbours of samples were searched for, and what that tells."""
    name = f"<code>{path_text(data)}</code>"
    where = (
        f"Below each is the nearest of the {slices:,} training slices of {name}, plain or mirrored, by "
        "mean squared difference."
    )
    return {
        Training.ITS_OWN: f"{where} The model was trained on these slices: a copy of one would have an "
        "SSIM near 1 with it.",
        Training.UNKNOWN: f"{where} A copy of one would have an SSIM near 1 with it. The model does not "
        "say on which slices it was trained: if on others, a copy of those would not show here.",
        Training.OTHERS: "Nearest slices were not searched: the model was not trained on those of "
        f"{name}, so no copy would show. <code>oasisvq sample --neighbours</code> searches in the "
        "dataset that you name.",
        Training.NONE: f"Nearest slices were not searched: {name} has no training slices of this size.",
    }[training]
