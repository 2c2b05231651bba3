"""What volumes gain by the restoration near known ground: compares the same file with and without it.

python examples/benchmarks/restoration.py 1104_SS.nii.gz ...
"""

import argparse
from dataclasses import replace
from pathlib import Path

import oasisvq
from oasisvq.codec import container
from oasisvq.codec.measure import measure
from oasisvq.codec.wish import Wish
from oasisvq.scans.scan import read_scan
from oasisvq.scans.source import source_at

LEVELS = (1, 2, 4, 6)


def main() -> None:
    """Print two rows for each volume and number of levels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("volumes", type=Path, nargs="+")
    arguments = parser.parse_args()
    codec = oasisvq.load()
    print("volume                levels  restored    bytes  outline    SSIM  foreground  PSNR dB")
    for path in arguments.volumes:
        scan = read_scan(source_at(path))
        for levels in LEVELS:
            file = container.read(codec.encode_scan(scan, Wish(levels)), path.name)
            assert file.header.ground is not None
            for restoration in (None, file.header.restoration):
                header = replace(file.header, restoration=restoration)
                content = container.write(header, file.payload, file.beside)
                codes = codec.codes_of(container.read(content, path.name))
                kept = measure(scan, codec.decode_codes(codes, path.name).planes)
                print(
                    f"{path.name:<22}{levels:6}  {'yes' if restoration else 'no':>8} {len(content):8,} "
                    f"{file.header.ground.payload_bytes:8,} {kept.ssim:7.4f} "
                    f"{kept.foreground_ssim:11.4f} {kept.psnr:8.2f}"
                )


if __name__ == "__main__":
    main()
