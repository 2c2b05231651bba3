"""The presets `seed`, `small` and `base`; the codec of volumes and the prior that go with a codec."""

import dataclasses

from oasisvq.codec.config import ModelConfig
from oasisvq.codec.pixels import smallest_centred_window
from oasisvq.codec.prior import PriorConfig
from oasisvq.data.dataset import Dataset

VOLUMES_LEVELS = 6
EXPECTED = 3  # side in cells of the window of expected latents that the prior of volumes sees


@dataclasses.dataclass(frozen=True)
class Preset:
    """A model, and how it is trained; the window follows from the data."""

    purpose: str
    size: int  # side in pixels of the slices that are prepared from a raw folder
    stride: int
    encoder_channels: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_channels: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    code_dim: int
    codebook_size: int
    levels: int
    default_levels: int
    epochs: int
    batch_size: int
    learning_rate: float
    prior_epochs: int
    volumes_epochs: int
    residue_epochs: int
    prior_batch_size: int | None = None  # if None, chosen to fit the data


PRESETS = {
    "seed": Preset(
        purpose="the classic set-up: 80×80 pixels, one level, 10 epochs",
        size=80,
        stride=2,
        encoder_channels=(48,),
        encoder_blocks=(1,),
        decoder_channels=(48,),
        decoder_blocks=(2,),
        code_dim=16,
        codebook_size=128,
        levels=1,
        default_levels=1,
        epochs=10,
        batch_size=32,
        learning_rate=1e-3,
        prior_epochs=10,
        volumes_epochs=0,
        residue_epochs=2,
    ),
    "small": Preset(
        purpose="for a CPU; 5,760 slices take some hours",
        size=256,
        stride=8,
        encoder_channels=(64, 128),
        encoder_blocks=(3, 4),
        decoder_channels=(128, 64, 32),
        decoder_blocks=(6, 5, 1),
        code_dim=32,
        codebook_size=256,
        levels=8,
        default_levels=2,
        epochs=7,
        batch_size=16,
        learning_rate=1e-3,
        prior_epochs=10,
        volumes_epochs=4,
        residue_epochs=12,
    ),
    "base": Preset(
        purpose="for a GPU; as small, with half as many channels again",
        size=256,
        stride=8,
        encoder_channels=(96, 192),
        encoder_blocks=(3, 4),
        decoder_channels=(192, 96, 48),
        decoder_blocks=(6, 5, 1),
        code_dim=32,
        codebook_size=256,
        levels=8,
        default_levels=2,
        epochs=60,
        batch_size=64,
        learning_rate=1e-3,
        prior_epochs=100,
        volumes_epochs=30,
        residue_epochs=100,
    ),
}


def model_config(preset: Preset, dataset: Dataset) -> ModelConfig:
    """The config of the preset's model, with the smallest window that holds all training content."""
    window = smallest_centred_window(
        (dataset.size, dataset.size), dataset.splits["train"].content, preset.stride
    )
    shared = {field.name for field in dataclasses.fields(ModelConfig)} - {"window", "context"}
    return ModelConfig(window=window, **{name: getattr(preset, name) for name in sorted(shared)})


def volumes_config(codec: ModelConfig) -> ModelConfig:
    """The codec of volumes that goes with one of images: the same networks, with contexts.

    It has at most 6 levels: given the previous slice, further levels gain less than they cost.
    """
    levels = min(VOLUMES_LEVELS, codec.levels)
    default_levels = min(codec.default_levels, levels)
    return dataclasses.replace(codec, levels=levels, default_levels=default_levels, context=1)


def prior_config(config: ModelConfig) -> PriorConfig:
    """The prior for a codec: most of it is for the first level, where neighbours tell most.

    Further levels code what is left over. It depends on the levels below, but hardly on its neighbours,
    so two passes and a small network are enough.
    """
    further = config.levels - 1
    return PriorConfig(
        codebook_size=config.codebook_size,
        grid=(config.window[0] // config.stride, config.window[1] // config.stride),
        code_dim=config.code_dim,
        features=config.code_dim,
        position_features=16,
        kinds=256,
        kind_features=16,
        hidden=(256, 160, 128, *(96,) * further)[: config.levels],
        blocks=(2,) + (1,) * further,
        reach=(3,) + (1,) * further,
        passes=(12,) + (2,) * further,
        expected=EXPECTED if config.context else 0,
    )
