"""`oasisvq export`: the indices of many `.codes` files become one array file."""

from pathlib import Path
from typing import Annotated

import typer

from oasisvq.cli.chosen import chosen_shard
from oasisvq.cli.options import (
    ExcludeOption,
    ForceOption,
    IncludeOption,
    JobsOption,
    ModelOption,
    QuietOption,
    ShardOption,
)
from oasisvq.cli.printing import counted, print_line


def export(
    source: Annotated[Path, typer.Argument(help="A folder of .codes files, all made by one model.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="Array file to write: .npz or .safetensors. For data larger than memory: .tokens, a "
            "folder whose arrays are memory-mapped.",
        ),
    ],
    model: ModelOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    shard: ShardOption = None,
    jobs: JobsOption = 1,
    force: ForceOption = False,
    _quiet: QuietOption = False,
) -> None:
    """Gather the indices of many .codes files in one array.

    Use it to train on tokens. The array file holds `indices` (slices, levels, h, w) of images and
    volumes, 65535 where a slice has no index, and `names` and `subjects` of the files. `decode` turns
    it back into images and volumes, at the quality of the indices alone: residues, exact ground and
    outliers are not exported.
    """
    from oasisvq.folders import Globs, PassedOver
    from oasisvq.gathering import Gathering
    from oasisvq.tokens import require_tokens

    require_tokens(output, force)
    passed_over = PassedOver()
    globs = Globs(tuple(include or ()), tuple(exclude or ()))
    gathering = Gathering(source, model, passed_over, chosen_shard(shard), jobs, globs)
    gathering.write(output)
    shape = " × ".join(f"{side:,}" for side in gathering.shape)
    subjects = len(set(gathering.subjects) - {""})
    of_subjects = f" of {subjects:,} subjects" if subjects else ""
    print_line(f"{output}: {shape} indices (slices, levels, h, w){of_subjects}")
    if gathering.reduced:
        print_line(
            f"of {counted(gathering.reduced, 'file')} only the indices are exported; residues, exact "
            "ground and outliers are left out, and no bound holds for what is decoded from the array"
        )
    if told := str(passed_over):
        print_line(told)
