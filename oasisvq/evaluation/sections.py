"""The sections of a report with numbers and charts; a section is empty if there is nothing to show."""

import math

from oasisvq.evaluation.baselines import Comparison, in_words
from oasisvq.evaluation.charts import NAMES
from oasisvq.evaluation.figures import Chart
from oasisvq.evaluation.markup import figure, percent, table, text
from oasisvq.evaluation.observations import Observations, by_subject, level_usage


def qualities(seen: Observations) -> str:
    """A row for each quality, and one for an all-black image."""
    score = seen.score
    labels = list(score.qualities[0].dice)
    head = (
        "quality",
        "bytes",
        "bits/pixel",
        "vs PNG",
        "SSIM",
        "foreground SSIM",
        "PSNR (dB)",
        "worst SSIM",
        *(f"Dice, label {label}" for label in labels),
    )
    rows = [
        (
            f"{each.levels}",
            f"{each.file_bytes:,.0f}",
            f"{each.bits_per_pixel:.4f}",
            f"{each.ratio_to_png:.1f}×",
            each.ssim.words,
            each.foreground_ssim.words,
            f"{each.psnr.mean:.2f}",
            f"{each.worst_ssim:.4f}",
            *(f"{value:.4f}" for value in each.dice.values()),
        )
        for each in score.qualities
    ]
    black = score.black
    rows.append(
        (
            "all black",
            *["–"] * 3,
            black.ssim.words,
            black.foreground_ssim.words,
            f"{black.psnr.mean:.2f}",
            f"{black.worst_ssim:.4f}",
            *["–"] * len(labels),
        )
    )
    main = score.qualities.index(seen.main_score)
    return (
        "<p>Means over slices, ± the standard deviation between subjects' means. Quality is the number "
        "of levels that a file keeps; the pictures and charts below are of the bold one.</p>"
        + table(head, rows, main, wide=True)
    )


def distribution(seen: Observations, charts: dict[str, Chart]) -> str:
    """Quality over slices, subjects, positions in the head and positions in the picture."""
    names = {
        place: f"{subject}: mean SSIM {values.mean():.4f}, {values.min():.4f} to {values.max():.4f}"
        for place, (subject, values) in enumerate(by_subject(seen).items())
    }
    subjects = figure(
        charts["ssim-subjects"], "A dot is a subject; its bar reaches from worst to best slice."
    )
    for place, says in names.items():
        mark = f'<g id="ssim-subjects-subject-{place}">'
        subjects = subjects.replace(mark, f"{mark}<title>{text(says)}</title>")
    return (
        f"<p>All at quality {seen.main}.</p><div class='charts'>"
        + figure(charts["ssim-slices"], "Over all slices. Plain SSIM counts the empty ground as well.")
        + subjects
        + figure(charts["ssim-position"], "By the slice's number, with the range over subjects.")
        + figure(
            charts["error-map"], "Where in the picture the errors lie. White: outline of the heads."
        )
        + "</div>"
    )


def comparison(measured: Comparison | None, charts: dict[str, Chart]) -> str:
    """Curves of quality over bytes, and BD-rates if classic codecs were measured."""
    curves = [chart for name, chart in charts.items() if name.startswith("rate-")]
    if not curves:
        return ""
    numbers = "<p>The number at a dot of ours is its quality.</p>"
    drawn = f"<div class='charts'>{''.join(map(figure, curves))}</div>"
    if measured is None:
        return numbers + drawn
    which = "" if measured.every == 1 else f", one in {measured.every} of the split"
    rows = [
        (
            f"{NAMES[name]} ({in_words(name)})",
            *("no common range" if value is None else percent(value, 1) for value in rate),
        )
        for name, rate in measured.bd_rates.items()
    ]
    return (
        f"<p>Whole files of {measured.slices:,} slices{which}. A BD-rate is the mean difference of "
        "bytes at equal quality: below zero, ours are smaller.</p>"
        + numbers
        + drawn
        + table(("BD-rate against", "by SSIM", "by foreground SSIM", "by PSNR"), rows)
    )


def codebook(seen: Observations, charts: dict[str, Chart]) -> str:
    """How the codes of each level are used."""
    size = seen.usage.shape[1]
    rows = [
        (
            str(level),
            f"{each.used} of {size}",
            f"{each.perplexity:.1f}",
            f"{math.log2(max(1.0, each.perplexity)):.2f}",
            f"{100 * counts.max() / max(1, each.indices):.1f}\u00a0%",
        )
        for level, counts in enumerate(seen.usage, start=1)
        for each in [level_usage(counts)]
    ]
    return (
        "<p>How often each code is the nearest one, over the model's field of view of all slices. "
        "Perplexity is how many equally frequent codes would be as hard to guess; a code that never "
        "comes is dead weight.</p><div class='charts'>"
        + figure(charts["codebook-usage"])
        + figure(
            charts["codebook-ranks"],
            "Dashed: all codes alike. The most frequent codes are those of the empty ground.",
        )
        + "</div>"
        + table(("level", "codes in use", "perplexity", "bits (log₂)", "most frequent code"), rows)
    )


def bits(seen: Observations, charts: dict[str, Chart]) -> str:
    """What each cell costs by the prior."""
    if seen.bits is None:
        return ""
    levels = [float(each.sum()) / 8 for each in seen.bits]
    header = seen.main_score.file_bytes - sum(levels)
    parts = ", ".join(f"{size:,.0f} for level {level}" for level, size in enumerate(levels, start=1))
    return (
        f"<p>What the prior's frequencies make of each cell of {seen.stride}×{seen.stride} pixels, over "
        f"all levels of quality {seen.main}. Of a mean file, in bytes: {parts}, {header:,.0f} for "
        "the header. Grey cells are never coded.</p><div class='charts'>"
        + figure(
            charts["bits"],
            "Cells are coded in passes; later ones know their neighbours, hence the fine pattern.",
        )
        + "</div>"
    )


def training(charts: dict[str, Chart]) -> str:
    """The curves of the run that made the model."""
    curves = [chart for name, chart in charts.items() if name.startswith("training-")]
    return f"<div class='charts'>{''.join(map(figure, curves))}</div>" if curves else ""
