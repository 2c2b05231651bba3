"""Images of several pages, with palettes, and as GIF and BMP."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oasisvq.errors import ImageError
from oasisvq.scans.images import read_image, read_picture, write_pages
from oasisvq.scans.scan import read_scan, write_scan
from oasisvq.scans.source import source_at

PAGES = np.random.default_rng(0).integers(0, 256, (4, 9, 12)).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_pages_of_a_tiff_are_a_volume_and_come_back_as_pages(tmp_path: Path, dtype: type) -> None:
    pages = PAGES.astype(dtype) * (1 if dtype is np.uint8 else 200)
    write_pages(pages, tmp_path / "stack.tif")
    scan = read_scan(source_at(tmp_path / "stack.tif"))
    assert scan.placement is not None
    assert scan.placement.geometry.form_codes == (0, 0)
    assert scan.voxels.shape == (12, 9, 4)
    np.testing.assert_array_equal(scan.voxels, pages.transpose(2, 1, 0))
    write_scan(scan, tmp_path / "back.tif")
    back = read_picture(tmp_path / "back.tif").planes
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, pages)


def test_pages_as_other_programs_write_them(tmp_path: Path) -> None:
    first, *others = (Image.fromarray(page) for page in PAGES)
    first.save(tmp_path / "stack.tiff", save_all=True, append_images=others)
    np.testing.assert_array_equal(read_picture(tmp_path / "stack.tiff").planes, PAGES)
    with pytest.raises(ImageError, match="several images"):
        read_image(tmp_path / "stack.tiff")


@pytest.mark.parametrize("odd", [PAGES[0, :5], PAGES[0].astype(np.uint16) * 300], ids=["size", "type"])
def test_pages_that_do_not_fit_are_refused(tmp_path: Path, odd: NDArray[np.generic]) -> None:
    first, second = Image.fromarray(PAGES[0]), Image.fromarray(odd)
    first.save(tmp_path / "stack.tif", save_all=True, append_images=[second])
    with pytest.raises(ImageError, match="pages are of several sizes or types"):
        read_picture(tmp_path / "stack.tif")


@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp"])
def test_a_palette_of_colours_is_read_by_its_indices(tmp_path: Path, suffix: str) -> None:
    labels = np.kron(np.array([[0, 1], [2, 1]], np.uint8), np.ones((8, 8), np.uint8))
    image = Image.fromarray(labels)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(tmp_path / f"labels{suffix}")
    scan = read_scan(source_at(tmp_path / f"labels{suffix}"))
    assert scan.says_labels
    np.testing.assert_array_equal(scan.plane, labels)
    with pytest.raises(ImageError, match="a coloured image"):
        read_image(tmp_path / f"labels{suffix}")


@pytest.mark.parametrize("suffix", [".gif", ".bmp"])
def test_gif_and_bmp_are_read(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(PAGES[0]).save(tmp_path / f"a{suffix}")
    scan = read_scan(source_at(tmp_path / f"a{suffix}"))
    assert not scan.says_labels
    np.testing.assert_array_equal(scan.plane, PAGES[0])
