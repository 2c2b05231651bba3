"""Integer layers are exact: whatever is summed in whatever order, integers come out."""

import math
import re

import numpy as np
import pytest

from oasisvq.codec.exact import (
    EXACT,
    LARGEST_BIAS,
    Layer,
    Maps,
    Range,
    Scaling,
    Table,
    largest_sum,
    layer_shapes,
    refuse_other_arrays,
    silu,
    symmetric,
)
from oasisvq.errors import ModelError


def arrays_of(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {
        "a.weight": rng.integers(-127, 128, shape).astype(np.int8),
        "a.scale": rng.integers(0, 2**19, shape[0]).astype(np.int32),
        "a.bias": rng.integers(-1000, 1000, shape[0]).astype(np.int32),
    }


def rounded(sums: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """What the module's docstring says, with sums of integers."""
    scale = arrays["a.scale"].astype(np.float32) * np.float32(2.0**-26)
    product = (sums.astype(np.float32) * scale).astype(np.float32)
    return np.rint((product + arrays["a.bias"].astype(np.float32)).astype(np.float32))


@pytest.mark.parametrize(("count", "inputs", "outputs"), [(1, 1, 1), (7, 13, 5), (3000, 200, 33)])
def test_a_dense_layer_is_that_of_integers(
    count: int, inputs: int, outputs: int, rng: np.random.Generator
) -> None:
    arrays = arrays_of(rng, (outputs, inputs))
    numbers = rng.integers(-500, 501, (count, inputs))
    found = Layer.of(arrays, "a", symmetric(500))(numbers.astype(np.float32))
    sums = numbers.astype(np.int64) @ arrays["a.weight"].T.astype(np.int64)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rounded(sums, arrays))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 5, 7, 3), (3, 4, 6, 16), (2, 44, 52, 17)])
def test_a_convolution_is_that_of_integers(
    shape: tuple[int, int, int, int], rng: np.random.Generator
) -> None:
    arrays = arrays_of(rng, (9, 3, 3, shape[3]))
    grid = rng.integers(-300, 301, shape)
    maps = Maps(*shape[:3])
    results = np.full((maps.length, 9), 7, np.float32)

    def put(cells: slice, numbers: np.ndarray) -> None:
        results[cells] = numbers

    Layer.of(arrays, "a", symmetric(300)).convolve(maps, maps.flat(grid), put)
    padded = np.pad(grid, ((0, 0), (1, 1), (1, 1), (0, 0)))
    sums = np.zeros((*shape[:3], 9), np.int64)
    for row in range(3):
        for column in range(3):
            seen = padded[:, row : row + shape[1], column : column + shape[2]]
            sums += seen @ arrays["a.weight"][:, row, column].T.astype(np.int64)
    np.testing.assert_array_equal(maps.grid(results), rounded(sums, arrays))
    maps.clear_margin(results)
    inside = maps.grid(results).copy()
    np.testing.assert_array_equal(results[maps.start :], maps.flat(inside)[maps.start :])


def test_cells_and_their_margin(rng: np.random.Generator) -> None:
    maps = Maps(2, 3, 4)
    grid = rng.integers(1, 9, (2, 3, 4, 5)).astype(np.float32)
    cells = maps.flat(grid)
    np.testing.assert_array_equal(maps.grid(cells), grid)
    assert np.count_nonzero(cells) == grid.size
    assert (cells[maps.start, 0], cells[maps.stop - 1, 4]) == (grid[0, 0, 0, 0], grid[1, 2, 3, 4])
    cells[maps.start : maps.stop] = 1
    maps.clear_margin(cells)
    assert cells.sum() == grid.size


def test_the_largest_sum_is_reached_and_never_passed(rng: np.random.Generator) -> None:
    weight = rng.integers(-127, 128, (20, 3, 3, 4)).astype(np.int8)
    for numbers in (Range(-20, 500), Range(0, 300), symmetric(127)):
        rows = weight.reshape(20, -1).astype(np.int64)
        highest = np.where(rows > 0, numbers.high, numbers.low)
        lowest = np.where(rows > 0, numbers.low, numbers.high)
        reached = max((rows * highest).sum(1).max(), -(rows * lowest).sum(1).min())
        assert largest_sum(weight, numbers) == reached
    assert largest_sum(np.full((1, 3), -128, np.int8), symmetric(10)) == 3840
    assert largest_sum(np.zeros((0, 3), np.int8), symmetric(10)) == 0


def test_weights_on_the_edge_of_what_is_exact() -> None:
    arrays = {
        "a.weight": np.full((1, 4), 127, np.int8),
        "a.scale": np.array([2**26], np.int32),
        "a.bias": np.zeros(1, np.int32),
    }
    most = (EXACT - 1) // (4 * 127)
    layer = Layer.of(arrays, "a", symmetric(most))
    assert layer(np.full((1, 4), most, np.float32))[0, 0] == 4 * 127 * most
    with pytest.raises(ModelError, match="the weights a are too large to be summed exactly"):
        Layer.of(arrays, "a", symmetric(most + 1))


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("scale", -1, "a scale in a is negative"),
        ("bias", LARGEST_BIAS + 1, "a bias in a is beyond"),
        ("bias", -LARGEST_BIAS - 1, "a bias in a is beyond"),
        ("bias", -(2**31), "a bias in a is beyond"),
    ],
)
def test_a_layer_out_of_range_is_refused(
    name: str, entry: int, message: str, rng: np.random.Generator
) -> None:
    arrays = arrays_of(rng, (3, 4))
    arrays[f"a.{name}"][1] = entry
    with pytest.raises(ModelError, match=message):
        Layer.of(arrays, "a", symmetric(10))


def test_other_arrays_are_refused(rng: np.random.Generator) -> None:
    expected, arrays = layer_shapes("a", (3, 4)), arrays_of(rng, (3, 4))
    refuse_other_arrays("it", arrays, expected)
    with pytest.raises(ModelError, match=re.escape("it: 1 arrays missing or unknown, first a.bias")):
        refuse_other_arrays("it", {n: a for n, a in arrays.items() if n != "a.bias"}, expected)
    for other in (arrays["a.weight"].astype(np.int16), arrays["a.weight"][:2]):
        with pytest.raises(ModelError, match=r"it: array a.weight is int.* expected int8 \(3, 4\)"):
            refuse_other_arrays("it", arrays | {"a.weight": other}, expected)


def test_silu_is_x_times_sigmoid() -> None:
    for number in (-800.0, -30.0, -1.5, -1e-9, 0.0, 0.25, 3.0, 40.0, 900.0):
        expected = number / (1 + math.exp(-number)) if number > -700 else 0.0
        assert silu(np.array([number]))[0] == pytest.approx(expected, rel=1e-11, abs=1e-12)


def test_a_table_of_silu() -> None:
    table = Table.silu(np.array([-80, 200, 10, 256 * 50], np.int32), "t")
    numbers = np.array([[-500.0, -80, -13, 0, 1, 25, 200, 201, 1e9]], np.float32)
    found = np.empty_like(numbers)
    table.look_up(numbers.copy(), found)
    for number, value in zip(numbers[0], found[0], strict=True):
        x = min(max(number, -80), 200) / 10
        assert value == round(50 * x / (1 + math.exp(-x)))
    assert table.range == Range(-14, 1000)


@pytest.mark.parametrize(
    "spec",
    [
        (1, 5, 10, 256),
        (-5, -1, 10, 256),
        (-40_000, 40_000, 10, 256),
        (-(2**31), 2**31 - 1, 10, 256),
        (-5, 5, 0, 256),
        (-5, 5, 10, 0),
        (-5, 5, 10, -256),
        (-5, 5, 2**24 + 1, 256),
        (0, 1000, 1, 256 * 100),
    ],
)
def test_a_table_out_of_range_is_refused(spec: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="table t"):
        Table.silu(np.array(spec, np.int32), "t")


def test_a_scaling_rounds_and_clips() -> None:
    scaling = Scaling(np.array([2**24, 100], np.int32), "s")
    numbers = np.array([0, 1, 2, 3, 6, -6, 399, 400, 402, 1e9, -1e9], np.float32)
    expected = [0, 0, 0, 1, 2, -2, 100, 100, 100, 100, -100]
    assert scaling(numbers).tolist() == expected
    assert scaling.range == symmetric(100)


@pytest.mark.parametrize("spec", [(0, 10), (-1, 10), (1, 0), (1, 2**15)])
def test_a_scaling_out_of_range_is_refused(spec: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match="scaling s"):
        Scaling(np.array(spec, np.int32), "s")
