"""What training computes is what the integers compute, to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY, tiny_model
from numpy.typing import NDArray
from torch import Tensor

from oasisvq.codec.config import ModelConfig
from oasisvq.codec.exact import GAIN_UNITS, LATENT_UNITS, Table
from oasisvq.codec.networks import DECODED_STEPS, PIXEL_STEPS
from oasisvq.training.distributed import World
from oasisvq.training.frozen import Exact
from oasisvq.training.imitation import Imitation, _LookUp, _Scale, update_ranges
from oasisvq.training.networks import Activation, Gauge
from oasisvq.training.weights import Model, build_model, file_of

STEPWISE = replace(  # as many stages as the stride allows: nothing is folded
    TINY,
    encoder_channels=(3, 4, 5, 6),
    encoder_blocks=(0, 1, 0, 2),
    decoder_channels=(6, 5, 4, 3),
    decoder_blocks=(0, 1, 0, 1),
)
PIXELWISE = replace(
    TINY,
    stride=1,
    window=(7, 5),
    encoder_channels=(5,),
    encoder_blocks=(1,),
    decoder_channels=(3,),
    decoder_blocks=(2,),
)
CONFIGS = {
    "tiny": TINY,
    "stepwise": STEPWISE,
    "pixelwise": PIXELWISE,
    "context": replace(TINY, context=1),
    "stepwise context": replace(STEPWISE, context=1),
}
ONE = World(0, 1, torch.device("cpu"))


def trained(config: ModelConfig, seed: int = 0, gain: float = 1.0) -> Model:
    """A model with random weights whose gauges have seen some images."""
    model = tiny_model(config, seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain)
    model.train()
    pixels = torch.rand(3, 1, 6 * config.stride, 5 * config.stride)
    model.decoder(model.encoder(pixels))
    update_ranges(model, ONE)
    return model.eval()


def images(kind: str, config: ModelConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    shape = 3, 7 * config.stride, 4 * config.stride
    if kind == "random":
        return rng.integers(0, PIXEL_STEPS + 1, shape) / PIXEL_STEPS
    if kind == "checks":
        return (np.indices(shape).sum(0) % 2).astype(float)
    return np.full(shape, 1.0 if kind == "white" else 0.0)


def frozen(tensors: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensors.detach().permute(0, 2, 3, 1).numpy()
    return found


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("gain", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("kind", ["random", "checks", "white", "black"])
def test_imitation_and_integers_are_equal(
    config: ModelConfig, gain: float, kind: str, rng: np.random.Generator
) -> None:
    model = trained(config, gain=gain)
    imitation, file = Imitation(model), file_of(model, {})
    pixels = images(kind, config, rng)
    given = torch.from_numpy(pixels)[:, None].float()
    steps = np.rint(pixels * PIXEL_STEPS).astype(np.int32)
    latents = imitation.encoder(given)
    expected = file.encoder(steps)
    np.testing.assert_array_equal(frozen(latents) * LATENT_UNITS, expected)
    np.testing.assert_array_equal(
        frozen(Exact(file, torch.device("cpu")).encoder(given)) * LATENT_UNITS, expected
    )
    for codes in (expected, rng.integers(-3000, 3000, expected.shape).astype(np.float32)):
        decoded = imitation.decoder(torch.from_numpy(codes).permute(0, 3, 1, 2) / LATENT_UNITS)
        steps = (decoded.detach()[:, 0] * DECODED_STEPS).round().clamp(0, DECODED_STEPS)
        np.testing.assert_array_equal(steps.numpy(), file.decoder(codes))


@pytest.mark.parametrize("config", [replace(TINY, context=1), replace(STEPWISE, context=1)])
def test_the_slice_before_says_the_same_to_both(config: ModelConfig, rng: np.random.Generator) -> None:
    model = trained(config)
    imitation, file = Imitation(model), file_of(model, {})
    before, pixels = images("random", config, rng), images("random", config, rng)
    context = torch.from_numpy(before)[:, None].float()
    steps = np.rint(before * PIXEL_STEPS).astype(np.int32)
    latents = imitation.encoder(torch.from_numpy(pixels)[:, None].float(), context)
    expected = file.encoder(np.rint(pixels * PIXEL_STEPS).astype(np.int32), steps)
    np.testing.assert_array_equal(frozen(latents) * LATENT_UNITS, expected)
    assert (expected != file.encoder(np.rint(pixels * PIXEL_STEPS).astype(np.int32))).any()
    decoded = imitation.decoder(latents, context)
    whole = (decoded.detach()[:, 0] * DECODED_STEPS).round().clamp(0, DECODED_STEPS)
    np.testing.assert_array_equal(whole.numpy(), file.decoder(expected, steps))
    assert (whole.numpy() != file.decoder(expected)).any()
    nothing = np.zeros_like(steps)
    np.testing.assert_array_equal(file.decoder(expected, nothing), file.decoder(expected))


def test_integers_are_near_what_they_were_made_of() -> None:
    model = trained(TINY)
    imitation = Imitation(model)
    pixels = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain, whole = model.encoder(pixels), imitation.encoder(pixels)
        assert (plain - whole).abs().max() < 0.05
        plain, whole = model.decoder(plain), imitation.decoder(plain)
        assert (plain - whole).abs().max() < 0.02


def test_every_weight_learns_through_the_rounding() -> None:
    model = trained(TINY).train()
    imitation = Imitation(model)
    pixels = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(1))
    imitation.decoder(imitation.encoder(pixels)).square().mean().backward()
    rounded = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.decoder(model.encoder(pixels)).square().mean().backward()
    for name, parameter in model.named_parameters():
        found, plain = rounded[name], parameter.grad
        assert found is not None
        assert plain is not None
        near = torch.nn.functional.cosine_similarity(found.flatten(), plain.flatten(), dim=0)
        assert near > 0.95, name


@pytest.mark.parametrize("gain", [1e-6, 1.0, 1000.0])
def test_no_sum_can_pass_what_is_exact(gain: float) -> None:
    model = trained(replace(TINY, encoder_channels=(64, 128)), gain=gain)
    with torch.no_grad():
        model.encoder.layers[2].first.weight[:] = 1.0  # as large as all others of its row: large sums
    file = file_of(model, {})  # refuses what is not exact
    weight = file.arrays["encoder.stage1.block1.first.weight"]
    assert (weight == weight.max()).all()
    assert weight.max() > 60


def test_ranges_follow_what_is_seen() -> None:
    gauge = Activation().train()
    for low, high in ((-1.0, 2.0), (-3.0, 4.0)):
        gauge(torch.tensor([low, high]).reshape(1, 1, 1, 2).expand(5, -1, -1, -1))
    update_ranges(gauge, ONE)
    assert gauge.range.tolist() == [-2, 3]  # the mean over images
    update_ranges(gauge, ONE)  # nothing new
    assert gauge.range.tolist() == [-2, 3]
    gauge(torch.zeros(1, 1, 1, 1))
    update_ranges(gauge, ONE)
    assert gauge.range.tolist() == [-1, 1.5]
    with torch.no_grad():
        gauge(torch.full((1, 1, 1, 1), 9.0))
    gauge.eval()(torch.full((1, 1, 1, 1), 9.0))
    assert not gauge.seen.any()


def test_ranges_are_fixed_when_imitation_starts() -> None:
    model = trained(TINY)
    first = Imitation(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    again = Imitation(model)
    assert again.integers.specs == first.integers.specs
    assert all(gauge.limit > 0 for gauge in model.modules() if isinstance(gauge, Gauge))


def test_networks_made_of_integers_compute_what_those_do() -> None:
    file = file_of(trained(TINY), {})
    again = build_model(file)
    pixels = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = torch.from_numpy(file.encoder((pixels[:, 0] * PIXEL_STEPS).round().int().numpy()))
        assert (again.encoder(pixels).permute(0, 2, 3, 1) - expected / LATENT_UNITS).abs().max() < 0.05
    np.testing.assert_array_equal(
        file_of(again, {}).arrays["quantizer.codebooks"], file.arrays["quantizer.codebooks"]
    )


def test_gradients_pass_through_tables_and_rounding() -> None:
    """As of silu and of a product, without the steps; none where a number is beyond the table."""
    spec = -40, 60, 10, 5 * GAIN_UNITS
    table = torch.from_numpy(Table.silu_values(spec, "it"))
    numbers = torch.arange(-50.0, 70.0).requires_grad_()
    activated = _LookUp.apply(numbers, table, spec)
    smooth = torch.nn.functional.silu(numbers.detach().clamp(-40, 60) / 10) * 5
    assert torch.equal(activated, smooth.round())
    activated.sum().backward()
    plain = numbers.detach().clone().requires_grad_()
    (torch.nn.functional.silu(plain.clamp(-40, 60) / 10) * 5).sum().backward()
    torch.testing.assert_close(numbers.grad, plain.grad)

    sums = torch.randn(2, 3, 4, 4).mul(100).round().requires_grad_()
    scale, bias = torch.tensor([0.5, 0.01, 2.0]), torch.tensor([1.0, -2.0, 0.0], requires_grad=True)
    results = _Scale.apply(sums, scale, bias)
    assert torch.equal(results, (sums * scale[:, None, None] + bias[:, None, None]).round().detach())
    results.sum().backward()
    torch.testing.assert_close(sums.grad, scale[:, None, None].expand(2, 3, 4, 4))
    torch.testing.assert_close(bias.grad, torch.full((3,), 32.0))
