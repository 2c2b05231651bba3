"""The bundled model on real scans, where this machine has them."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image

import oasisvq
from oasisvq.codec.measure import similarity

SLICES = [
    f"case_{subject}_slice_{index}.nii.png" for subject in (402, 421, 440) for index in (0, 15, 31)
]


@pytest.mark.slow
def test_the_bundled_model_keeps_its_promise(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OASISVQ_MODEL", raising=False)
    codec = oasisvq.load(Path(oasisvq.__file__).parent / "pretrained" / "model.safetensors")
    folder = shared_data / "oasis" / "keras_png_slices_data" / "keras_png_slices_validate"
    scores, sizes = [], []
    for name in SLICES:
        scan = np.asarray(Image.open(folder / name))
        content = codec.encode(scan)
        restored = codec.decode(content)
        assert restored.shape == scan.shape
        assert restored.dtype == scan.dtype
        scores.append(similarity(scan, restored, 255).ssim)
        sizes.append(len(content))
    assert np.mean(scores) >= 0.93
    assert np.mean(sizes) <= 900


@pytest.mark.slow
def test_a_series_of_another_scanner_is_said_to_be_unlike(
    run: Run, shared_data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pydicom")
    folder = shared_data / "oasis" / "keras_png_slices_data" / "keras_png_slices_validate"
    ours = ("--model", Path(oasisvq.__file__).parent / "pretrained" / "model.safetensors")
    for name in SLICES[::4]:
        assert "not like" not in run("encode", folder / name, "-o", "own.codes", "-f", *ours).err
    other = run("encode", shared_data / "dicom" / "series", "-o", "other.codes", *ours)
    assert other.code == 0
    assert "at this quality): not like what this model was trained on; --min-ssim or" in other.err
