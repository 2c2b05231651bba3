"""How a command ends: messages about failures, and exit codes."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from oasisvq.cli.printing import counted, note, print_json, print_line, warn

if TYPE_CHECKING:
    from oasisvq.bulk import Outcome

INTERRUPTED = 130  # exit code, as shells give it for Ctrl-C


def usage_error(message: str) -> NoReturn:
    """Say what is wrong with the call and exit with 2."""
    warn(f"oasisvq: {message}")
    raise typer.Exit(2)


def finish(outcome: "Outcome", verb: str, output: Path | None, as_json: bool) -> None:
    """Print what a run over many files did; exit with 1 if anything failed."""
    if as_json:
        print_json(outcome.as_dict())
    else:
        print_outcome(outcome, verb, output)
    if outcome.failures:
        raise typer.Exit(1)


def assumed_lines(outcome: "Outcome") -> list[str]:
    """What a run assumed about files without being told."""
    labels, unplaced = outcome.assumed["labels"], outcome.assumed["unplaced"]
    alone = outcome.assumed["alone"]
    lines = []
    if labels:
        scans = counted(outcome.done - labels, "scan")
        lines.append(f"{scans}, {counted(labels, 'label map')}; --kind scan codes them by the model")
    if unplaced:
        lines.append(
            f"{unplaced:,} in Analyze, which does not store the orientation: slices follow the third "
            "axis; --axis chooses another"
        )
    if alone:
        lines.append(
            f"{counted(alone, 'image')} coded one by one, for their names do not show which images are "
            "slices of one subject; names such as case_001_slice_0.png do"
        )
    return lines


def print_outcome(outcome: "Outcome", verb: str, output: Path | None) -> None:
    """Print how many files were done and what was passed over; on stderr, what failed."""
    ratio = f", {outcome.bytes_in:,} -> {outcome.bytes_out:,} bytes" if outcome.done else ""
    kept = outcome.kept
    if kept.scans:
        ratio += (
            f" ({outcome.bytes_in / outcome.bytes_out:.1f} times smaller, "
            f"{8 * outcome.bytes_out / kept.voxels:.4f} bits a voxel)"
        )
        speed = kept.slices / max(outcome.seconds, 1e-3)
        note(f"{counted(kept.slices, 'slice')} in {outcome.seconds:.1f} s, {speed:.1f} a second")
    skipped = f", {outcome.skipped:,} already there" if outcome.skipped else ""
    where = f"{output}: " if output else ""
    print_line(f"{where}{outcome.done:,} {verb}{ratio}{skipped}")
    if kept.words:
        print_line(kept.words)
    if kept.unlike_words:
        note(kept.unlike_words)
    for line in assumed_lines(outcome):
        print_line(line)
    if passed_over := str(outcome.passed_over):
        print_line(passed_over)
    if outcome.failures:
        warn(f"{len(outcome.failures):,} failed:")
        for failure in outcome.failures:
            warn(f"  {failure}")
        if outcome.ended_early:
            warn("nothing more can be written there; when it can, run the same command to continue")
