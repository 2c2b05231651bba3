"""Any tool that opens images with Pillow opens `.codes` files; for nibabel there is `load_volume`.

python examples/open_in_pillow.py slice.codes volume.codes
"""

import sys

from PIL import Image

import oasisvq
import oasisvq.pillow  # registers the format

picture, volume = sys.argv[1:]
with Image.open(picture) as image:
    print(image.format, image.size, image.mode)
    image.resize((96, 96)).save("thumbnail.png")
with Image.open(volume) as image:
    image.seek(image.n_frames // 2)
    image.save("middle.png")
print(oasisvq.load_volume(volume).shape)
