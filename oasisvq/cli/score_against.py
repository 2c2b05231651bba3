"""`oasisvq score --against`: other codecs on the same slices, or on the same volume."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from oasisvq.cli.printing import counted, print_json, print_line, print_lines, progress_bar
from oasisvq.cli.score_tables import bound_table, comparison_table, volume_table

if TYPE_CHECKING:
    from oasisvq.codec.codec import Codec
    from oasisvq.data.dataset import Dataset
    from oasisvq.evaluation.bound_scores import BoundComparison
    from oasisvq.scans.source import Source


class Bounded(NamedTuple):
    """A comparison of files within bounds.

    Attributes:
        bounds: as given on the command line.
        levels: of our files; if None, the number that is smallest together with a residue.
    """

    bounds: list[str]
    levels: int | None


def score_split_against(
    codec: "Codec",
    dataset: "Dataset",
    split: str,
    peers: list[str],
    bounded: Bounded | None,
    every: int,
    reuse: Path | None,
    as_json: bool,
) -> None:
    """Compare a codec with others on an open dataset and print the tables or JSON."""
    from oasisvq.evaluation.baselines import compare, read_comparison
    from oasisvq.evaluation.bound_scores import bounds_on_split

    if bounded:
        with progress_bar(f"comparing on {split}") as advance:
            found = bounds_on_split(
                codec, dataset, split, peers, bounded.bounds, every, bounded.levels, advance
            )
        print_bounds(found, as_json)
        return
    known = read_comparison(reuse) if reuse else None
    with progress_bar(f"comparing on {split}") as advance:
        result = compare(codec, dataset, split, peers, every, known, advance)
    if as_json:
        print_json(result.as_dict())
    else:
        print_line(f"{result.split}: {result.slices:,} slices, model {result.fingerprint[:8]}; means")
        print_lines(comparison_table(result))


def score_scan_against(
    codec: "Codec",
    source: "Source",
    peers: list[str],
    bounded: Bounded | None,
    reuse: Path | None,
    as_json: bool,
    max_pixels: int,
) -> None:
    """Compare a codec with others on one scan and print the tables or JSON."""
    from oasisvq.evaluation.bound_scores import bounds_on_scan
    from oasisvq.evaluation.volume_rates import compare_volume

    if bounded:
        with progress_bar("comparing") as advance:
            found = bounds_on_scan(
                codec, source, peers, bounded.bounds, bounded.levels, advance, max_pixels
            )
        print_bounds(found, as_json)
        return
    with progress_bar("comparing") as advance:
        result = compare_volume(codec, source, peers, reuse, advance, max_pixels)
    if as_json:
        print_json(result.as_dict())
        return
    shape = "×".join(map(str, result.shape))
    print_line(
        f"{result.scan}: {shape}, model {result.fingerprint[:8]}; on a range of "
        f"{result.data_range:.6g}, values outside are clipped"
    )
    print_lines(volume_table(result))


def print_bounds(found: "BoundComparison", as_json: bool) -> None:
    """Print the sizes of files within bounds."""
    if as_json:
        print_json(found.as_dict())
        return
    means = f"; means over {counted(found.scans, 'slice')}" if found.scans > 1 else ""
    print_line(
        f"{found.name}: model {found.fingerprint[:8]}; PSNR on a range of {found.data_range:.6g}{means}"
    )
    print_lines(bound_table(found))
