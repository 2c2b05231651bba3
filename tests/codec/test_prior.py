"""The model of index grids: integers on every machine, and nothing known too early."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import prior_driver
import pytest
import torch
from numpy.typing import NDArray
from plain_prior import Arrays, assert_equals_plain, plain_frequencies
from prior_driver import SMALL, drawn_arrays, drawn_prior, hash_of_wide

from oasisvq.codec import prior as prior_module
from oasisvq.codec.exact import EXACT, largest_sum, symmetric
from oasisvq.codec.frequencies import (
    BIT_UNITS,
    FREQUENCY_BITS,
    POWERS,
    Frequencies,
    bits_of,
    draw,
    frequencies_of,
)
from oasisvq.codec.prior import Pass, Prior, PriorConfig, order_of, pooled
from oasisvq.errors import ModelError
from oasisvq.training.prior_network import kind_frequencies


def extreme_arrays(config: PriorConfig, rng: np.random.Generator, whole: int | None) -> Arrays:
    """Tables of -128, weights of ±127 (all `whole`, where given), scales and biases of any size."""
    arrays = drawn_arrays(config, rng)
    for name, array in arrays.items():
        if name.startswith("kinds."):
            continue
        if name.endswith(".scale"):
            arrays[name] = rng.choice([0, 1, 2**23, 2**31 - 1], array.shape).astype(np.int32)
        elif name.endswith(".bias"):
            arrays[name] = rng.choice([-(2**31), 0, 2**31 - 1], array.shape).astype(np.int32)
        elif name.endswith(".weight"):
            drawn = rng.choice([-127, 127], array.shape)
            arrays[name] = (drawn if whole is None else np.full(array.shape, whole)).astype(np.int8)
        else:
            arrays[name] = rng.choice([-128, -127, 127], array.shape).astype(np.int8)
    return arrays


@pytest.mark.parametrize("shape", [(5, 6), (2, 3), (9, 11), (1, 1), (1, 8)])
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_are_those_of_plain_integers(
    shape: tuple[int, int], batch: int, rng: np.random.Generator
) -> None:
    """On the grid of the positions, and on smaller, larger and odd ones."""
    indices = rng.integers(0, 20, (batch, 3, *shape)).astype(np.uint16)
    prior = drawn_prior()
    assert_equals_plain(prior, indices, rng.integers(0, 4, batch).tolist())
    step = next(prior.schedule(1, 5, 6))
    spread = np.ptp(prior.logits(np.zeros((1, 3, 5, 6), np.uint16), np.zeros(1, int), step), axis=1)
    assert spread.min() > 16  # the comparison is not one of constants


@pytest.mark.parametrize("whole", [None, 127, -127])
@pytest.mark.parametrize("index", [None, 0, 19])
def test_logits_of_the_largest_arrays(
    whole: int | None, index: int | None, rng: np.random.Generator
) -> None:
    prior = Prior(SMALL, extreme_arrays(SMALL, rng, whole))
    drawn = rng.integers(0, 20, (2, 3, 4, 5)) if index is None else np.full((2, 3, 4, 5), index)
    assert_equals_plain(prior, drawn.astype(np.uint16), [0, 3])


def test_sums_next_to_the_limit_are_exact(rng: np.random.Generator) -> None:
    config = replace(
        SMALL, codebook_size=7, hidden=(1040,), blocks=(0,), reach=(0,), passes=(1,), kinds=2
    )
    arrays = drawn_arrays(config, rng)
    arrays["level1.input.weight"][:] = 0  # type: ignore[index]
    arrays["level1.input.bias"][:] = 127 * 4  # type: ignore[index]
    weight = np.full((7, 1040), 127, np.int8)
    weight[1:4] -= rng.integers(0, 2, (3, 1040)).astype(np.int8)
    weight[4] = -127
    weight[5, ::2] = -127
    arrays["level1.output.weight"] = weight
    arrays["level1.output.scale"] = np.full(7, 2**24, np.int32)
    prior = Prior(config, arrays)
    indices = np.zeros((1, 1, 3, 3), np.uint16)
    step = next(prior.schedule(1, 3, 3))
    found = prior.logits(indices, np.zeros(1, int), step) - arrays["level1.output.bias"]
    assert EXACT - 127**2 <= found[0, 0] == 127 * 127 * 1040 < EXACT
    assert_equals_plain(prior, indices, [1])


@pytest.mark.parametrize(
    "view",
    [
        np.asfortranarray,
        lambda indices: indices.transpose(0, 1, 3, 2),
        lambda indices: indices[::-1, :, ::-1, ::-1],
        lambda indices: indices[:, :, ::2, 1::2],
        lambda indices: indices.transpose(2, 1, 0, 3)[:2],
    ],
)
def test_the_layout_of_the_indices_makes_no_difference(
    view: Callable[[NDArray[np.uint16]], NDArray[np.uint16]], rng: np.random.Generator
) -> None:
    prior = drawn_prior()
    indices = view(rng.integers(0, 20, (2, 3, 6, 8)).astype(np.uint16))
    kinds = np.arange(len(indices)) % 4
    for step in prior.schedule(3, *indices.shape[2:]):
        np.testing.assert_array_equal(
            prior.logits(indices, kinds, step),
            prior.logits(np.ascontiguousarray(indices), kinds, step),
        )


def test_a_grid_has_the_logits_that_it_has_alone(rng: np.random.Generator) -> None:
    prior = drawn_prior()
    indices = rng.integers(0, 20, (7, 3, 5, 6)).astype(np.uint16)
    kinds = rng.integers(0, 4, 7)
    for step in prior.schedule(3, 5, 6):
        together = prior.logits(indices, kinds, step).reshape(7, step.rows.size, -1)
        for number in range(7):
            part = slice(number, number + 1)
            alone = prior.logits(indices[part], kinds[part], step)
            np.testing.assert_array_equal(together[number], alone)


@pytest.fixture
def careless_torch() -> Iterator[None]:
    """Every setting of torch that trades exactness for speed."""
    before = torch.get_float32_matmul_precision()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(False)
    yield
    torch.set_float32_matmul_precision(before)
    torch.use_deterministic_algorithms(was_deterministic)


@pytest.mark.usefixtures("careless_torch")
def test_settings_of_torch_make_no_difference(rng: np.random.Generator) -> None:
    assert_equals_plain(drawn_prior(), rng.integers(0, 20, (2, 3, 5, 6)).astype(np.uint16), [2, 1])


def test_the_number_of_threads_makes_no_difference() -> None:
    expected = hash_of_wide()
    for threads in (1, 2, 4):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        finished = subprocess.run(
            [sys.executable, prior_driver.__file__],
            env=os.environ | dict.fromkeys(names, str(threads)),
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
        assert finished.stdout.strip() == expected, threads


# frequencies
def test_the_table_holds_powers_of_two_rounded_down() -> None:
    assert POWERS[0] == 2**16
    for step, power in enumerate(POWERS.tolist()):
        assert power**16 <= 2 ** (256 - step) < (power + 1) ** 16


@pytest.mark.parametrize("size", [2, 3, 20, 256, 1000, 65_535])
@pytest.mark.parametrize("spread", [0, 5, 300, 2**33])
def test_frequencies_are_whole(size: int, spread: int, rng: np.random.Generator) -> None:
    logits = rng.integers(-spread - 1, spread + 1, (4, size)) - 7
    frequencies = frequencies_of(logits)
    assert frequencies.dtype == np.int64
    assert (frequencies.sum(1) == 2**24 - size).all()
    assert frequencies.min() >= 0
    for row, found in zip(logits.tolist(), frequencies.tolist(), strict=True):
        assert found == plain_frequencies(row)


def test_frequencies_follow_the_logits() -> None:
    frequencies = frequencies_of(np.array([[0, 16, -16, -10_000]]))[0]
    assert frequencies[1] / frequencies[0] == pytest.approx(2, rel=1e-3)
    assert frequencies[0] / frequencies[2] == pytest.approx(2, rel=1e-3)
    assert frequencies[3] < 2**24 / 2**15


def test_draws_follow_the_frequencies_and_each_grid_its_own_generator() -> None:
    frequencies = np.broadcast_to(np.array([2**23, 2**22, 2**22 - 3]), (1, 5000, 3))
    alone = draw(frequencies, [np.random.default_rng(5)], 1.0)
    shares = np.bincount(alone[0], minlength=3) / 5000
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.03)
    generators = [np.random.default_rng(seed) for seed in (4, 5)]
    both = draw(np.repeat(frequencies, 2, axis=0), generators, 1.0)
    np.testing.assert_array_equal(both[1], alone[0])
    assert (both[0] != both[1]).any()
    cold = draw(frequencies, [np.random.default_rng(5)], 0.05)
    assert (cold == 0).mean() > 0.99


# the order
@pytest.mark.parametrize("passes", sorted(prior_module.PASS_SIZES))
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (5, 7), (22, 26), (0, 0)])
def test_every_cell_has_one_pass_and_no_target_is_known(passes: int, shape: tuple[int, int]) -> None:
    config = replace(SMALL, passes=(passes, passes, passes))
    prior = Prior(config, drawn_arrays(config, np.random.default_rng(0)))
    for levels in (1, 3):
        counts = np.zeros((levels, *shape), int)
        last = 0
        for step in prior.schedule(levels, *shape):
            assert step.level >= last
            last = step.level
            assert not step.known[step.rows, step.columns].any()
            np.testing.assert_array_equal(step.known, counts[step.level] > 0)
            assert step.rows.size
            counts[step.level, step.rows, step.columns] += 1
        assert (counts == 1).all()


def test_two_levels_have_at_most_16_passes() -> None:
    assert len(list(drawn_prior().schedule(2, 22, 26))) == 8 + 2
    for passes in (8, 12):
        config = replace(SMALL, passes=(passes, 2, 2))
        prior = Prior(config, drawn_arrays(config, np.random.default_rng(0)))
        assert len(list(prior.schedule(2, 22, 26))) <= 16


@pytest.mark.parametrize("passes", sorted(prior_module.PASS_SIZES))
def test_passes_are_spread_evenly(passes: int) -> None:
    order = order_of(16, 24, passes)
    assert set(order.reshape(-1)) == set(range(passes))
    for blocks in (order[:4, :4], order[4:8, 20:]):
        np.testing.assert_array_equal(blocks, order[:4, :4])
    sizes = [int((order[:4, :4] == number).sum()) for number in range(passes)]
    assert all(first <= second for first, second in pairwise(sizes))


def test_what_is_not_yet_known_changes_no_logit(rng: np.random.Generator) -> None:
    prior = drawn_prior()
    indices = rng.integers(0, 20, (1, 3, 5, 6)).astype(np.uint16)
    kinds = np.array([2])
    seen = 0
    for step in prior.schedule(3, 5, 6):
        logits = prior.logits(indices, kinds, step)
        later = indices.copy()
        later[0, step.level][~step.known] = rng.integers(0, 20, int((~step.known).sum()))
        later[0, step.level + 1 :] = rng.integers(0, 20, later[0, step.level + 1 :].shape)
        np.testing.assert_array_equal(prior.logits(later, kinds, step), logits)
        earlier = indices.copy()
        earlier[0, step.level][step.known] += 1
        earlier[0, : step.level] += 1
        earlier %= 20
        seen += bool((prior.logits(earlier, kinds, step) != logits).any())
    assert seen == 8 + 2 + 1 - 1  # what is known counts in all passes but the first


def test_walking_gives_back_what_is_chosen(rng: np.random.Generator) -> None:
    wanted = rng.integers(0, 20, (2, 3, 5, 6)).astype(np.uint16)

    def given(step: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
        assert frequencies.shape == (2, step.rows.size, 20)
        return wanted[:, step.level, step.rows, step.columns]

    prior = drawn_prior()
    np.testing.assert_array_equal(prior.walk((2, 3, 5, 6), np.array([0, 1]), given), wanted)
    with pytest.raises(ModelError, match="4 levels, but the prior knows 3"):
        prior.walk((2, 4, 5, 6), np.array([0, 1]), given)


# kinds
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 3), (22, 26)])
def test_latents_are_pooled_by_parts(shape: tuple[int, int], rng: np.random.Generator) -> None:
    latents = rng.integers(-1500, 1500, (*shape, 6)).astype(np.float32)
    found = pooled(latents)
    assert found.shape == (9 * 6,)
    if shape == (3, 3):
        np.testing.assert_array_equal(found, latents.reshape(-1))
    if shape == (22, 26):
        part = latents[14:, 17:].astype(np.int64)
        np.testing.assert_array_equal(found[-6:], np.rint(part.sum((0, 1)) / part[..., 0].size))


def test_a_slice_is_of_the_kind_of_the_nearest_centre() -> None:
    prior = drawn_prior()
    for kind in range(4):
        centre = prior.arrays["kinds.centre"][kind].astype(np.float32) * 8
        assert prior.kind_of(centre.reshape(3, 3, 6) + 20) == kind


def test_of_two_equally_near_centres_the_first_is_taken() -> None:
    config, arrays = drawn_prior().config, dict(drawn_prior().arrays)
    centres = np.full_like(arrays["kinds.centre"], 100)
    centres[1], centres[2] = 10, -10
    prior = Prior(config, arrays | {"kinds.centre": centres})
    assert prior.kind_of(np.zeros((3, 3, 6), np.float32)) == 1


# what a code costs, and how one is drawn


def test_what_codes_cost(rng: np.random.Generator) -> None:
    shares = np.concatenate([2 ** np.arange(25), rng.integers(1, 2**24, 5000)])
    bits = bits_of(shares - 1)
    np.testing.assert_array_equal(bits, np.rint(bits))
    exact = 24 - np.log2(shares)
    assert np.abs(bits / BIT_UNITS - exact).max() < 0.008
    assert (np.diff(bits[np.argsort(shares, kind="stable")]) <= 0).all()  # never dearer if likelier
    assert bits[24] == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_codes_are_drawn_as_often_as_they_shall_be(temperature: float) -> None:
    shares = np.array([1, 2**10, 2**20, 2**22, 3 * 2**21, 0])
    shares[-1] = 2**24 - shares.sum()
    wanted = (shares / 2**24) ** (1 / temperature)
    wanted /= wanted.sum()
    frequencies = np.broadcast_to(shares - 1, (1, 20_000, 6))
    drawn = draw(frequencies, [np.random.default_rng(seed) for seed in (1, 2)], temperature)
    assert drawn.shape == (2, 20_000)
    found = np.bincount(drawn.reshape(-1), minlength=6) / 40_000
    assert np.abs(found - wanted).max() < 0.01


def test_a_seed_draws_the_same_everywhere() -> None:
    plain, cooler = [6, 6, 5, 4, 2, 4, 4, 1, 2, 6, 5, 3], [6, 6, 5, 4, 2, 4, 4, 2, 2, 6, 5, 4]
    frequencies = np.arange(7).reshape(1, 1, 7) * (2**24 - 7) // 21
    frequencies[..., -1] += 2**24 - 7 - frequencies.sum()
    frequencies = np.broadcast_to(frequencies, (1, 12, 7))
    for temperature, expected in ((1.0, plain), (0.75, cooler)):
        assert draw(frequencies, [np.random.default_rng(5)], temperature)[0].tolist() == expected


# what is refused
def changed(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Arrays], object]:
    return lambda arrays: arrays.update({name: change(arrays[name].copy())})


def put(number: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(array: NDArray[Any]) -> NDArray[Any]:
        array.reshape(-1)[-1] = number
        return array

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("level1.position"), "1 arrays missing or unknown.*level1.position"),
        (lambda arrays: arrays.pop("kinds.frequency"), "kinds.frequency"),
        (lambda arrays: arrays.update(extra=np.zeros(3, np.int8)), "missing or unknown, first extra"),
        (changed("level2.input.weight", lambda array: array.T), "level2.input.weight is int8"),
        (changed("level2.lower", lambda array: array[:, :, :-1]), "level2.lower is int8"),
        (changed("level3.output.bias", lambda array: array[:-1]), "level3.output.bias is int32"),
        (changed("level1.first.weight", lambda array: array.astype(np.int16)), "is int16"),
        (changed("level1.kind", lambda array: array.astype(np.float32)), "is float32"),
        (changed("kinds.frequency", lambda array: array.astype(np.int64)), "is int64"),
        (changed("level1.second.scale", put(-1)), "scale in level1.second.scale is negative"),
        (changed("kinds.frequency", put(2**21)), "do not sum up to 16777212"),
        (
            changed("kinds.frequency", lambda array: np.array([2**24 - 3, -1, 0, 0], np.int32)),
            "do not sum up",
        ),
    ],
)
def test_other_arrays_are_refused(change: Callable[[Arrays], object], message: str) -> None:
    arrays = drawn_arrays(SMALL, np.random.default_rng(0))
    Prior(SMALL, arrays)
    change(arrays)
    with pytest.raises(ModelError, match=message):
        Prior(SMALL, arrays)


@pytest.mark.parametrize("number", [127, -127, -128])
def test_weights_whose_sums_could_reach_the_limit_are_refused(number: int) -> None:
    hidden = EXACT // (127 * abs(number))  # one input less than reaches it
    for width, fits in ((hidden, True), (hidden + 1, False)):
        config = replace(SMALL, hidden=(width,), blocks=(0,), reach=(0,), passes=(1,))
        arrays = drawn_arrays(config, np.random.default_rng(0))
        weight = arrays["level1.output.weight"]
        weight[:] = 0  # type: ignore[index]
        weight[3] = number  # type: ignore[index]
        assert (largest_sum(weight, symmetric(127)) < EXACT) == fits
        if fits:
            Prior(config, arrays)
        else:
            with pytest.raises(ModelError, match=r"level1\.output\.weight are too large"):
                Prior(config, arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebook_size": 1}, "codebook_size is 1"),
        ({"codebook_size": 65_536}, "codebook_size is 65536"),
        ({"kinds": 1}, "kinds is 1"),
        ({"kinds": 5000}, "kinds is 5000"),
        ({"features": 0}, "features is 0"),
        ({"hidden": (16, 12)}, "hidden is .*, expected 3 of"),
        ({"hidden": (16, 12, 0)}, "hidden is"),
        ({"hidden": (16, 12, 10**9)}, "hidden is"),
        ({"blocks": (1, 1, -1)}, "blocks is"),
        ({"reach": (9, 1, 1)}, "reach is"),
        ({"reach": ()}, "hidden is .*, expected 0 of"),
        ({"passes": (3, 2, 1)}, "passes is"),
        ({"grid": (5,)}, "grid"),
        ({"grid": (0, 6)}, "grid"),
        ({"grid": (5, 5000)}, "grid"),
    ],
)
def test_another_config_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"prior config: {message}"):
        replace(SMALL, **changes)


def test_frequencies_of_the_kinds_are_those_of_the_file() -> None:
    prior = drawn_prior()
    assert prior.kind_frequencies.sum() == 2**FREQUENCY_BITS - 4
    np.testing.assert_array_equal(prior.kind_frequencies, prior.arrays["kinds.frequency"])


def test_only_kinds_that_were_met_are_drawn() -> None:
    """Each has one slice more than was counted, so that it can be coded."""

    def met(counts: list[int]) -> list[int]:
        prior = drawn_prior()
        arrays = prior.arrays | {"kinds.frequency": kind_frequencies(counts)}
        return Prior(prior.config, arrays).kinds_met.tolist()

    never, rare, never_either, often = met([0, 10, 0, 30])
    assert never == never_either == 0
    assert often / rare == pytest.approx(3, rel=1e-3)
    assert min(met([0, 0, 0, 0])) > 2**21  # nothing is known
