"""One step of the codec's training: pixels in, losses out.

Shapes: B batch of this process, H×W window, L levels.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from oasisvq.codec.config import ModelConfig
from oasisvq.data.devices import send
from oasisvq.training.codebooks import CodebookLearner, Quantized
from oasisvq.training.imitation import Imitation
from oasisvq.training.losses import reconstruction_losses
from oasisvq.training.networks import clamp_straight_through
from oasisvq.training.request import NOTHING_FOLLOWS, Following
from oasisvq.training.weights import Model

Compiler = str | Callable[..., Any]  # a backend of torch.compile


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a codec is trained.

    Attributes:
        model: config of the model.
        epochs: passes over the training split.
        batch_size: images a step, over all processes.
        learning_rate: the highest one, after the warm-up.
        mse: weight of the mean squared error, in which large errors count more than small ones.
        level_weight: a slice that keeps k levels has the weight k to this power. Its loss falls about by
            the same power, so a relative gain counts the same at every number of levels.
        commitment: weight of the commitment loss.
        seed: of weights, order and every draw.
        precision: `float32`, or `bfloat16` for autocast of the networks (the quantizer and the
            losses stay in float32).
        started_from: fingerprint, in hexadecimal, of the model whose weights it starts from.
        imitating_from: share of the steps after which the integers of the model file are imitated.
        following: the stages after it.
    """

    model: ModelConfig
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    precision: str
    mse: float = 30.0
    level_weight: float = 0.75
    commitment: float = 0.25
    started_from: str | None = None
    imitating_from: float = 0.75
    following: Following = NOTHING_FOLLOWS


class StepLosses(NamedTuple):
    """The loss of a step and its parts, all scalar.

    The parts of pixels are means over slices, weighted by the levels that these keep; the commitment is
    a plain mean.
    """

    total: Tensor
    ssim_loss: Tensor
    l1: Tensor
    mse: Tensor
    commitment: Tensor


class Passed(NamedTuple):
    """The results of a step's pass through the model.

    Attributes:
        losses: of the pass.
        quantized: what the codebooks learn from; None before there is a quantizer.
        reconstruction: (B, 1, H, W) in [0, 1].
    """

    losses: StepLosses
    quantized: Quantized | None
    reconstruction: Tensor


class TrainingStep(nn.Module):
    """Pixels -> losses: one pass through the whole model."""

    def __init__(self, model: Model, learner: CodebookLearner, config: TrainingConfig) -> None:
        super().__init__()
        self.model = model
        self.learner = learner
        self.config = config
        self.imitation: list[Imitation] = []  # none yet; in a list, for its parameters are the model's
        weights = torch.arange(1.0, config.model.levels + 1) ** config.level_weight
        self.weights = weights / weights.mean()  # (L,), on the CPU, as the numbers of levels kept
        # functions rather than modules, which would be counted twice
        self.encode: Callable[[Tensor, Tensor | None], Tensor] = model.encoder.forward
        self.decode: Callable[[Tensor, Tensor | None], Tensor] = model.decoder.forward

    def compile_networks(self, pixels: Tensor, context: Tensor | None, backend: Compiler) -> str:
        """Compile the networks for the one shape that steps have; other calls do not use the result.

        The rest of a step already is a few large operations.

        Args:
            pixels: (B, 1, H, W) for a trial.
            context: likewise, for a model with contexts.
            backend: of torch.compile.

        Returns:
            Empty if all went well; else what went wrong, in one line: the networks stay as they were.
        """
        plain, buffers = (self.encode, self.decode), [each.clone() for each in self.model.buffers()]
        self.encode, self.decode = (
            torch.compile(network, dynamic=False, fullgraph=True, backend=backend) for network in plain
        )
        try:
            with self.autocast():
                decoded = self.decode(self.encode(pixels, context).float(), context)
            decoded.float().sum().backward()
        except Exception as error:  # compilers raise anything, mostly for lack of a C compiler
            self.encode, self.decode = plain
            said, _, _ = str(error).strip().partition("\n\n")  # hints on debugging follow
            return " ".join(said.split()) or type(error).__name__
        finally:
            self.zero_grad(set_to_none=True)
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)  # undo what gauges have seen in the trial
        return ""

    def forward(
        self, pixels: Tensor, kept: Tensor, quantizing: bool, context: Tensor | None = None
    ) -> Passed:
        """One pass.

        Args:
            pixels: (B, 1, H, W).
            kept: (B,) levels, on the CPU.
            quantizing: whether latents are quantized.
            context: (B, 1, H, W) previous slices, for a model with contexts.
        """
        encode, decode = self.encode, self.decode
        if self.imitation:
            encode, decode = self.imitation[0].encoder, self.imitation[0].decoder
        with self.autocast():
            latents = encode(pixels, context)
        latents = latents.float()
        quantized = self.learner.quantize(latents, kept) if quantizing else None
        commitment = quantized.commitment if quantized else latents.new_zeros(())
        with self.autocast():
            decoded = decode(quantized.latents if quantized else latents, context)
        reconstruction = clamp_straight_through(decoded.float())
        weights = self.weights[kept - 1] if quantizing else torch.ones(len(kept))
        weights = send(weights, pixels.device)
        ssim_loss, l1, mse = (
            (weights * part).mean() for part in reconstruction_losses(pixels, reconstruction)
        )
        total = ssim_loss + l1 + self.config.mse * mse + self.config.commitment * commitment
        losses = StepLosses(total, ssim_loss, l1, mse, commitment)
        return Passed(losses, quantized, reconstruction.detach())

    @property
    def networks(self) -> Model | Imitation:
        """The networks that are trained now: in floating point, or as the integers they will become."""
        return self.imitation[0] if self.imitation else self.model

    def autocast(self) -> torch.autocast:
        """The precision of the networks."""
        device = self.learner.world.device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.config.precision == "bfloat16")


def levels_to_keep(batch: int, levels: int, generator: torch.Generator) -> Tensor:
    """(B,) numbers of levels 1..L, each equally often, or once more if L does not divide B.

    They follow one another in a circle that starts at random. So each process's share of the batch is
    equally balanced, and the shapes of a step do not depend on chance, but the images at each place do.
    """
    start = torch.randint(levels, (1,), generator=generator)
    return (torch.arange(batch) + start) % levels + 1
