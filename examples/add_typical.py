"""Adds to the card of a model what each quality typically keeps; a training does so by itself.

python examples/add_typical.py model.safetensors data/ -o other.safetensors --every 10

The files that a model makes do not depend on its card, and its fingerprint does not cover the card. From
these values `encode` knows which scans the model does not suit, and warns.
"""

import argparse
from pathlib import Path

import numpy as np

from oasisvq.codec.codec import Codec
from oasisvq.codec.modelfile import write_model
from oasisvq.data.dataset import open_dataset
from oasisvq.errors import OasisVQError


def main() -> None:
    """Write the model with the new card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help="a prepared dataset, whose validation split is measured")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="only every N-th slice")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output}: there already; choose another name")
    try:
        codec = Codec.load(arguments.model)
        planes = open_dataset(arguments.data).array("validation")[:: arguments.every]
    except OasisVQError as error:
        parser.error(str(error))
    file = codec.file.with_card(codec.card_with_typical([np.asarray(plane) for plane in planes]))
    write_model(file, arguments.output)
    print(f"{arguments.output}: model {file.fingerprint.hex()}, {len(planes):,} slices")
    for levels, each in enumerate(Codec(file).typical, start=1):
        low, high = each.ssim
        print(f"-q {levels}: {each.file_bytes:,.0f} bytes, SSIM {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
