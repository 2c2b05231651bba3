"""`oasisvq verify`: whether .codes files, models and datasets are whole."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oasisvq.cli.chosen import chosen_shard
from oasisvq.cli.options import (
    ExcludeOption,
    IncludeOption,
    JobsOption,
    JsonOption,
    MaxPixelsOption,
    ModelOption,
    QuietOption,
    ShardOption,
)
from oasisvq.cli.printing import note, print_line, progress_bar
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from oasisvq.folders import PassedOver
    from oasisvq.verify import Verdict


def verify(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="Files and folders. In a folder, all .codes files, models and prepared datasets are "
            "checked.",
        ),
    ],
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Also decode the payloads, and compare the arrays of datasets with their checksums.",
        ),
    ] = False,
    model: ModelOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    shard: ShardOption = None,
    jobs: JobsOption = 1,
    max_pixels: MaxPixelsOption = DEFAULT_MAX_PIXELS,
    as_json: JsonOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Check that .codes files, models and datasets are whole.

    Each damaged or missing file gets a line with the reason, and the exit code is 1. A .codes file is
    compared with its checksum, and its model is looked for as `decode` does. Without --deep, no networks
    are run.
    """
    from oasisvq import verify as verification
    from oasisvq.folders import Globs, PassedOver
    from oasisvq.models import ModelFinder

    verifier = verification.Verifier(ModelFinder(model, note), deep, max_pixels)
    with progress_bar("verifying") as advance:
        passed_over, part = PassedOver(), chosen_shard(shard)
        globs = Globs(tuple(include or ()), tuple(exclude or ()))
        verdicts = verification.verify(paths, verifier, part, advance, passed_over, jobs, globs)
        all_whole = (print_verdicts_as_json if as_json else print_verdicts)(verdicts, passed_over)
    if not all_whole:
        raise typer.Exit(1)


def print_verdicts(verdicts: Iterable["Verdict"], passed_over: "PassedOver") -> bool:
    """Print a line for each damaged file as it is found, then the totals; whether all are whole."""
    from oasisvq.verify import State

    totals = dict.fromkeys(State, 0)
    for verdict in verdicts:
        totals[verdict.state] += 1
        if verdict.reason:
            print_line(verdict.reason)
    checked, whole = sum(totals.values()), totals.pop(State.WHOLE)
    others = "".join(f", {count:,} {state.value}" for state, count in totals.items() if count)
    print_line(f"{checked:,} checked: {whole:,} whole{others}")
    if told := str(passed_over):
        print_line(told)
    return not others


def print_verdicts_as_json(verdicts: Iterable["Verdict"], passed_over: "PassedOver") -> bool:
    """Print one JSON object with all verdicts, each as it is found; whether all are whole."""
    from oasisvq.verify import State

    totals = dict.fromkeys((state.name.lower() for state in State), 0)
    before = '{"files": [\n  '
    for verdict in verdicts:
        totals[verdict.state.name.lower()] += 1
        print(before + json.dumps(verdict.as_dict()), end="")
        before = ",\n  "
    checked = sum(totals.values())
    print("\n]" if checked else '{"files": []', end="")
    print(f', "totals": {json.dumps({"checked": checked, **totals})}', end="")
    print(f', "passed_over": {json.dumps(passed_over.as_dict())}}}')
    return checked == totals["whole"]
