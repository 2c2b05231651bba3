"""Model that learns <-> the arrays of a model file."""

from pathlib import Path

import torch
from conftest import TINY, draw_phantom, tiny_model
from numpy.random import Generator

from oasisvq.training.weights import load_model, save_model

CARD = {"images": "scans", "size": 64, "note": "Grauwert ±½"}


def test_load_is_nearly_the_inverse_of_save(tmp_path: Path) -> None:
    model = tiny_model()
    save_model(model, tmp_path / "model.safetensors", CARD)
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.card == CARD
    assert loaded.fingerprint == loaded.file.fingerprint
    assert loaded.model.config == TINY
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    restored = loaded.model.state_dict()
    assert restored.keys() == model.state_dict().keys()
    for name, tensor in model.named_parameters():
        assert restored[name].dtype == torch.float32
        step = tensor.abs().max() / 100  # a part in 127 of each output's largest weight
        assert (restored[name] - tensor).abs().max() <= step, name
    difference = restored["quantizer.codebooks"] - model.quantizer.codebooks
    assert difference.abs().max() <= 1 / 512


def test_what_is_loaded_computes_as_what_was_saved(tmp_path: Path, rng: Generator) -> None:
    model = tiny_model()
    save_model(model, tmp_path / "model.safetensors", {})
    loaded = load_model(tmp_path / "model.safetensors").model
    pixels = torch.from_numpy(draw_phantom(rng, 40, 48)).float()[None, None] / 255
    with torch.inference_mode():
        latents = model.encoder(pixels)
        torch.testing.assert_close(loaded.encoder(pixels), latents, atol=0.03, rtol=0)
        torch.testing.assert_close(loaded.decoder(latents), model.decoder(latents), atol=0.01, rtol=0)
