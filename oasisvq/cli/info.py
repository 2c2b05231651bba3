"""`oasisvq info`: what a .codes file, model, dataset or folder is."""

import json
from pathlib import Path
from typing import Annotated

import typer

from oasisvq.cli.options import JsonOption
from oasisvq.cli.printing import counted, print_json, print_line


def info(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A .codes file, a model, an export, a dataset, or a folder of models or .codes files. "
            "For a folder, `info` counts files, slices, bytes, qualities and models. Without a path, it "
            "lists the models found from here, and where they are kept."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a .codes file, model, dataset or folder is."""
    if path is None:
        from oasisvq.inventory import take_stock_here

        facts = take_stock_here()
    else:
        from oasisvq.describe import describe

        facts = describe(path)
    if as_json:
        print_json(facts)
        return
    models = facts.pop("models", [])
    width = max(len(key) for key in facts)
    for key, fact in facts.items():
        shown = json.dumps(fact) if isinstance(fact, (dict, list)) else str(fact)
        print_line(f"{key:<{width}}  {shown}")
    for known in models:
        ssim = known["validation_ssim"]
        scored = f", validation SSIM {ssim[-1]}" if isinstance(ssim, list) else ""
        print_line(
            f"model {known['model']}: {known['file']}, {known['training']}{scored}, needed by "
            f"{counted(known['needed_by'], '.codes file')} here"
        )
