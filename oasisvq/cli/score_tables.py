"""Scores as lines of text: what `score` prints without --json."""

from typing import TYPE_CHECKING

from oasisvq.cli.printing import counted, dice_line

if TYPE_CHECKING:
    from oasisvq.evaluation.baselines import Comparison
    from oasisvq.evaluation.bound_scores import BoundComparison
    from oasisvq.evaluation.samples import SampleScore
    from oasisvq.evaluation.scan_score import ScanScore
    from oasisvq.evaluation.score import QualityScore, SplitScore
    from oasisvq.evaluation.volume_rates import VolumeComparison


def split_table(result: "SplitScore") -> list[str]:
    """Scores of a split."""
    head = "quality    bytes  bits/px  vs PNG  SSIM             foreground SSIM  PSNR dB"
    lines = [
        f"{result.split}: {result.slices:,} slices of {counted(result.subjects, 'subject')}, "
        f"{result.size}×{result.size}, model {result.fingerprint[:8]}; mean ± deviation of subjects",
        head,
    ]
    lines += [_score_line(str(each.levels), each) for each in result.qualities]
    lines.append(_score_line("black", result.black))
    for each in result.qualities:
        lines.append(f"worst at quality {each.levels}: {each.worst_slice}, SSIM {each.worst_ssim:.4f}")
        if each.dice:
            dice = ", ".join(f"label {label} {value:.4f}" for label, value in each.dice.items())
            lines.append(f"Dice at quality {each.levels}: {dice}")
    return lines


def _score_line(name: str, row: "QualityScore") -> str:
    size = (
        f"{row.file_bytes:8,.0f} {row.bits_per_pixel:8.4f} {row.ratio_to_png:6.1f}×"
        if row.levels
        else f"{'-':>8} {'-':>8} {'-':>7}"
    )
    spreads = "  ".join(f"{spread.words:<15}" for spread in (row.ssim, row.foreground_ssim))
    return f"{name:>7} {size}  {spreads}  {row.psnr.mean:.2f}"


def scan_table(scores: "list[ScanScore]") -> list[str]:
    """Scores of one image or volume."""
    from oasisvq.codec.measure import RANGE_QUANTILE

    head = "quality       bytes  bits/voxel  SSIM    foreground SSIM  PSNR dB  largest error"
    lines = [f"{head}  worst SSIM (slice)"]
    for each in scores:
        name, found = str(each.levels) if each.levels else "exact", each.measure
        lines.append(
            f"{name:>7} {each.file_bytes:11,}  {each.bits_per_voxel:10.4f}  {found.ssim:.4f}  "
            f"{found.foreground_ssim:15.4f}  {found.psnr:7.2f}  {found.largest_error:13g}  "
            f"{found.worst_ssim:.4f} ({found.worst_slice})"
        )
        if each.dice:
            lines.append(dice_line(each.dice))
    lines.append(
        f"SSIM and PSNR of stored values, on a range of {scores[0].measure.data_range:g} (255 for 8-bit "
        f"images, else from the darkest value to the {RANGE_QUANTILE:.1%} quantile)"
    )
    return lines


def comparison_table(result: "Comparison") -> list[str]:
    """A comparison: a table for each codec, then the BD-rates."""
    from oasisvq.evaluation.baselines import in_words

    lines = []
    for name, points in result.curves.items():
        says = f" ({in_words(name)})" if name != "oasisvq" else ""
        lines.append(f"{name}{says}")
        lines.append(
            "  setting        bytes    SSIM  foreground  PSNR dB  worst SSIM  encode s  decode s"
        )
        lines += [
            f"  {point.setting:<12} {point.file_bytes:7,.0f}  {point.ssim:.4f}      "
            f"{point.foreground_ssim:.4f}    {point.psnr:5.2f}      {point.worst_ssim:.4f}    "
            f"{point.encode_seconds:.4f}    {point.decode_seconds:.4f}"
            for point in points
        ]
    return lines + [_rates_line(name, rate._asdict()) for name, rate in result.bd_rates.items()]


def _rates_line(name: str, rates: dict[str, float | None]) -> str:
    shown = ", ".join(
        f"{measure.replace('_', ' ')} " + ("no common range" if value is None else f"{value:+.1f} %")
        for measure, value in rates.items()
    )
    return f"BD-rate against {name}: {shown}"


def volume_table(result: "VolumeComparison") -> list[str]:
    """A comparison on one volume: a table for each coder, then the BD-rates."""
    from oasisvq.evaluation.volume_rates import PEERS

    lines = []
    for name, points in result.curves.items():
        says = f" ({PEERS[name].says})" if name in PEERS else ""
        lines.append(f"{name}{says}")
        lines.append(
            "  setting          bytes    SSIM  foreground  PSNR dB  foreground  encode s  decode s"
        )
        lines += [
            f"  {point.setting:<12} {point.file_bytes:9,.0f}  {point.ssim:.4f}      "
            f"{point.foreground_ssim:.4f}    {point.psnr:5.2f}       {point.foreground_psnr:5.2f}   "
            f"{point.encode_seconds:7.2f}   {point.decode_seconds:7.2f}"
            for point in points
        ]
    return lines + [_rates_line(name, rates) for name, rates in result.bd_rates.items()]


def bound_table(result: "BoundComparison") -> list[str]:
    """Files within bounds: a line for each codec at each bound, then why a codec is missing."""
    from oasisvq.evaluation.bounded import PEERS

    lines = ["  bound  codec            bytes  ours is  PSNR dB   largest error  encode s  decode s"]
    for point in result.points:
        ratio = result.ratios.get(f"{point.bound:g}", {}).get(point.codec)
        psnr = "lossless" if point.largest_error == 0 else f"{point.psnr:.2f}"
        lines.append(
            f"{point.bound:7g}  {point.codec:<8} {point.file_bytes:13,.0f}  "
            f"{'' if ratio is None else f'{ratio:.3f}':>7}  {psnr:<8} {point.largest_error:14g}  "
            f"{point.encode_seconds:8.2f}  {point.decode_seconds:8.2f}"
        )
    named = dict.fromkeys(point.codec for point in result.points if point.codec in PEERS)
    lines += [f"{name}: {PEERS[name].says}" for name in named]
    return lines + [
        f"bound {bound}: no {name}, which {reason}"
        for bound, each in result.left_out.items()
        for name, reason in each.items()
    ]


def distance_line(result: "SampleScore", split: str) -> str:
    """The distance of samples from a split."""
    training = result.frechet_training
    ratio = f", ratio {result.frechet_samples / training:.2f}" if training else ""
    return (
        f"Fréchet distance to {result.slices:,} slices of {split}, in latents averaged over quarters: "
        f"{result.samples:,} samples {result.frechet_samples:.4f}, as many training slices "
        f"{training:.4f}{ratio}"
    )
