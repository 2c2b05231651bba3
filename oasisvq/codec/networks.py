"""Pixels <-> latents: the encoder and decoder networks, in the integers of `exact.py`.

Shapes: B batch, C channels, H×W image, h×w grid (h = H / stride), D code dimension.

Both networks are plain residual convolutions without normalisation layers. Pixels are folded
into channels before the first convolution and unfolded after the last, so that no convolution runs
at full resolution and most of the arithmetic is on the small grids.

A *stage* has one resolution. A stream, in 1024ths, runs through it, and each block adds
conv(silu(conv(silu(stream)))) to it. Between stages 2×2 cells become one, or one becomes 2×2.

The arrays of a model, all int32 except the weights, which are int8:

| array | shape | |
|---|---|---|
| `encoder.input` | (C, 3, 3, patch²) | a layer (`layer_shapes` in `exact.py`), as all to `context` |
| `encoder.stage<n>.down` | (C, 2, 2, finer C) | to each further stage, n from 2 |
| `<network>.stage<n>.block<m>.first`, `.second` | (C, 3, 3, C) | n and m from 1 |
| `encoder.output` | (D, C) | |
| `decoder.input` | (C, 3, 3, D) | |
| `decoder.stage<n>.up` | (2·2·finer C, C) | to each further stage, n from 2 |
| `decoder.output` | (patch², 3, 3, C) | |
| `<network>.stage<n>.context` | (C, 3, 3, side²) | for the previous slice, if the config has a context |
| `<layer>.table` | (4,) | silu before `first`, `second` and the output layer of a network |
| `<layer>.scaling` | (2,) | scales the inputs of `down`, `up` and `decoder.input` |

A *context* is the previous slice as it was decoded, scaled as pixels of the slice at hand. Each stage
sees it at its own resolution, with side×side pixels folded into a cell, and adds the output of its
context layer to the stream before the first block. The context of a slice without a previous one is 0.

Channels that cells are folded into, or unfolded from, are in the order row, column, C.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.config import ModelConfig
from oasisvq.codec.exact import (
    LATENT_UNITS,
    Layer,
    Maps,
    Numbers,
    Range,
    Scaling,
    Table,
    layer_shapes,
)
from oasisvq.errors import ModelError

Arrays = Mapping[str, NDArray[Any]]
Shapes = dict[str, tuple[tuple[int, ...], type]]
Steps = NDArray[np.integer[Any]]

PIXEL_STEPS = 2047  # pixels as the encoder sees them: 0 is the darkest value, 2047 the brightest
DECODED_STEPS = 65_535  # the decoder's output for the brightest value
STREAM_UNITS = 1024  # steps to 1 of a stream, and of the latents before they are normalised
LARGEST_LATENT = 2**20  # before they are normalised
_SMALLEST_SQUARE = 1.0  # added to their mean square, about 1e-6 · 1024²


def network_shapes(config: ModelConfig) -> Shapes:
    """Name -> shape and type of the arrays of encoder and decoder."""
    encoder, decoder = config.encoder_channels, config.decoder_channels
    shapes = layer_shapes("encoder.input", (encoder[0], 3, 3, patch_of(config, encoder) ** 2))
    for stage, (finer, coarser) in enumerate(pairwise(encoder), start=2):
        shapes |= _scaled(f"encoder.stage{stage}.down", (coarser, 2, 2, finer))
    shapes |= _block_shapes("encoder", encoder, config.encoder_blocks)
    shapes |= _after_silu("encoder.output", (config.code_dim, encoder[-1]))
    shapes |= _scaled("decoder.input", (decoder[0], 3, 3, config.code_dim))
    for stage, (coarser, finer) in enumerate(pairwise(decoder), start=2):
        shapes |= _scaled(f"decoder.stage{stage}.up", (4 * finer, coarser))
    shapes |= _block_shapes("decoder", decoder, config.decoder_blocks)
    shapes |= _after_silu("decoder.output", (patch_of(config, decoder) ** 2, 3, 3, decoder[-1]))
    for network, channels in (("encoder", encoder), ("decoder", decoder)) if config.context else ():
        for stage, (width, side) in enumerate(
            zip(channels, sides_of(config, network), strict=True), start=1
        ):
            shapes |= layer_shapes(f"{network}.stage{stage}.context", (width, 3, 3, side**2))
    return shapes


def sides_of(config: ModelConfig, network: str) -> list[int]:
    """Side in pixels of a cell in each stage of the `encoder` or the `decoder`."""
    if network == "encoder":
        stages = len(config.encoder_channels)
        return [config.stride // 2 ** (stages - 1 - stage) for stage in range(stages)]
    return [config.stride // 2**stage for stage in range(len(config.decoder_channels))]


def patch_of(config: ModelConfig, channels: tuple[int, ...]) -> int:
    """Side in pixels of the patch that is folded into channels, for a network with these stages."""
    return int(config.stride // 2 ** (len(channels) - 1))


def _block_shapes(network: str, channels: tuple[int, ...], blocks: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for stage, (width, count) in enumerate(zip(channels, blocks, strict=True), start=1):
        for block in range(1, count + 1):
            for half in ("first", "second"):
                name = f"{network}.stage{stage}.block{block}.{half}"
                shapes |= _after_silu(name, (width, 3, 3, width))
    return shapes


def _scaled(name: str, shape: tuple[int, ...]) -> Shapes:
    return layer_shapes(name, shape) | {f"{name}.scaling": ((2,), np.int32)}


def _after_silu(name: str, shape: tuple[int, ...]) -> Shapes:
    return layer_shapes(name, shape) | {f"{name}.table": ((4,), np.int32)}


class _Activated:
    """A convolution or dense layer after silu: numbers -> table -> layer."""

    def __init__(self, arrays: Arrays, name: str, units: int | None = None) -> None:
        spec = arrays[f"{name}.table"]
        if units is not None and int(spec[2]) != units:
            raise ModelError(f"table {name} with units {int(spec[2])}, expected {units}")
        self.table = Table.silu(spec, name)
        self.layer = Layer.of(arrays, name, self.table.range)


class _Scaled:
    """A layer of scaled numbers."""

    def __init__(self, arrays: Arrays, name: str) -> None:
        self.scaling = Scaling(arrays[f"{name}.scaling"], name)
        self.layer = Layer.of(arrays, name, self.scaling.range)


class _Block:
    """stream + conv(silu(conv(silu(stream))))."""

    def __init__(self, arrays: Arrays, name: str) -> None:
        self._first = _Activated(arrays, f"{name}.first", STREAM_UNITS)
        self._second = _Activated(arrays, f"{name}.second")

    def add_to(self, stream: Numbers, maps: Maps, outer: Numbers, inner: Numbers) -> None:
        """Change a stream (p, C) in place; `outer` and `inner` are of its size, with a margin of 0."""
        activate(self._first.table, stream, maps, outer)
        table = self._second.table

        def keep(cells: slice, numbers: Numbers) -> None:
            table.look_up(numbers, inner[cells])

        def add(cells: slice, numbers: Numbers) -> None:
            stream[cells] += numbers

        self._first.layer.convolve(maps, outer, keep)
        maps.clear_margin(inner)
        self._second.layer.convolve(maps, inner, add)


def activate(table: Table, stream: Numbers, maps: Maps, out: Numbers) -> None:
    """Write the values of a table at the cells of a stream to `out`, with a margin of 0."""
    step = max(1, 2**16 // stream.shape[1])
    for start in range(maps.start, maps.stop, step):
        cells = slice(start, min(start + step, maps.stop))
        table.look_up(stream[cells].copy(), out[cells])
    maps.clear_margin(out)


class _Stage:
    """The blocks of one resolution."""

    def __init__(self, arrays: Arrays, name: str, blocks: int) -> None:
        self._blocks = [_Block(arrays, f"{name}.block{block + 1}") for block in range(blocks)]

    def run(self, stream: Numbers, maps: Maps) -> None:
        """Change a stream (p, C) in place."""
        if not self._blocks:
            return
        outer, inner = np.zeros_like(stream), np.zeros_like(stream)
        for block in self._blocks:
            block.add_to(stream, maps, outer, inner)


def _convolved(layer: Layer, maps: Maps, cells: Numbers) -> Numbers:
    """Flat cells (p, C) -> flat cells (p, outputs); the margin has no meaning."""
    results = maps.zeros(layer.outputs)

    def keep(places: slice, numbers: Numbers) -> None:
        results[places] = numbers

    layer.convolve(maps, cells, keep)
    return results


def _folded(grid: NDArray[Any], side: int) -> NDArray[Any]:
    """(B, h·side, w·side, C) -> (B, h, w, side·side·C)."""
    batch, height, width, channels = grid.shape
    cells = grid.reshape(batch, height // side, side, width // side, side, channels)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // side, width // side, -1)


def _unfolded(grid: NDArray[Any], side: int) -> NDArray[Any]:
    """The inverse of `_folded`."""
    batch, height, width, channels = grid.shape
    cells = grid.reshape(batch, height, width, side, side, channels // side**2)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * side, width * side, -1)


class _Contexts:
    """What the previous slice adds to the stream of each stage; nothing in a model without contexts."""

    def __init__(self, config: ModelConfig, arrays: Arrays, network: str) -> None:
        self._sides = sides_of(config, network) if config.context else []
        self._layers = [
            Layer.of(arrays, f"{network}.stage{stage}.context", Range(0, PIXEL_STEPS))
            for stage in range(1, len(self._sides) + 1)
        ]

    def add_to(self, stream: Numbers, maps: Maps, stage: int, context: Steps | None) -> None:
        """Change the stream (p, C) of a stage, from 0, by a context (B, H, W) in 0..PIXEL_STEPS."""
        if not self._layers:
            return
        if context is None:
            stream += self._layers[stage].bias
            return
        grid = maps.flat(_folded(context[..., None], self._sides[stage]))

        def add(cells: slice, numbers: Numbers) -> None:
            stream[cells] += numbers

        self._layers[stage].convolve(maps, grid, add)


class Encoder:
    """Pixels -> latents, each with a root mean square of 1.

    If their size were free, latents would grow in training faster than the moving averages of the
    codebooks follow: the commitment loss would run away, and most codes would die.
    """

    def __init__(self, config: ModelConfig, arrays: Arrays) -> None:
        """Take the arrays in `network_shapes`.

        Raises:
            ModelError: a number is out of range, or a sum would not be exact.
        """
        self._patch = patch_of(config, config.encoder_channels)
        self._input = Layer.of(arrays, "encoder.input", Range(0, PIXEL_STEPS))
        names = [f"encoder.stage{stage + 1}" for stage in range(len(config.encoder_channels))]
        self._downs = [_Scaled(arrays, f"{name}.down") for name in names[1:]]
        self._stages = [
            _Stage(arrays, name, blocks)
            for name, blocks in zip(names, config.encoder_blocks, strict=True)
        ]
        self._output = _Activated(arrays, "encoder.output", STREAM_UNITS)
        self._contexts = _Contexts(config, arrays, "encoder")

    def __call__(self, pixels: Steps, context: Steps | None = None) -> Numbers:
        """Pixels (B, H, W) in 0..PIXEL_STEPS -> latents (B, h, w, D) in 256ths.

        Args:
            pixels: of the slices.
            context: the previous slice of each, likewise; None if there is none.
        """
        grid = _folded(pixels[..., None], self._patch)
        maps = Maps(*grid.shape[:3])
        stream = _convolved(self._input, maps, maps.flat(grid))
        self._contexts.add_to(stream, maps, 0, context)
        self._stages[0].run(stream, maps)
        for number, (down, stage) in enumerate(zip(self._downs, self._stages[1:], strict=True), start=1):
            grid = down.scaling(_folded(maps.grid(stream), 2))
            maps = Maps(*grid.shape[:3])
            stream = maps.flat(down.layer(grid.reshape(-1, grid.shape[3])).reshape(*grid.shape[:3], -1))
            self._contexts.add_to(stream, maps, number, context)
            stage.run(stream, maps)
        cells = np.zeros_like(stream)
        activate(self._output.table, stream, maps, cells)
        return _normalised(maps.grid(self._output.layer(cells)))


def _normalised(latents: Numbers) -> Numbers:
    """Latents (..., D) in any unit -> latents with a mean square of 1, in 256ths.

    In float64 the sum of squares is exact, and divisions and square roots are rounded correctly.
    """
    numbers = np.clip(latents, -LARGEST_LATENT, LARGEST_LATENT).astype(np.float64)
    square = np.square(numbers).sum(-1, keepdims=True) / numbers.shape[-1]
    size = np.sqrt(square + _SMALLEST_SQUARE)
    normalised: Numbers = np.rint(numbers * LATENT_UNITS / size).astype(np.float32)
    return normalised


class Decoder:
    """Latents -> pixels."""

    def __init__(self, config: ModelConfig, arrays: Arrays) -> None:
        """Take the arrays in `network_shapes`.

        Raises:
            ModelError: a number is out of range, or a sum would not be exact.
        """
        self._patch = patch_of(config, config.decoder_channels)
        self._input = _Scaled(arrays, "decoder.input")
        names = [f"decoder.stage{stage + 1}" for stage in range(len(config.decoder_channels))]
        self._ups = [_Scaled(arrays, f"{name}.up") for name in names[1:]]
        self._stages = [
            _Stage(arrays, name, blocks)
            for name, blocks in zip(names, config.decoder_blocks, strict=True)
        ]
        self._output = _Activated(arrays, "decoder.output", STREAM_UNITS)
        self._contexts = _Contexts(config, arrays, "decoder")

    def __call__(self, latents: Numbers, context: Steps | None = None) -> NDArray[np.uint16]:
        """Latents (B, h, w, D) in 256ths -> pixels (B, H, W) in 0..DECODED_STEPS.

        Args:
            latents: of the slices.
            context: the previous slice of each, (B, H, W) in 0..PIXEL_STEPS; None if there is none.
        """
        maps = Maps(*latents.shape[:3])
        stream = _convolved(self._input.layer, maps, maps.flat(self._input.scaling(latents)))
        self._contexts.add_to(stream, maps, 0, context)
        self._stages[0].run(stream, maps)
        for number, (up, stage) in enumerate(zip(self._ups, self._stages[1:], strict=True), start=1):
            grid = up.scaling(maps.grid(stream))
            shape = grid.shape[:3]
            grid = _unfolded(up.layer(grid.reshape(-1, grid.shape[3])).reshape(*shape, -1), 2)
            maps = Maps(*grid.shape[:3])
            stream = maps.flat(grid)
            self._contexts.add_to(stream, maps, number, context)
            stage.run(stream, maps)
        cells = np.zeros_like(stream)
        activate(self._output.table, stream, maps, cells)
        pixels = maps.grid(_convolved(self._output.layer, maps, cells))
        return _unfolded(np.clip(pixels, 0, DECODED_STEPS).astype(np.uint16), self._patch)[..., 0]
