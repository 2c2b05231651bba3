"""Encodes and decodes many slices at once, shows their latents, and decodes changed indices.

python examples/many_slices.py folder/*.png
"""

import sys
from pathlib import Path

import numpy as np

import oasisvq


def main(paths: list[Path]) -> None:
    """Encode all slices on two cores; give the first one the fine levels of the second."""
    codec = oasisvq.load()
    contents = codec.encode_many(paths, levels=codec.config.levels, jobs=2)
    slices = codec.decode_many(contents)
    print(f"{len(slices)} slices in {sum(map(len, contents)):,} bytes")
    Path("first.codes").write_bytes(contents[0])
    Path("second.codes").write_bytes(contents[1])
    first, second = oasisvq.read_codes("first.codes"), oasisvq.read_codes("second.codes")
    mixed = np.concatenate([first.indices[:1], second.indices[1:]])
    print(f"latents {codec.latents(slices)[0].shape}, vectors {codec.embed(mixed).shape}")
    print(f"mixed {codec.decode_indices(mixed, first.header).shape}")


if __name__ == "__main__":  # each process imports this script again
    main([Path(each) for each in sys.argv[1:]])
