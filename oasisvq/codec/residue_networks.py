"""The networks of residues: inputs of n places -> outputs. Never imports torch.

Shapes: n places, I inputs, H hidden. Inputs, arrays and units are those of `residue_config.py`. Layers
are those of `exact.py`, so every machine computes the same.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.exact import Arrays, Layer, Numbers, Range, refuse_other_arrays, symmetric
from oasisvq.codec.residue_config import (
    ACTIVATION_MAX,
    ACTIVATION_UNITS,
    INPUT_MAX,
    STREAM_UNITS,
    ResidueConfig,
    SupportConfig,
)

Used = NDArray[np.bool_]  # (I,) which inputs may be other than 0

_INPUTS = symmetric(INPUT_MAX)
_ACTIVATIONS = Range(0, ACTIVATION_MAX)
_PLACES_AT_ONCE = 1024  # their activations stay in the cache of one core


class ResidueNetwork:
    """Predicts bins, as mixtures.

    Attributes:
        config: its config.
        arrays: by name, as the model file holds them.
    """

    def __init__(self, config: ResidueConfig, arrays: Arrays) -> None:
        """Take the arrays that `config` asks for.

        Raises:
            ModelError: the arrays are others, out of range, or so large that a sum could be inexact.
        """
        refuse_other_arrays("residue", arrays, config.array_shapes())
        self.config, self.arrays = config, dict(arrays)
        self._input = Layer.of(arrays, "input", _INPUTS)
        self._blocks = [
            tuple(Layer.of(arrays, f"block{block}.{half}", _ACTIVATIONS) for half in ("first", "second"))
            for block in range(1, config.blocks + 1)
        ]
        self._output = Layer.of(arrays, "output", _INPUTS)

    def seeing(self, used: Used) -> "Seeing":
        """The network for some of the inputs; the others are 0."""
        kept = np.flatnonzero(np.concatenate([np.ones(self.config.hidden, np.bool_), used]))
        return Seeing(
            _with_inputs(self._input, np.flatnonzero(used)),
            self._blocks,
            _with_inputs(self._output, kept),
        )


@dataclass(frozen=True)
class Seeing:
    """The layers, for the inputs that are used."""

    first: Layer
    blocks: list[tuple[Layer, ...]]
    output: Layer

    def __call__(self, inputs: Numbers) -> Numbers:
        """Inputs (n, used ones) -> (n, 3 · components)."""
        results = np.empty((len(inputs), self.output.outputs), np.float32)
        hidden = self.first.outputs
        for start in range(0, len(inputs), _PLACES_AT_ONCE):
            seen = inputs[start : start + _PLACES_AT_ONCE]
            stream = self.first(seen)
            for first, second in self.blocks:
                inner = first(_activations(stream))
                np.clip(inner, 0, ACTIVATION_MAX, out=inner)
                stream += second(inner)
            last = np.empty((len(seen), hidden + seen.shape[1]), np.float32)
            last[:, :hidden], last[:, hidden:] = _activations(stream), seen
            results[start : start + len(seen)] = self.output(last)
        return results


class SupportNetwork:
    """Predicts whether a voxel is ground.

    Attributes:
        config: its config.
        arrays: by name, as the model file holds them.
    """

    def __init__(self, config: SupportConfig, arrays: Arrays) -> None:
        """Take the arrays that `config` asks for.

        Raises:
            ModelError: the arrays are others, out of range, or so large that a sum could be inexact.
        """
        refuse_other_arrays("support", arrays, config.array_shapes())
        self.config, self.arrays = config, dict(arrays)
        self._input = Layer.of(arrays, "input", _INPUTS)
        self._layers = [Layer.of(arrays, name, _ACTIVATIONS) for name in ("hidden", "output")]

    def __call__(self, inputs: Numbers) -> NDArray[np.int64]:
        """Inputs (n, I) -> logits (n,) of not being ground, in steps of `questions.py`."""
        numbers = self._input(inputs)
        for layer in self._layers:
            numbers = layer(np.clip(numbers, 0, ACTIVATION_MAX))
        return numbers[:, 0].astype(np.int64)


def _activations(stream: Numbers) -> Numbers:
    """Rectified, from 0 to 127 in 16ths."""
    numbers = stream * np.float32(ACTIVATION_UNITS / STREAM_UNITS)
    np.rint(numbers, out=numbers)
    return np.clip(numbers, 0, ACTIVATION_MAX, out=numbers)


def _with_inputs(layer: Layer, kept: NDArray[np.intp]) -> Layer:
    return replace(layer, weight=np.ascontiguousarray(layer.weight[:, kept]))
