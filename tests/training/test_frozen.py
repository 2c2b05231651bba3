"""Trained networks, as later stages and validations see slices by them."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY, tiny_model

from oasisvq.training.distributed import World
from oasisvq.training.frozen import Exact, Floating, networks_for
from oasisvq.training.imitation import update_ranges
from oasisvq.training.weights import file_of

CPU = torch.device("cpu")


def test_others_learn_from_floating_networks_and_are_measured_by_the_integers() -> None:
    file = file_of(tiny_model(TINY), {})
    assert isinstance(networks_for("train", file, CPU, "float32"), Floating)
    for split in ("validation", "test"):
        assert isinstance(networks_for(split, file, CPU, "bfloat16"), Exact)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_floating_networks_make_nearly_what_the_integers_make(precision: str) -> None:
    config = replace(TINY, context=1)
    model = tiny_model(config).train()
    pixels, context = torch.rand(2, 4, 1, 6 * config.stride, 5 * config.stride)
    model.decoder(model.encoder(pixels, context), context)
    update_ranges(model, World(0, 1, CPU))
    file = file_of(model.eval(), {})
    floating, exact = (networks_for(split, file, CPU, precision) for split in ("train", "test"))
    with torch.no_grad():
        latents, expected = (networks.encoder(pixels, context) for networks in (floating, exact))
        decoded, wanted = (networks.decoder(expected, context) for networks in (floating, exact))
    assert latents.dtype == decoded.dtype == torch.float32
    assert (latents - expected).abs().mean() < 0.02  # of a root mean square of 1
    assert (decoded - wanted).abs().max() < 0.02
    assert decoded.min() >= 0 and decoded.max() <= 1
    assert (floating.encoder(pixels, None) - latents).abs().max() > 0.01
