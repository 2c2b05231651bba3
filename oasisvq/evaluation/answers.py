"""The head of a report: its questions, each with one answer."""

from oasisvq.evaluation.baselines import Comparison
from oasisvq.evaluation.charts import NAMES
from oasisvq.evaluation.markup import path_text, percent, text
from oasisvq.evaluation.observations import Observations, by_subject, level_usage
from oasisvq.evaluation.score import QualityScore

HEALTHY_SHARE = 0.95  # of the codes of each level have to be in use


def head(seen: Observations, every: int, comparison: Comparison | None) -> str:
    """One sentence on what was measured, namely every `every`-th slice, and then the answers."""
    score, main = seen.score, seen.main_score
    answers = [
        ("How good?", f"SSIM {main.ssim.mean:.4f}", _good(seen, main)),
        ("How small?", f"{main.file_bytes:,.0f} bytes", _small(seen, main)),
        ("Where does it fail?", f"SSIM {main.worst_ssim:.4f}", _fails(seen, main)),
        ("Is the codebook healthy?", *_healthy(seen)),
    ]
    if comparison is not None:
        answers.append(("How does it compare?", *_compares(comparison)))
    which = "" if every == 1 else f" (one in {every})"
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
        f"is the worst slice, {path_text(main.worst_slice)}. Weakest subject: {text(subject)}, mean "
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


def _compares(comparison: Comparison) -> tuple[str, str]:
    rates = {
        NAMES[name]: rate.foreground_ssim
        for name, rate in comparison.bd_rates.items()
        if rate.foreground_ssim is not None
    }
    if not rates:
        return "No common range", "Ours and the classic codecs reach no common foreground SSIM."
    name, hardest = max(rates.items(), key=lambda each: each[1])
    others = ", ".join(f"{other} {percent(rate)}" for other, rate in rates.items() if other != name)
    return (
        f"{percent(hardest)} bytes",
        f"against {name} at equal foreground SSIM (BD-rate), the strongest of those measured"
        + (f"; {others}." if others else "."),
    )
