"""`oasisvq export`: the indices of many `.codes` files become one array file."""

from pathlib import Path
from typing import Annotated

import typer

from oasisvq.cli.options import ForceOption, ModelOption
from oasisvq.cli.printing import print_line


def export(
    source: Annotated[Path, typer.Argument(help="A folder of .codes files, all of one model.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Array file to write: .npz or .safetensors.")
    ],
    model: ModelOption = None,
    force: ForceOption = False,
) -> None:
    """Gather the indices of many .codes files as one array, for those who train on the tokens.

    The file holds `indices` (slices, levels, h, w) with `names` and `subjects`; all slices lie on
    one grid, and 65535 marks where one has no index. `decode` takes it back to images.
    """
    from oasisvq.files import require_output
    from oasisvq.tokens import gather, write_tokens

    require_output(output, force)
    tokens = gather(source, model)
    write_tokens(tokens, output)
    shape = " × ".join(f"{side:,}" for side in tokens.arrays["indices"].shape)
    subjects = len(set(tokens.subjects) - {""})
    print_line(f"{output}: {shape} indices (slices, levels, h, w) of {subjects:,} known subjects")
