"""The training of what codes volumes, by the call behind the command; and the slices that it sees."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_OF_VOLUMES, Killed, Result, draw_head, draw_phantom, tiny_model
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from oasisvq.codec.codec import Codec
from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.codec.pixels import centred_window
from oasisvq.codec.wish import Wish
from oasisvq.data.batches import SliceBatches
from oasisvq.data.dataset import SliceRecord, open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import preprocess
from oasisvq.errors import TrainingError
from oasisvq.scans.scan import as_scan
from oasisvq.training import command, loop, plan
from oasisvq.training.decoded_slices import decoded_in_turn
from oasisvq.training.distributed import World
from oasisvq.training.frozen import Exact
from oasisvq.training.progress import LineReporter
from oasisvq.training.request import Following
from oasisvq.training.slices_beside import OwnRanges, blurred, coded_in_turn, neighbours, sequences
from oasisvq.training.volumes_prior import VolumesPriorTraining
from oasisvq.training.volumes_training import Reconstructions
from oasisvq.training.weights import file_of, quantizer_of

Run = Callable[..., Result]

NETWORK = {
    "encoder_channels": (8, 16),
    "encoder_blocks": (1, 1),
    "decoder_channels": (16, 8),
    "decoder_blocks": (1, 1),
    "code_dim": 8,
    "codebook_size": 20,
    "levels": 2,
}
EPOCHS = {"epochs": 1, "batch_size": 4, "prior_epochs": 1, "volumes_epochs": 2}
CHECKPOINT = "volumes-checkpoint.safetensors"
STEPS = 6


@pytest.fixture(scope="module", autouse=True)
def set_up() -> Iterator[None]:
    """No curves, which take longer than these trainings; and several steps an epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda rows: b"curves")
        patch.setattr(plan, "VOLUMES_BATCH_SIZE", 4)
        patch.setattr(plan, "PRIOR_BATCH_SIZE", 4)
        yield


def write_stacks(root: Path, subjects: dict[str, list[int]], slices: int) -> Path:
    """Like conftest's raw folder, but slices of a subject are alike."""
    rng = np.random.default_rng(3)
    for split, numbers in subjects.items():
        folder = root / f"keras_png_slices_{split}"
        folder.mkdir(parents=True)
        for number in numbers:
            plane = draw_phantom(rng, 32, 32, margin=6).astype(float)
            for place in range(slices):
                changed = plane * (0.7 + 0.3 * place / slices) + rng.normal(0, 2, plane.shape)
                changed = np.where(plane > 0, changed, 0).clip(0, 255).astype(np.uint8)
                path = folder / f"case_{number:03d}_slice_{place}.nii.png"
                Image.fromarray(changed).save(path)
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    raw = write_stacks(root / "raw", {"train": [1, 2, 3], "validate": [4]}, 4)
    return preprocess(raw, root / "prepared", size=32).folder


def train(data: Path, run_folder: Path, stop_after: int = 0, **changes: Any) -> command.Trained:
    """Train; with `stop_after`, until so many steps are done from those of the codec of volumes on."""
    plain = command.Request(
        data=(data,),
        run=run_folder,
        preset="seed",
        images=Images.SCANS,
        overrides=NETWORK | EPOCHS,
        seed=5,
        precision="float32",
        device="cpu",
        max_minutes=None,
        resume=False,
        force=False,
        with_prior=False,
        with_residue=False,
    )
    if changes.get("resume"):  # all settings come from the checkpoint
        plain = dataclasses.replace(
            plain, preset=None, images=None, overrides={}, seed=None, precision=None
        )
    request = dataclasses.replace(plain, **changes)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += (run_folder / CHECKPOINT).exists()
        return bool(stop_after) and asked == stop_after

    trained = command.train(request, lambda message: None, should_stop, lambda done, total: None)
    assert trained is not None
    return trained


def rows(run_folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what depends on the clock."""
    clock = ("images_per_second", "seconds_left")
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def model(run_folder: Path) -> ModelFile:
    return read_model(run_folder / "model.safetensors")


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    trained = train(data, folder)
    assert (trained.what, trained.step, trained.finished) == ("volumes", STEPS, True)
    return folder


def test_a_training_leaves_a_codec_of_volumes(straight: Path) -> None:
    file = model(straight)
    assert file.volumes is not None
    assert file.volumes.config == dataclasses.replace(file.config, context=1)
    assert any(array.any() for name, array in file.volumes.arrays.items() if "context.weight" in name)
    assert file.card["volumes"]["steps"] == STEPS
    assert file.card["volumes"]["training_slices"] == 12
    assert file.card["finished"]
    epochs = [row for row in rows(straight) if (row["what"], row["kind"]) == ("volumes", "epoch")]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert all(len(row["validation_ssim"]) == 2 for row in epochs)


@pytest.mark.parametrize("stop_after", [1, 4])
def test_a_stopped_training_goes_on_as_if_it_had_not(
    data: Path, straight: Path, tmp_path: Path, stop_after: int
) -> None:
    folder = tmp_path / "run"
    stopped = train(data, folder, stop_after=stop_after)
    assert (stopped.what, stopped.finished, stopped.step) == ("volumes", False, stop_after)
    assert not model(folder).card["finished"]
    assert train(data, folder, resume=True).finished
    ours, theirs = folder / "model.safetensors", straight / "model.safetensors"
    assert ours.read_bytes() == theirs.read_bytes()
    first, second = load_file(folder / CHECKPOINT), load_file(straight / CHECKPOINT)
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert rows(folder) == rows(straight)


@pytest.fixture(scope="module")
def with_priors(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training of all stages but residues, that nothing interrupted."""
    folder = tmp_path_factory.mktemp("priors") / "run"
    trained = train(data, folder, with_prior=True)
    assert (trained.what, trained.step, trained.finished) == ("volumes prior", 3, True)
    return folder


def test_volumes_get_a_prior_that_expects_what_the_slice_before_shows(
    data: Path, straight: Path, with_priors: Path
) -> None:
    file, without = model(with_priors), model(straight)
    assert file.prior is not None
    assert file.volumes is not None
    assert file.volumes.prior is not None
    assert (file.prior.config.expected, file.volumes.prior.config.expected) == (0, 3)
    assert without.volumes is not None
    for name, array in without.volumes.arrays.items():  # the same codec as without priors
        np.testing.assert_array_equal(array, file.volumes.arrays[name])
    assert file.card["volumes"]["prior"]["steps"] == 3
    assert file.card["finished"]
    whats = [row["what"] for row in rows(with_priors) if row["kind"] == "epoch"]
    assert whats == ["codec", "prior", "volumes", "volumes", "volumes prior"]
    codec = Codec(file)
    volume = np.asarray(open_dataset(data).array("validation")).transpose(1, 2, 0)
    assert codec.decode(codec.encode(volume, spacing=(1.0, 1.0, 1.0))).shape == volume.shape


@pytest.mark.parametrize("stop_after", [3, 7])
def test_a_training_that_stopped_before_or_in_the_prior_of_volumes_goes_on(
    data: Path, with_priors: Path, tmp_path: Path, stop_after: int
) -> None:
    folder = tmp_path / "run"
    stopped = train(data, folder, stop_after=stop_after, with_prior=True)
    assert stopped.what == ("volumes" if stop_after < STEPS else "volumes prior")
    assert not model(folder).card["finished"]
    assert train(data, folder, resume=True, with_prior=True).finished
    ours, theirs = folder / "model.safetensors", with_priors / "model.safetensors"
    assert ours.read_bytes() == theirs.read_bytes()
    assert rows(folder) == rows(with_priors)


def test_a_prior_of_volumes_learns_from_what_it_expects(
    data: Path, straight: Path, tmp_path: Path
) -> None:
    """With expected latents it learns sooner; in the end either knows the few slices by heart."""
    file = model(straight)
    assert file.volumes is not None
    dataset, world = open_dataset(data), World(0, 1, torch.device("cpu"))
    planned = Following(prior_epochs=12)
    losses = []
    for expected in (3, 0):
        config = plan.volumes_prior_config(file.volumes.config, planned, dataset, world, 1, "float32")
        config = dataclasses.replace(config, prior=dataclasses.replace(config.prior, expected=expected))
        run, reporter = tmp_path / f"expected-{expected}", LineReporter(Console(quiet=True))
        training = VolumesPriorTraining(dataset, config, run, world, reporter, file)
        training.start_run()
        assert training.go(lambda: False)
        losses.append([row["loss"] for row in training.metrics.rows() if row["kind"] == "epoch"])
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert all(ours < theirs for ours, theirs in zip(losses[0][:3], losses[1][:3], strict=True))


def test_without_volumes_a_training_ends_before_them(data: Path, straight: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train(data, folder, with_volumes=False).what == "codec"
    assert model(folder).volumes is None
    assert model(folder).card["finished"]
    assert not (folder / CHECKPOINT).exists()
    before = model(straight)
    assert all(
        np.array_equal(array, before.arrays[name]) for name, array in model(folder).arrays.items()
    )


@pytest.mark.parametrize("stop_after", [3, STEPS + 1])
def test_volumes_that_are_no_longer_wanted_are_left_out(
    data: Path, tmp_path: Path, stop_after: int
) -> None:
    folder, plain = tmp_path / "run", tmp_path / "plain"
    assert not train(data, folder, stop_after=stop_after, with_prior=True).finished
    resumed = train(data, folder, resume=True, with_prior=True, with_volumes=False)
    assert (resumed.what, resumed.finished) == ("prior", True)
    assert not list(folder.glob("volumes*checkpoint*"))
    train(data, plain, with_prior=True, with_volumes=False)
    assert (folder / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    assert rows(folder) == rows(plain)


def test_killed_before_its_first_save_it_goes_on(
    data: Path, straight: Path, tmp_path: Path, killed: Killed
) -> None:
    folder = tmp_path / "run"
    options = {"volumes_only": True, "overrides": {"volumes_epochs": 2}, "images": None}
    killed(lambda: train(data, folder, model=straight, **options))
    assert model(folder).volumes is None
    assert not model(folder).card["finished"]
    assert train(data, folder, resume=True).finished
    assert model(folder).fingerprint == model(straight).fingerprint


def test_a_model_that_is_there_gets_a_codec_of_volumes(
    data: Path, straight: Path, tmp_path: Path
) -> None:
    """As if both had been trained by one command; one that it had is replaced."""
    folder = tmp_path / "run"
    named = straight / "model.safetensors"
    trained = train(
        data, folder, volumes_only=True, model=named, overrides={"volumes_epochs": 2}, images=None
    )
    assert (trained.what, trained.step) == ("volumes", STEPS)
    assert model(folder).fingerprint == model(straight).fingerprint


def test_slices_without_neighbours_have_no_codec_of_volumes(tmp_path: Path, straight: Path) -> None:
    raw = write_stacks(tmp_path / "raw", {"train": [1, 2, 3, 4], "validate": [5]}, 1)
    alone = preprocess(raw, tmp_path / "alone", size=32).folder
    trained = train(alone, tmp_path / "run")
    assert (trained.what, trained.finished) == ("codec", True)
    with pytest.raises(TrainingError, match="neighbour"):
        train(alone, tmp_path / "other", volumes_only=True, model=straight, images=None)
    assert not (tmp_path / "other").exists()


def test_more_steps_learn_from_the_slice_before(data: Path, straight: Path, tmp_path: Path) -> None:
    """What is kept of a volume is more like it than what the codec of images keeps."""
    folder = tmp_path / "run"
    overrides = {"volumes_epochs": 12}
    train(data, folder, volumes_only=True, model=straight, overrides=overrides, images=None)
    epochs = [row for row in rows(folder) if row["kind"] == "epoch"]
    assert epochs[-1]["loss"] < 0.9 * epochs[0]["loss"]
    of_images = [row for row in rows(straight) if row["what"] == "codec"][-1]["validation_ssim"]
    assert all(
        with_context > alone + 0.03
        for with_context, alone in zip(epochs[-1]["validation_ssim"], of_images, strict=True)
    )


@pytest.mark.parametrize(
    ("options", "naming"),
    [
        (("--volumes-only", "--no-volumes", "--model", "m"), "exclude each other"),
        (("--volumes-only", "--prior-only", "--model", "m"), "exclude each other"),
        (("--volumes-only", "--residue-only", "--model", "m"), "exclude each other"),
        (("--volumes-only",), "--model"),
        (("--volumes-only", "--model", "m", "--start-from", "x"), "--start-from"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Run, data: Path, options: tuple[str, ...], naming: str
) -> None:
    result = run("train", data, *options)
    assert result.code == 2
    assert naming in result.err


# --- what it sees -----------------------------------------------------------------------------


def records(*slices: tuple[str, int]) -> tuple[SliceRecord, ...]:
    return tuple(SliceRecord(name, f"{name}_{place}.png", 1, (8, 8), place) for name, place in slices)


def test_sequences_are_of_one_volume_and_cut_where_they_are_long() -> None:
    stacks = records(("a", 1), ("b", 1), ("b", 2), ("b", 4), ("b", 5), ("b", 6), ("c", 1), ("c", 9))
    assert [each.tolist() for each in sequences(stacks)] == [[1, 2, 3, 4, 5], [0], [6], [7]]
    assert [each.tolist() for each in sequences(stacks, 2)] == [[1, 2], [3, 4], [0], [5], [6], [7]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("OAS1_0001_MR1.nii.gz", "OAS1_0001_MR2.nii.gz"),
        ("mr1/scan.nii.gz", "mr2/scan.nii.gz"),
        ("OAS1_0001_MR1_mpr-1_5.jpg", "OAS1_0001_MR1_mpr-2_6.jpg"),
        ("dataset-1/scan.nii.gz", "dataset-2/scan.nii.gz"),
        ("dataset-1/a_slice_5.nii.png", "dataset-2/a_slice_6.nii.png"),
    ],
)
def test_slices_of_two_volumes_of_one_person_are_no_neighbours(first: str, second: str) -> None:
    def found(*sources: str) -> list[int]:
        slices = (SliceRecord("a", each, 1, (8, 8), 5 + n) for n, each in enumerate(sources))
        return neighbours(tuple(slices))[:, 0].tolist()

    assert found(first, second) == [-1, -1]
    assert found(first, first.replace("5", "6")) == [-1, 0]


def test_slices_are_seen_as_the_codec_sees_them() -> None:
    """Sequences coded by the frozen networks decode to what the codec decodes to."""
    plane = draw_head(np.random.default_rng(5), *TINY_OF_VOLUMES.window, margin=2).astype(float)
    scan = as_scan(np.stack([plane * share for share in (0.5, 0.9, 0.7)]).astype(np.uint8), axis="0")
    planes, stride = scan.planes.astype(np.uint8), TINY_OF_VOLUMES.stride
    file = file_of(tiny_model(TINY_OF_VOLUMES), {})
    window = centred_window(plane.shape, TINY_OF_VOLUMES.window, stride)
    source = OwnRanges(SliceBatches(planes, window, stride, torch.device("cpu")), planes)
    networks, quantizer = Exact(file, torch.device("cpu")), quantizer_of(file)
    with torch.no_grad():
        in_turn = [torch.arange(3)]
        found = list(coded_in_turn(networks, quantizer, source, in_turn, torch.tensor([2])))
    assert [each.places.tolist() for each in found] == [[0], [1], [2]]
    assert found[0].context is None
    codec = Codec(file)
    decoded = as_scan(codec.decode(codec.encode_scan(scan, Wish(2))), axis="0").planes.astype(float)
    for ours, plane, theirs in zip(found, planes, decoded, strict=True):
        low, high = float(plane.min()), float(plane.max())
        grey = np.rint(ours.decoded[0, 0].numpy() * (high - low) + low)
        assert np.abs(grey - theirs).max() <= 1
    world, parts = World(0, 1, torch.device("cpu")), [torch.tensor([0]), torch.tensor([1, 2])]
    beside = decoded_in_turn(
        networks, quantizer, source, parts, world, lambda slices: None
    ).numpy()  # of 1 and 2 levels
    assert beside.shape == planes.shape
    with torch.no_grad():
        second = list(coded_in_turn(networks, quantizer, source, [parts[1]], torch.tensor([2])))
    for row, ours in zip(beside[1:], second, strict=True):
        low, high = float(planes[ours.places[0]].min()), float(planes[ours.places[0]].max())
        np.testing.assert_allclose(row, ours.decoded[0, 0].numpy() * (high - low) + low, atol=0.51)


def test_blurring_keeps_the_mean_and_blurs_each_slice_as_far_as_it_should() -> None:
    points = torch.zeros(2, 1, 31, 31)
    points[:, :, 15, 15] = 1
    seen = blurred(points, torch.tensor([0.8, 2.0]))
    assert torch.allclose(seen.sum((1, 2, 3)), torch.ones(2), atol=1e-5)
    offsets = torch.arange(31) - 15.0
    spread = (seen.sum((1, 2)) * offsets**2).sum(1).sqrt()
    assert spread.tolist() == pytest.approx([0.8, 2.0], rel=0.02)


def test_reconstructions_are_kept_with_their_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oasisvq.training.volumes_training.MOST_KEPT", 3)
    made = Reconstructions(5, (4, 4), torch.device("cpu"))  # every second slice
    pixels = torch.arange(3, dtype=torch.uint8)[:, None, None].expand(3, 4, 4) + 50
    made.renew(torch.tensor([4, 1, 0]), torch.tensor([2, 1, 1]), pixels)
    assert made.levels_of(torch.tensor([0, 1, 2, 3, 4, -1])).tolist() == [1, 0, 0, 0, 2, 0]
    seen = made.of(torch.tensor([4, 0]))[:, 0, 0, 0] * 255
    assert seen.round().tolist() == [50, 52]
