"""The prior once more, cell by cell in int64: what its network and its frequencies have to give."""

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.frequencies import POWERS
from oasisvq.codec.prior import Pass, Prior, PriorConfig

Arrays = dict[str, NDArray[np.generic]]
Integers = NDArray[np.int64]


def plain_layer(arrays: Arrays, name: str, inputs: Integers, block: int | None = None) -> Integers:
    weight, scale, bias = (
        arrays[f"{name}.{part}"].astype(np.int64) for part in ("weight", "scale", "bias")
    )
    if block is not None:
        weight, scale, bias = weight[block], scale[block], bias[block]
    sums = np.einsum("oi,i->o", weight, inputs)
    return np.floor_divide(sums * scale + 2**23, 2**24) + bias


def plain_cell(
    config: PriorConfig, arrays: Arrays, indices: Integers, step: Pass, row: int, column: int
) -> list[int]:
    """What is seen of one cell of one grid (L, h, w)."""
    level, seen = step.level, []
    name = f"level{level + 1}"
    _, height, width = indices.shape
    if not (0 <= row < height and 0 <= column < width):
        return [0] * config.cell_features(level)
    if level:
        for feature in range(config.features):
            summed = sum(
                int(arrays[f"{name}.lower"][below, indices[below, row, column], feature])
                for below in range(level)
            )
            seen.append(min(max(summed, -127), 127))
    if config.passes[level] > 1:
        known = bool(step.known[row, column])
        code = arrays[f"{name}.current"][indices[level, row, column]].tolist()
        seen += [max(int(each), -127) if known else 0 for each in code]
        seen.append(32 if known else 0)
    return [*seen, 32]


def plain_logits(
    config: PriorConfig, arrays: Arrays, grids: NDArray[np.uint16], kinds: list[int], step: Pass
) -> Integers:
    """(B·n, K), by loops alone."""
    name, reach = f"level{step.level + 1}", config.reach[step.level]
    position = arrays[f"{name}.position"]
    rows = []
    for grid, kind in zip(grids.astype(np.int64), kinds, strict=True):
        above = (grid.shape[1] - position.shape[0]) // 2
        left = (grid.shape[2] - position.shape[1]) // 2
        for row, column in zip(step.rows.tolist(), step.columns.tolist(), strict=True):
            seen: list[int] = []
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    seen += plain_cell(config, arrays, grid, step, row + down, column + right)
            nearest_row = min(max(row - above, 0), position.shape[0] - 1)
            nearest_column = min(max(column - left, 0), position.shape[1] - 1)
            seen += position[nearest_row, nearest_column].tolist()
            seen += arrays[f"{name}.kind"][kind].tolist()
            inputs = np.maximum(np.array(seen, dtype=np.int64), -127)
            stream = np.clip(plain_layer(arrays, f"{name}.input", inputs), -32_767, 32_767)
            for block in range(config.blocks[step.level]):
                entering = np.clip((stream + 2) // 4, 0, 127)
                inner = plain_layer(arrays, f"{name}.first", entering, block)
                added = plain_layer(arrays, f"{name}.second", np.clip(inner, 0, 127), block)
                stream = np.clip(stream + added, -32_767, 32_767)
            leaving = np.clip((stream + 2) // 4, 0, 127)
            rows.append(plain_layer(arrays, f"{name}.output", leaving))
    return np.stack(rows)


def assert_equals_plain(prior: Prior, indices: NDArray[np.uint16], kinds: list[int]) -> None:
    levels, height, width = indices.shape[1:]
    for step in prior.schedule(levels, height, width):
        found = prior.logits(indices, np.array(kinds), step)
        expected = plain_logits(prior.config, prior.arrays, indices, kinds, step)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)


def plain_frequencies(logits: list[int]) -> list[int]:
    largest = max(logits)
    shares = [int(POWERS[min(largest - each, 255)]) for each in logits]
    whole, total = 2**24 - len(logits), sum(shares)
    found = [share * whole // total for share in shares]
    found[found.index(max(found))] += whole - sum(found)
    return found
