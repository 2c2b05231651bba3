"""`oasisvq info`: what a file or folder of ours is."""

import json
from pathlib import Path
from typing import Annotated

import typer

from oasisvq.cli.options import JsonOption
from oasisvq.cli.printing import print_json, print_line


def info(
    path: Annotated[Path, typer.Argument(help="A .codes file, a model or run folder, or a dataset.")],
    as_json: JsonOption = False,
) -> None:
    """Say what a .codes file, a model or a prepared dataset is."""
    from oasisvq import describe

    facts = describe.describe(path)
    if as_json:
        print_json(facts)
        return
    width = max(len(key) for key in facts)
    for key, fact in facts.items():
        shown = json.dumps(fact) if isinstance(fact, (dict, list)) else str(fact)
        print_line(f"{key:<{width}}  {shown}")
