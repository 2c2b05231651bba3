"""What the stages of a training share: the request, the processes, the data, the run folder."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.data.dataset import Dataset, is_prepared, open_dataset
from oasisvq.data.joined import is_joined_from, join
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import is_prepared_from, open_or_prepare
from oasisvq.errors import DatasetError, TrainingError
from oasisvq.files import MODEL_FILE, remove_temporaries
from oasisvq.models import choose_model
from oasisvq.training.checkpoint import Checkpoint
from oasisvq.training.display import LiveReporter
from oasisvq.training.distributed import World
from oasisvq.training.hardware import choose_precision
from oasisvq.training.loop import Loop
from oasisvq.training.pictures import CURVES_FILE, PANEL_FILE, Pictures
from oasisvq.training.presets import PRESETS, Preset
from oasisvq.training.progress import LineReporter
from oasisvq.training.request import Following, Request, Trained

PICTURES = (CURVES_FILE, PANEL_FILE)


class Ran(NamedTuple):
    """A stage that was run.

    Attributes:
        trained: its results.
        planned: the stages after it that are wanted.
        seed: of the training.
        precision: of the training.
    """

    trained: Trained
    planned: Following
    seed: int
    precision: str


class Session(NamedTuple):
    """What every stage of a training needs."""

    request: Request
    world: World
    tell: Callable[[str], None]
    reporter: LineReporter | LiveReporter
    pictures: Pictures
    should_stop: Callable[[], bool]
    deadline: float  # on the clock of time.monotonic
    advance: Callable[[int, int], None]  # while slices are read

    def run(self, loop: Loop, checkpoint: Checkpoint | None) -> bool:
        """Run one stage to its end; False if it was stopped."""
        if checkpoint is not None:
            loop.resume(checkpoint)
            self.tell(f"resuming the {loop.what} at step {loop.step:,} of {loop.steps:,}")
        loop.start_run()
        loop.pictures = self.pictures
        finished = loop.go(self.should_stop, self.deadline)
        self.reporter.close()
        return finished

    def trained(self, loop: Loop, finished: bool) -> Trained:
        """The results of a stage that was run."""
        model = self.request.run / MODEL_FILE
        return Trained(model, loop.dataset, loop.what, loop.step, finished, loop.metrics.length)

    def preset(self) -> Preset:
        """The preset that the request names, or the default of the device, before its overrides."""
        request, device = self.request, self.world.device.type
        name = request.preset or ("base" if device == "cuda" else "small")
        reason = "" if request.preset else f" (the default on {device})"
        self.tell(f"preset {name}{reason}: {PRESETS[name].purpose}; training on {device}")
        return PRESETS[name]

    def asked(self) -> Preset:
        """The preset with its overrides."""
        return dataclasses.replace(self.preset(), **self.request.overrides)

    @property
    def precision(self) -> str:
        """The precision of the networks."""
        return choose_precision(self.request.precision or "auto", self.world.device)

    def given_codec(self) -> tuple[ModelFile, Dataset]:
        """The codec that --model names, and the data in the form in which it was trained on them."""
        request = self.request
        assert request.model is not None
        codec = read_model(choose_model(request.model, Path.cwd()).path)
        trained_on, side = codec.card.get("images"), codec.card.get("size")
        images = Images(trained_on) if trained_on in set(Images) else Images.SCANS
        return codec, self.open(request.images or images, side if type(side) is int else 256)

    def forget(self, *checkpoints: str) -> None:
        """Delete these checkpoints and the pictures of a training that -f replaces."""
        for name in (*checkpoints, *PICTURES) if self.world.first else ():
            (self.request.run / name).unlink(missing_ok=True)

    def open(self, images: Images, size: int) -> Dataset:
        """The dataset; the first of several processes prepares or joins it, and verifies it.

        Raises:
            OasisVQError: the data are bad, or have no training split.
        """
        request, world = self.request, self.world
        is_given = len(request.data) == 1 and is_prepared(request.data[0])
        folder = request.data[0] if is_given else request.run / "dataset"
        if world.first:
            if request.run.is_dir():
                remove_temporaries(request.run)
            self._prepare(folder, images, size).verify()
        world.wait()
        dataset = open_dataset(folder)
        if "train" not in dataset.splits:
            raise TrainingError(
                f"{folder}: no training split, only {', '.join(dataset.splits)}; "
                "prepare a folder whose subjects can be split, or one that has its training part"
            )
        return dataset

    def _prepare(self, folder: Path, images: Images, size: int) -> Dataset:
        """The dataset to train on, from an existing folder or prepared now."""
        request = self.request
        if len(request.data) == 1:
            return self._opened(request.data[0], folder, images, size)
        numbers = range(1, len(request.data) + 1)
        caches = [folder.with_name(f"{folder.name}-{number}") for number in numbers]
        made = {each.resolve() for each in (folder, *caches)}
        for data in request.data:
            if data.resolve() in made:
                raise TrainingError(f"{data}: is made by this training; name another run folder with -o")
        given = next((open_dataset(data) for data in request.data if is_prepared(data)), None)
        if given and not request.resume:  # raw folders beside it are prepared in the same way
            images, size = given.images, given.size
        parts = [
            dataclasses.replace(self._opened(data, cache, images, size), named=data)
            for data, cache in zip(request.data, caches, strict=True)
        ]
        if is_joined_from(folder, parts):
            return open_dataset(folder)
        if request.resume:
            raise self._other_data(request.named)
        self.tell(f"dataset {folder}: joining {request.named}")
        return join(parts, folder)

    def _opened(self, data: Path, cache: Path, images: Images, size: int) -> Dataset:
        """A prepared dataset, or a raw folder prepared into `cache`."""
        request = self.request
        if is_prepared(data):
            dataset = open_dataset(data)
            if request.images not in (None, dataset.images):
                raise DatasetError(
                    f"{data}: was prepared from {dataset.images.value}; leave out --images"
                )
            return dataset
        if request.resume:
            if not is_prepared_from(cache, data, images, size):
                raise self._other_data(f"{data}")
            return open_dataset(cache)
        return open_or_prepare(
            data,
            cache,
            images=images,
            size=size,
            advance=self.advance,
            tell=self.tell,
            max_pixels=request.max_pixels,
        )

    def _other_data(self, named: str) -> TrainingError:
        return TrainingError(
            f"{self.request.run}: its training had other data than are in {named} now; resume with the "
            "same, or train into another folder with -o"
        )
