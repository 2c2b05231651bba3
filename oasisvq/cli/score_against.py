"""`oasisvq score --against`: other codecs on the same slices, or on the same volume."""

from pathlib import Path
from typing import TYPE_CHECKING

from oasisvq.cli.printing import print_json, print_line, print_lines, progress_bar
from oasisvq.cli.score_tables import comparison_table, volume_table

if TYPE_CHECKING:
    from oasisvq.codec.codec import Codec
    from oasisvq.data.dataset import Dataset
    from oasisvq.scans.source import Source


def score_split_against(
    codec: "Codec",
    dataset: "Dataset",
    split: str,
    peers: list[str],
    every: int,
    reuse: Path | None,
    as_json: bool,
) -> None:
    """Compare a codec with classic ones on an open dataset and print the tables or JSON."""
    from oasisvq.evaluation.baselines import compare, read_comparison

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
    reuse: Path | None,
    as_json: bool,
    max_pixels: int,
) -> None:
    """Compare a codec with video and image coders on one scan and print the tables or JSON."""
    from oasisvq.evaluation.volume_rates import compare_volume

    with progress_bar("comparing") as advance:
        result = compare_volume(codec, source, peers, reuse, advance, max_pixels)
    if as_json:
        print_json(result.as_dict())
        return
    shape = "×".join(map(str, result.shape))
    print_line(
        f"{result.scan}: {shape}, model {result.fingerprint[:8]}; on a range of "
        f"{result.data_range:.6g}, values beyond cut off"
    )
    print_lines(volume_table(result))
