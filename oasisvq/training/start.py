"""A training that starts from the weights of another model, with blocks and levels added if asked."""

from typing import NamedTuple

import torch
from torch import nn

from oasisvq.errors import TrainingError
from oasisvq.training.networks import ResidualBlock
from oasisvq.training.weights import Model

_SAME = ("stride", "encoder_channels", "decoder_channels", "code_dim", "codebook_size")
_AT_LEAST = ("encoder_blocks", "decoder_blocks", "levels")


@torch.no_grad()
def copy_weights(source: Model, target: Model) -> None:
    """Copy everything that `source` has learned to `target`.

    Residual blocks that only `target` has become the identity, so its networks compute the same as those
    of `source`. Codebooks of further levels are left unchanged.

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
            new_stage.layer.load_state_dict(old_stage.layer.state_dict())
            for old_block, new_block in zip(old_stage.blocks, new_stage.blocks, strict=False):
                new_block.load_state_dict(old_block.state_dict())
            for added in new_stage.blocks[len(old_stage.blocks) :]:
                nn.init.zeros_(added.second.weight)
                if added.second.bias is not None:
                    nn.init.zeros_(added.second.bias)
    target.quantizer.codebooks[: source.config.levels] = source.quantizer.codebooks


@torch.no_grad()
def copy_images_codec(source: Model, target: Model) -> None:
    """Copy everything that a codec of images has learned to the codec of volumes that starts from it.

    The latter has the same layers; contexts beside them, which add nothing at first; and no more levels.
    """
    for old, new in ((source.encoder, target.encoder), (source.decoder, target.decoder)):
        new.layers.load_state_dict(old.layers.state_dict())
    target.quantizer.codebooks.copy_(source.quantizer.codebooks[: target.config.levels])


def _covers(new: int | tuple[int, ...], old: int | tuple[int, ...]) -> bool:
    if isinstance(new, tuple) and isinstance(old, tuple):
        return all(n >= o for n, o in zip(new, old, strict=True))
    return new >= old  # type: ignore[operator]


class _Stage(NamedTuple):
    """A layer and the residual blocks that follow it."""

    layer: nn.Module
    blocks: list[ResidualBlock]


def _stages(layers: nn.Sequential) -> list[_Stage]:
    """The layers of a network; with equal channels two networks have as many stages."""
    stages: list[_Stage] = []
    for layer in layers:
        if isinstance(layer, ResidualBlock):
            stages[-1].blocks.append(layer)
        else:
            stages.append(_Stage(layer, []))
    return stages
