"""A training that starts from another model: its weights, with blocks and levels added where asked."""

import torch
from torch import nn

from oasisvq.codec.networks import ResidualBlock
from oasisvq.codec.weights import Model
from oasisvq.errors import TrainingError

_SAME = ("stride", "encoder_channels", "decoder_channels", "code_dim", "codebook_size")
_AT_LEAST = ("encoder_blocks", "decoder_blocks", "levels")


@torch.no_grad()
def copy_weights(source: Model, target: Model) -> None:
    """Give `target` all that `source` has learned.

    Residual blocks that only `target` has stay as they are drawn, which is the identity, so the
    networks compute what those of `source` do. Codebooks of further levels are left alone.

    Raises:
        TrainingError: `target` has other channels, stride or codes, or fewer blocks or levels.
    """
    for name in _SAME + _AT_LEAST:
        old, new = getattr(source.config, name), getattr(target.config, name)
        if name in _SAME and old != new:
            raise TrainingError(f"the model to start from has {name} {old}, this training {new}")
        if name in _AT_LEAST and not _covers(new, old):
            raise TrainingError(
                f"the model to start from has {name} {old}, more than the {new} of this training"
            )
    for old_network, new_network in (
        (source.encoder, target.encoder),
        (source.decoder, target.decoder),
    ):
        old_stages, new_stages = _stages(old_network.layers), _stages(new_network.layers)
        for old_stage, new_stage in zip(old_stages, new_stages, strict=True):
            for old_layer, new_layer in zip(old_stage, new_stage, strict=False):
                new_layer.load_state_dict(old_layer.state_dict())
    target.quantizer.codebooks[: source.config.levels] = source.quantizer.codebooks


def _covers(new: int | tuple[int, ...], old: int | tuple[int, ...]) -> bool:
    if isinstance(new, tuple) and isinstance(old, tuple):
        return all(n >= o for n, o in zip(new, old, strict=True))
    return new >= old  # type: ignore[operator]


def _stages(layers: nn.Sequential) -> list[list[nn.Module]]:
    """Layers cut wherever blocks and other layers meet, so that added blocks come last in theirs."""
    stages: list[list[nn.Module]] = [[]]
    were_blocks = False
    for layer in layers:
        are_blocks = isinstance(layer, ResidualBlock)
        if are_blocks != were_blocks:
            stages.append([])
            were_blocks = are_blocks
        stages[-1].append(layer)
    return stages
