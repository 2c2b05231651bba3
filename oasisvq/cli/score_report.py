"""The report that `score --report` and `--figures` write: all results of a split on one page."""

from pathlib import Path
from typing import TYPE_CHECKING

from oasisvq.cli.printing import counted, note, print_json, print_line, print_lines, progress_bar
from oasisvq.cli.score_tables import comparison_table, distance_line, split_table

if TYPE_CHECKING:
    from oasisvq.codec.codec import Codec
    from oasisvq.data.dataset import Dataset
    from oasisvq.evaluation.report import Report


def refuse_to_replace(report: Path | None, figures: Path | None, force: bool) -> None:
    """Before anything is measured, raise if a report or its figures could not be written."""
    from oasisvq.errors import FileError
    from oasisvq.files import require_output

    if report:
        require_output(report, force)
    if figures and not force and figures.exists() and (figures.is_file() or any(figures.iterdir())):
        raise FileError(f"{figures}: exists and is not empty; pass -f to write into it")


def measure_report(
    codec: "Codec",
    model: Path | None,
    dataset: "Dataset",
    split: str,
    qualities: list[int],
    every: int,
    peers: list[str],
    reuse: Path | None,
    sample_count: int | None,
) -> "Report":
    """Measure everything that a report shows, each part with its own progress."""
    from oasisvq.evaluation.baselines import compare, read_comparison, require_peers
    from oasisvq.evaluation.observations import observe
    from oasisvq.evaluation.report import SAMPLES, Report
    from oasisvq.evaluation.samples import Request, draw_beside, require_comparable, score_samples
    from oasisvq.models import choose_model

    known = read_comparison(reuse) if reuse else None
    require_peers(name for name in peers if known is None or name not in known.curves)
    if sample_count is not None:
        require_comparable(dataset, split, sample_count)
    comparison = sample_score = drawn = None
    if codec.prior is not None or sample_count is not None:  # first, for it may be refused
        with progress_bar("drawing") as advance:
            drawn = draw_beside(codec, Request(SAMPLES), dataset, advance)
    with progress_bar(f"scoring {split}") as advance:
        seen = observe(codec, dataset, split, qualities, every, advance)
    if peers:
        with progress_bar("comparing") as advance:
            comparison = compare(codec, dataset, split, peers, every, known, advance)
    if sample_count is not None:
        with progress_bar("drawing") as advance:
            sample_score = score_samples(codec, dataset, split, sample_count, advance=advance)
    choice = choose_model(model, Path.cwd())
    named = str(model) if model else choice.reason
    return Report(codec, choice.path, named, dataset, every, seen, comparison, drawn, sample_score)


def print_report(report: "Report", page: Path | None, figures: Path | None, as_json: bool) -> None:
    """Write a report and its figures, and print its scores."""
    from oasisvq.evaluation.report import write_figures, write_report

    score, comparison, samples = report.seen.score, report.comparison, report.sample_score
    if as_json:
        more = {"comparison": comparison.as_dict()} if comparison else {}
        print_json(score.as_dict() | more | ({"samples": samples._asdict()} if samples else {}))
    else:
        print_lines(split_table(score))
        if comparison:
            print_lines(comparison_table(comparison))
        if samples:
            print_line(distance_line(samples, score.split))
    if page:
        write_report(report, page)
        note(f"{page}: {page.stat().st_size:,} bytes; it contains pictures of scans")
    if figures:
        note(f"{figures}: {counted(write_figures(report, figures), 'figure')}, each as PNG and SVG")
