"""`oasisvq encode --dry-run`: what `encode` would do, with sizes; writes nothing, keeps no model."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from oasisvq.cli.chosen import load_codec
from oasisvq.cli.printing import print_json, print_line, print_lines

if TYPE_CHECKING:
    from oasisvq.codec.wish import Wish
    from oasisvq.dry_run import Plan
    from oasisvq.folders import Shard
    from oasisvq.scans.source import Source
    from oasisvq.stacks import Taken


def plan_one(
    source: "Source",
    codes: Path,
    wish: "Wish",
    model: Path | None,
    max_pixels: int,
    as_json: bool,
) -> None:
    """Print what `encode` would do with one scan."""
    from oasisvq.dry_run import Plan, estimated
    from oasisvq.encoding import Found

    files = estimated(load_codec(model), [Found(source, codes)], wish, max_pixels)
    _finish(Plan(files), as_json)


def plan_many(
    inputs: list[Path],
    output: Path | None,
    wish: "Wish",
    force: bool,
    shard: "Shard",
    model: Path | None,
    max_pixels: int,
    volume: int | None,
    taken: "Taken",
    as_json: bool,
) -> None:
    """Print what a run over many files would do."""
    from oasisvq.dry_run import plan_many as plan

    codec = load_codec(model)
    _finish(plan(codec, inputs, output, wish, force, shard, max_pixels, volume, taken), as_json)


def _finish(plan: "Plan", as_json: bool) -> None:
    if as_json:
        print_json(plan.as_dict())
    else:
        print_lines(each.words for each in plan.files)
        print_line(plan.words)
        if passed_over := str(plan.outcome.passed_over):
            print_line(passed_over)
    if plan.count("fails"):
        raise typer.Exit(1)
