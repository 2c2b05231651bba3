"""Images per second in training: ours, MONAI's VQVAE, and our networks around `ResidualVQ`.

All train on the same random slices, with the same batch size, precision and reconstruction loss (the
others without its squared error). A step is forward pass, backward pass and update. Each contender runs
in a process of its own, one after the other, for several rounds; ratios compare times of one round.
MONAI's VQVAE halves the resolution three times like ours. It keeps its proportions of channels (1, 1, 2,
with three residual layers), but is narrowed until it has about as many parameters.

    pip install monai vector-quantize-pytorch
    python examples/benchmarks/train_speed.py --preset small --precision bfloat16
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from oasisvq.codec.pixels import Box
from oasisvq.data.dataset import Dataset, Split
from oasisvq.data.layouts import Images
from oasisvq.training.codec_training import Training, TrainingConfig
from oasisvq.training.distributed import World
from oasisvq.training.losses import reconstruction_losses
from oasisvq.training.networks import channels_last, clamp_straight_through, parameter_count
from oasisvq.training.presets import PRESETS, model_config
from oasisvq.training.quantizer import to_grid, to_vectors

CONTENDERS = ("ours", "residual-vq", "monai")
SLICES, SIZE = 256, 256
FIELD = Box(40, 24, 216, 232)  # where the anatomy of an OASIS slice lies
WARM_UP_STEPS = 3


def operations(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of all convolutions in one forward pass, counted by running it."""
    total = 0

    def count(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += layer.weight[0].numel() * output.numel()
        elif isinstance(layer, nn.ConvTranspose2d):
            total += layer.weight[0].numel() * given[0].numel()

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return total


class Silent:
    """A reporter that says nothing."""

    def started(self, start: object) -> None: ...
    def step(self, report: object) -> None: ...
    def epoch(self, report: object) -> None: ...
    def note(self, message: str) -> None: ...


def our_training(arguments: argparse.Namespace, folder: Path) -> Training:
    """Our training on a prepared dataset of noise, in the field where the anatomy of a slice lies."""
    preset = PRESETS[arguments.preset]
    planes = np.zeros((SLICES, SIZE, SIZE), dtype=np.uint8)
    inside = planes[:, FIELD.top : FIELD.bottom, FIELD.left : FIELD.right]
    inside[:] = np.random.default_rng(0).integers(0, 256, inside.shape)
    np.save(folder / "train.npy", planes)
    # the records are only counted, so one stands for all
    split = Split((None,) * SLICES, "", FIELD)  # type: ignore[arg-type]
    dataset = Dataset(folder, "noise", "", Images.SCANS, SIZE, {"train": split})
    config = TrainingConfig(
        model=model_config(preset, dataset),
        epochs=1000,
        batch_size=arguments.batch_size,
        learning_rate=preset.learning_rate,
        seed=0,
        precision=arguments.precision,
    )
    world = World(0, 1, torch.device(arguments.device))
    training = Training(dataset, config, folder, world, Silent())
    if arguments.compile:
        training.compile(print, required=True)
    return training


def peer(name: str, training: Training) -> nn.Module:
    """A peer as a module: pixels -> (reconstruction, quantization loss)."""
    config = training.config.model

    class MonaiVQVAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            from monai.networks.nets import VQVAE

            self.network = VQVAE(
                spatial_dims=2,
                in_channels=1,
                out_channels=1,
                channels=(52, 52, 104),
                num_res_layers=3,
                num_res_channels=(52, 52, 104),
                downsample_parameters=((2, 4, 1, 1),) * 3,
                upsample_parameters=((2, 4, 1, 1, 0),) * 3,
                num_embeddings=config.codebook_size,
                embedding_dim=config.code_dim,
            )

        def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            reconstruction, loss = self.network(pixels)
            return reconstruction, loss

    class OursAroundResidualVQ(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            from vector_quantize_pytorch import ResidualVQ

            self.encoder, self.decoder = training.model.encoder, training.model.decoder
            self.quantizer = ResidualVQ(
                dim=config.code_dim,
                num_quantizers=config.levels,
                codebook_size=config.codebook_size,
                kmeans_init=True,
                threshold_ema_dead_code=2,
                quantize_dropout=True,
            )

        def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            latents = self.encoder(pixels)
            with torch.autocast(latents.device.type, enabled=False):
                vectors = to_vectors(latents)[None]  # (1, N, D)
                quantized, _, losses = self.quantizer(vectors)
            grid = to_grid(quantized[0], latents.shape[0], *latents.shape[2:])
            return self.decoder(grid), losses.mean()

    return MonaiVQVAE() if name == "monai" else OursAroundResidualVQ()


def peer_step(network: nn.Module, training: Training) -> Callable[[], None]:
    """A training step of a peer, on batches drawn from the same slices."""
    config = training.config
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, fused=True)

    def step() -> None:
        pixels = training.batches.draw(torch.randint(SLICES, (config.batch_size,)))
        with training.autocast():
            reconstruction, loss = network(pixels)
        parts = reconstruction_losses(pixels, clamp_straight_through(reconstruction.float()))
        optimizer.zero_grad(set_to_none=True)
        ((parts[0] + parts[1]).mean() + loss.float()).backward()
        optimizer.step()

    return step


class Clock:
    """Seconds spent in some methods; the queue of the device is emptied before and after each call."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        """The time in seconds, once all work so far is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def watch(self, owner: object, method: str, label: str) -> None:
        """Count the time in `owner.method` under `label`."""
        inner = getattr(owner, method)

        def timed(*arguments: object) -> object:
            began = self.now()
            result = inner(*arguments)
            self.seconds[label] = self.seconds.get(label, 0.0) + self.now() - began
            return result

        setattr(owner, method, timed)


def matmul_peak(device: torch.device, precision: str) -> float:
    """Multiply-adds per second of a large matrix product: the measured peak of the device."""
    side = 2048 if device.type == "cpu" else 8192
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    first, second = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    clock, best = Clock(device), 0.0
    for _ in range(8):
        began = clock.now()
        first @ second
        best = max(best, side**3 / (clock.now() - began))
    return best


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Measure one contender in this process."""
    device = torch.device(arguments.device)
    clock = Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        training = our_training(arguments, Path(folder))
        config = training.config.model
        pixels = torch.zeros(1, 1, *config.window, device=device)
        if arguments.contender == "ours":
            cells = (config.window[0] // config.stride, config.window[1] // config.stride)
            latents = torch.zeros(1, config.code_dim, *cells, device=device)
            parameters = parameter_count(training.model)
            forward = operations(training.model.encoder, pixels)
            forward += operations(training.model.decoder, latents)
            order = torch.arange(SLICES)
            training.step = training.steps // 2  # past the warm-up without a quantizer
            training.learner.start_with_kmeans(
                torch.randn(32, *latents.shape[1:], device=device), torch.Generator()
            )

            def step() -> None:
                training.train_step(order)
        else:
            network = peer(arguments.contender, training).to(device)
            channels_last(network)
            parameters = parameter_count(network)
            forward = operations(network, pixels)
            step = peer_step(network, training)
        for _ in range(WARM_UP_STEPS):
            step()
        began = clock.now()
        for _ in range(arguments.steps):
            step()
        seconds = clock.now() - began
        result = {
            "images_per_second": arguments.steps * arguments.batch_size / seconds,
            "parameters": parameters,
            "multiply_adds": forward,
        }
        if arguments.contender == "ours":
            clock.watch(training.batches, "draw", "data")
            clock.watch(training.learner, "quantize", "quantizer")
            clock.watch(training.learner, "update", "quantizer")
            began = clock.now()
            for _ in range(arguments.steps):
                step()
            whole = clock.now() - began
            result |= {f"share_{label}": spent / whole for label, spent in clock.seconds.items()}
    rate = 3 * forward * result["images_per_second"]  # a backward pass costs two forward passes
    result["peak_share"] = rate / matmul_peak(device, arguments.precision)
    result["peak_megabytes"] = (
        torch.cuda.max_memory_allocated() / 1e6
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    )
    return result


def main() -> None:
    """Run all contenders for several rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", default="small", choices=sorted(PRESETS))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(measure(arguments)))
        return
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(arguments.rounds):
        row = {}
        for name in CONTENDERS:
            command = [sys.executable, __file__, *sys.argv[1:], "--contender", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr}")
            row[name] = json.loads(done.stdout.splitlines()[-1])
        rounds.append(row)
    print(f"{arguments.preset}, batch {arguments.batch_size}, {arguments.precision}, {arguments.device}")
    for name in CONTENDERS:
        middle = {key: statistics.median(row[name][key] for row in rounds) for key in rounds[0][name]}
        ratio = statistics.median(
            row["ours"]["images_per_second"] / row[name]["images_per_second"] for row in rounds
        )
        shares = "".join(
            f", {key.removeprefix('share_')} {middle[key]:.1%} of a step"
            for key in middle
            if key.startswith("share_")
        )
        print(
            f"{name:>12}: {middle['images_per_second']:.1f} images/s (ours {ratio:.2f}×), "
            f"{middle['parameters'] / 1e6:.2f} M parameters, "
            f"{middle['multiply_adds'] / 1e9:.2f} G multiply-adds an image forward, "
            f"{middle['peak_share']:.0%} of the matrix-product peak, "
            f"{middle['peak_megabytes']:,.0f} MB{shares}"
        )


if __name__ == "__main__":
    main()
