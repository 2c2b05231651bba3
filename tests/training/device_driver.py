"""Trains on the device of pretended.py: `device_driver.py`, in an empty folder.

Started by `test_device_guard.py` in a process of its own. Prints one line of JSON: what the device
objected to in each case, and how far what it trained lies from what the CPU trains.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pretended
import torch
from conftest import write_raw_folder
from pretended import Pretending, watch
from safetensors.torch import load_file
from torch import Tensor, nn

from oasisvq.data import devices
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import preprocess
from oasisvq.training import command, contrasts, hardware, loop, residue_drawing
from oasisvq.training.codebooks import CodebookLearner, Quantized
from oasisvq.training.frozen import Exact
from oasisvq.training.networks import Shuffle
from oasisvq.training.presets import PRESETS

DEVICE = pretended.register()
CPU = torch.device("cpu")
THIN = {
    "encoder_channels": (4, 6),
    "encoder_blocks": (1, 1),
    "decoder_channels": (6, 6, 4),
    "decoder_blocks": (1, 1, 0),
    "code_dim": 4,
}
TINY = {**THIN, "codebook_size": 20, "levels": 3, "batch_size": 6, "epochs": 2}
TINY |= {"prior_epochs": 2, "volumes_epochs": 1, "residue_epochs": 1}

CODEC_ONLY = {"with_prior": False, "with_volumes": False, "with_residue": False}


def request(data: Path, run: Path, **changes: Any) -> command.Request:
    """A tiny training of codec and prior."""
    plain = command.Request(
        data=(data,),
        run=run,
        preset="small",
        images=Images.SCANS,
        overrides=TINY,
        seed=5,
        precision="float32",
        device="cpu",
        max_minutes=None,
        resume=False,
        force=False,
    )
    if changes.get("resume"):  # all settings come from the checkpoint
        nothing = {"preset": None, "images": None, "overrides": {}, "seed": None, "precision": None}
        plain = dataclasses.replace(plain, **nothing)
    return dataclasses.replace(plain, **changes)


def train(device: torch.device, asked: command.Request, stop_after: int = 0) -> None:
    """Train there, until so many steps are done where that is not 0."""
    steps = iter(range(1, 10**6))
    command.choose_device = lambda name: device
    command.train(
        asked, lambda message: None, lambda: next(steps) == stop_after, lambda done, total: None
    )


def chain(device: torch.device, data: Path, folder: Path) -> None:
    """All stages, some of them stopped and resumed; then a codec that starts from that one."""
    run = folder / "run"
    train(device, request(data, run), stop_after=2)
    train(device, request(data, run, resume=True), stop_after=4)
    train(device, request(data, run, resume=True), stop_after=4)
    train(device, request(data, run, resume=True))
    grown = {**TINY, "levels": 4, "encoder_blocks": (1, 2), "epochs": 1}
    again = request(data, folder / "grown", start_from=run, overrides=grown, **CODEC_ONLY)
    train(device, again)


def apart(first: Path, second: Path) -> dict[str, float]:
    """The largest difference of each tensor, in two folders with the same checkpoints."""
    found = {}
    for path in sorted(first.rglob("*checkpoint.safetensors")):
        if not (second / path.relative_to(first)).exists():  # the test misses it
            continue
        ours, theirs = load_file(path), load_file(second / path.relative_to(first))
        assert ours.keys() == theirs.keys()
        name = str(path.relative_to(first))
        for key, tensor in ours.items():
            if tensor.numel():
                difference = (tensor.float() - theirs[key].float()).abs().max()
                found[f"{name}: {key}"] = float(difference)
    return found


# faults


class Faults:
    """What can go wrong in a step; each is called in the middle of one."""

    @staticmethod
    def left_on_the_cpu(learner: CodebookLearner, quantized: Quantized) -> None:
        learner.counts + torch.zeros(learner.counts.shape)

    @staticmethod
    def item(learner: CodebookLearner, quantized: Quantized) -> None:
        quantized.commitment.item()

    @staticmethod
    def tolist(learner: CodebookLearner, quantized: Quantized) -> None:
        learner.counts.tolist()

    @staticmethod
    def float64(learner: CodebookLearner, quantized: Quantized) -> None:
        learner.counts.double()

    @staticmethod
    def large_copy(learner: CodebookLearner, quantized: Quantized) -> None:
        devices.send(torch.zeros(75_000), DEVICE)

    @staticmethod
    def blocking_copy(learner: CodebookLearner, quantized: Quantized) -> None:
        torch.zeros(3).to(DEVICE)

    @staticmethod
    def copy_back(learner: CodebookLearner, quantized: Quantized) -> None:
        learner.counts.cpu()

    @staticmethod
    def cpu_index(learner: CodebookLearner, quantized: Quantized) -> None:
        learner.counts[torch.tensor([0])]

    @staticmethod
    def mask(learner: CodebookLearner, quantized: Quantized) -> None:
        learner.counts[learner.counts > 0]


FAULTS = [name for name in vars(Faults) if not name.startswith("_")]


def faults(run: Callable[[], None]) -> dict[str, list[str]]:
    """What the device objects to in each of the faults, all put into the steps of one training."""
    update, forward = CodebookLearner.update, Shuffle.forward
    found = {}

    def with_faults(self: CodebookLearner, quantized: Quantized, generator: torch.Generator) -> None:
        update(self, quantized, generator)
        for name in FAULTS:
            before, watch.objections = watch.objections, []
            try:
                getattr(Faults, name)(self, quantized)
            except RuntimeError as error:
                watch.object(str(error))
            found[name], watch.objections = watch.objections, before

    CodebookLearner.update, Shuffle.forward = with_faults, nn.PixelShuffle.forward
    found["layout"] = objections(run)
    CodebookLearner.update, Shuffle.forward = update, forward
    return found


def objections(run: Callable[[], None]) -> list[str]:
    """What the device objects to while something runs; an error is one objection more."""
    watch.objections = []
    with Pretending():
        try:
            run()
        except RuntimeError as error:
            watch.object(str(error))
    return watch.objections


def main() -> None:
    """See the module's docstring."""
    devices.QUEUEING.add(pretended.NAME)
    hardware.FUSED_ON.add(pretended.NAME)
    loop.draw_curves = lambda rows: b"curves"
    train_step = loop.Loop.train_step

    def watched(self: loop.Loop, order: Tensor) -> None:
        with watch.step():
            train_step(self, order)

    loop.Loop.train_step = watched
    exact = Exact.encoder

    def in_float64(self: Exact, pixels: Tensor, context: Tensor | None = None) -> Tensor:
        with watch.allowing_float64():  # finds indices, between the two trainings
            return exact(self, pixels, context)

    Exact.encoder = in_float64
    for module in (residue_drawing, contrasts):
        module.noise_generator = lambda device, seed: torch.Generator().manual_seed(seed)
    raw = write_raw_folder(Path("raw"), {"train": [1, 2, 3], "validate": [4]})
    data = preprocess(raw, Path("data"), size=64).folder

    cases = {"chain": objections(lambda: chain(DEVICE, data, Path("device")))}
    operations = watch.operations
    chain(CPU, data, Path("cpu"))
    one_epoch = {**TINY, "epochs": 1}
    asked = request(data, Path("faults"), overrides=one_epoch, **CODEC_ONLY)
    cases |= faults(lambda: train(DEVICE, asked))
    cases["large"] = objections(large)
    differences = apart(Path("cpu"), Path("device"))
    print(json.dumps({"cases": cases, "operations": operations, "differences": differences}))


def large() -> None:
    """Two steps of the codec, the second by integers, with all sizes of `base` but its channels."""
    base = PRESETS["base"]
    numbers = list(range(1, 2 * base.batch_size // 16 + 1))
    raw = write_raw_folder(Path("large-raw"), {"train": numbers}, slices=16, size=base.size)
    data = preprocess(raw, Path("large-data"), size=base.size).folder
    overrides = {**THIN, "epochs": 1}
    train(DEVICE, request(data, Path("large"), preset="base", overrides=overrides, **CODEC_ONLY))


if __name__ == "__main__":
    main()
