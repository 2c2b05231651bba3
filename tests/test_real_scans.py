"""The bundled model on real scans, where this machine has them."""

from pathlib import Path

import numpy as np
import pytest
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
