"""Encodes the slices of one subject as one file, half as large as a file for each slice.

python examples/stack_of_slices.py case_402_slice_*.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import oasisvq

paths = [Path(each) for each in sys.argv[1:]]
paths.sort(key=lambda path: int("".join(filter(str.isdigit, path.stem))))  # 10 comes after 9
images = [np.asarray(Image.open(path)) for path in paths]
codec = oasisvq.load()
content = codec.encode_stack(images, [path.name for path in paths])
alone = sum(len(codec.encode(image)) for image in images)
print(f"{len(images)} slices: {alone:,} bytes one by one, {len(content):,} as a stack")
Path("stack.codes").write_bytes(content)
codes = oasisvq.read_codes("stack.codes")
for name, plane in zip(codes.header.stack.names, codec.decode(content), strict=True):
    print(name, plane.shape, plane.dtype)
