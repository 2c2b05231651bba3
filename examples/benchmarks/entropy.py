"""How much smaller the prior makes files, and how close their sizes are to its cross-entropy.

    python examples/benchmarks/entropy.py data/ --split validation

For every quality, means over slices: the size of the packed file, of the prior-coded file, and of the
cross-entropy of the same indices by the prior's frequencies, plus the header. Only a window of the grid
is coded; the size of the whole grid, packed, is shown too, since other VQ codecs store fixed-width codes
of whole images.
"""

import argparse
import math
from pathlib import Path

import numpy as np

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.entropy import bits_per_index, kind_in, packed_bytes
from oasisvq.codec.frequencies import FREQUENCY_BITS, Frequencies, Indices
from oasisvq.codec.headers import Coder
from oasisvq.codec.pixels import cells
from oasisvq.codec.prior import Pass
from oasisvq.data.dataset import open_dataset


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="a prepared dataset")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--every", type=int, default=1, help="only every N-th slice")
    parser.add_argument("--model", type=Path, default=None)
    arguments = parser.parse_args()
    codec = oasisvq.load(arguments.model)
    prior = codec.prior
    assert prior is not None, "a model without a prior"
    planes = open_dataset(arguments.data).array(arguments.split)[:: arguments.every]
    print(f"{len(planes)} slices, model {codec.fingerprint.hex()[:8]}; mean bytes")
    print("quality  packed   prior  smaller  cross-entropy + header  excess  whole grid packed  smaller")
    for levels in range(1, codec.config.levels + 1):
        sums = np.zeros(4)
        for plane in planes:
            array = np.asarray(plane)
            packed = codec.encode(array, levels, Coder.PACKED)
            coded = codec.encode(array, levels, Coder.PRIOR)
            file = container.read(coded, "codes")
            indices = codec.codes_of(file).indices
            bits = 0.0
            kind = kind_in(file.payload, prior)

            def given(step: Pass, frequencies: Frequencies) -> Indices:
                nonlocal bits
                chosen = indices[step.level, step.rows, step.columns]  # noqa: B023 - used at once
                shares = frequencies[0, np.arange(len(chosen)), chosen] + 1
                bits += float((FREQUENCY_BITS - np.log2(shares)).sum())
                return chosen[None]

            prior.walk((1, *indices.shape), np.array([kind]), given)
            bits += FREQUENCY_BITS - math.log2(int(prior.kind_frequencies[kind]) + 1)
            header = len(coded) - len(file.payload)
            grid = math.prod(cells(side, codec.config.stride) for side in array.shape)
            whole = header + packed_bytes(levels * grid, codec.config.codebook_size)
            sums += len(packed), len(coded), header + bits / 8, whole
        packed_mean, coded_mean, entropy, whole_mean = sums / len(planes)
        print(
            f"{levels:>7} {packed_mean:7,.0f} {coded_mean:7,.1f} {1 - coded_mean / packed_mean:7.1%} "
            f"{entropy:23,.1f} {coded_mean / entropy - 1:7.2%} {whole_mean:18,.0f} "
            f"{1 - coded_mean / whole_mean:7.1%}"
        )
    print(f"({bits_per_index(codec.config.codebook_size)} bits an index packed)")


if __name__ == "__main__":
    main()
