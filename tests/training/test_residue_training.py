"""The training of the networks of residues, by the call behind the command; and what it draws."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Killed, Result, write_raw_folder

from oasisvq.codec.modelfile import ModelFile, read_model
from oasisvq.codec.residue_config import ResidueConfig, SupportConfig
from oasisvq.data.dataset import SliceRecord, open_dataset
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import preprocess
from oasisvq.errors import ModelError, TrainingError
from oasisvq.training import command, loop, residue_stage
from oasisvq.training.checkpoint import load_checkpoint
from oasisvq.training.residue_drawing import Drawn, draw_looks, draw_passes, in_bins, plain_looks
from oasisvq.training.residue_inputs import Passes, ResidueInputs, Slices, SupportInputs, noise_of
from oasisvq.training.residue_training import (
    FAR,
    NEAR,
    ResidueStep,
    cells_of,
    neighbours,
    new_networks,
    places_of_support,
)

Run = Callable[..., Result]

NETWORK = {
    "encoder_channels": (8, 16),
    "encoder_blocks": (1, 1),
    "decoder_channels": (16, 8),
    "decoder_blocks": (1, 1),
    "code_dim": 4,
    "codebook_size": 20,
    "levels": 2,
}
EPOCHS = {"epochs": 1, "batch_size": 4, "prior_epochs": 1, "residue_epochs": 2}
RESIDUE = ResidueConfig(reach=(5, 4, 4), window=2, slices_before=2, hidden=16, blocks=1, components=2)
SUPPORT = SupportConfig(reach=(5, 4, 4), window=2, slices_before=1, hidden=(12, 8))
STEPS = 6
CHECKPOINT = "residue-checkpoint.safetensors"


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    """They take longer than these trainings; see test_pictures.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_curves", lambda rows: b"curves")
        yield


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that an epoch has several steps."""
    monkeypatch.setattr(residue_stage, "BATCH_SIZE", 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    raw = write_raw_folder(root / "raw", {"train": [1, 2, 3], "validate": [4]})
    return preprocess(raw, root / "prepared", size=64).folder


def train(data: Path, run_folder: Path, stop_after: int = 0, **changes: Any) -> command.Trained:
    """Train; with `stop_after`, until so many steps of the residue are done."""
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
    )
    if changes.get("resume"):  # all settings come from the checkpoint
        plain = dataclasses.replace(
            plain, preset=None, images=None, overrides={}, seed=None, precision=None
        )
    request = dataclasses.replace(plain, **changes)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += (run_folder / "residue-checkpoint.safetensors").exists()
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residue_stage, "BATCH_SIZE", 4)
        assert train(data, folder).what == "residue"
    return folder


def test_a_training_ends_with_networks_of_residues(straight: Path) -> None:
    file = model(straight)
    assert file.residue is not None
    assert file.support is not None
    assert file.residue.config.hidden == 16  # of a codec with vectors of 4
    assert file.card["residue"]["steps"] == STEPS
    epochs = [row for row in rows(straight) if (row["what"], row["kind"]) == ("residue", "epoch")]
    assert [row["epoch"] for row in epochs] == [1, 2]
    assert all(len(row["validation_bits"]) == 3 for row in epochs)
    lossless, bounded, _ = epochs[-1]["validation_bits"]
    assert lossless > bounded > 0


def test_a_stopped_training_goes_on_as_if_it_had_not(data: Path, straight: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    stopped = train(data, run_folder, stop_after=4)
    assert (stopped.what, stopped.finished, stopped.step) == ("residue", False, 4)
    assert model(run_folder).residue is not None  # usable, with the networks as they are
    resumed = train(data, run_folder, resume=True)
    assert resumed.finished
    assert model(run_folder).fingerprint == model(straight).fingerprint
    assert rows(run_folder) == rows(straight)


def test_without_the_residue_a_training_ends_before_it(data: Path, tmp_path: Path) -> None:
    trained = train(data, tmp_path / "run", with_residue=False)
    assert trained.what == "codec"
    assert model(tmp_path / "run").residue is None
    assert not (tmp_path / "run" / "residue-checkpoint.safetensors").exists()


def test_a_residue_that_is_no_longer_wanted_is_left_out(data: Path, tmp_path: Path) -> None:
    run_folder, plain = tmp_path / "run", tmp_path / "plain"
    train(data, run_folder, stop_after=2)
    resumed = train(data, run_folder, resume=True, with_residue=False)
    assert (resumed.what, resumed.finished) == ("codec", True)
    assert not (run_folder / CHECKPOINT).exists()
    train(data, plain, with_residue=False)
    assert (run_folder / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


def test_killed_before_its_first_save_it_goes_on(
    data: Path, straight: Path, tmp_path: Path, killed: Killed
) -> None:
    run_folder = tmp_path / "run"
    options = {"residue_only": True, "overrides": {"residue_epochs": 2}, "images": None}
    killed(lambda: train(data, run_folder, model=straight, **options))
    assert model(run_folder).residue is None
    assert train(data, run_folder, resume=True).finished
    assert model(run_folder).residue is not None


def test_a_codec_that_is_there_gets_networks(data: Path, straight: Path, tmp_path: Path) -> None:
    before = model(straight)
    run_folder = tmp_path / "run"
    trained = train(
        data,
        run_folder,
        residue_only=True,
        model=straight / "model.safetensors",
        overrides={"residue_epochs": 1},
        images=None,
        seed=9,
    )
    assert (trained.what, trained.step) == ("residue", STEPS // 2)
    after = model(run_folder)
    assert after.fingerprint != before.fingerprint
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(array, after.arrays[name])


def test_a_checkpoint_of_other_settings_is_one_clear_error(
    data: Path, straight: Path, tmp_path: Path
) -> None:
    run_folder = tmp_path / "run"
    train(data, run_folder, stop_after=2)
    codec = model(run_folder)
    other = {name: array.copy() for name, array in codec.arrays.items()}
    other["decoder.output.bias"] = other["decoder.output.bias"] + 1
    from oasisvq.codec.modelfile import write_model

    write_model(ModelFile(codec.config, other, None, codec.card), run_folder / "model.safetensors")
    with pytest.raises(TrainingError, match="codec"):
        train(data, run_folder, resume=True)


def test_a_damaged_config_in_a_checkpoint_is_one_clear_error(straight: Path) -> None:
    checkpoint = load_checkpoint(straight / "residue-checkpoint.safetensors")
    checkpoint.progress["settings"]["residue"]["reach"] = [9, 9]
    with pytest.raises(ModelError, match="reach"):
        residue_stage.residue_settings(checkpoint, straight)


@pytest.mark.parametrize(
    ("options", "naming"),
    [
        (("--residue-only", "--no-residue", "--model", "m"), "exclude each other"),
        (("--residue-only", "--prior-only", "--model", "m"), "exclude each other"),
        (("--residue-only",), "--model"),
        (("--residue-only", "--model", "m", "--start-from", "x"), "--start-from"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Run, data: Path, options: tuple[str, ...], naming: str
) -> None:
    result = run("train", data, *options)
    assert result.code == 2
    assert naming in result.err


# --- what it draws ----------------------------------------------------------------------------


def drawn_slices(count: int = 64) -> Drawn:
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(1, 200, (count, 3, 40, 48), generator=generator).float()
    values[:, :, :10] = 0
    ones = torch.ones(count)
    decoded = (values[:, 0] + 3) * (values[:, 0] > 0)
    return Drawn(values[:, 0], decoded, values[:, 1:], ones, torch.ones(count, 2))


def test_drawn_slices_are_whole_and_keep_their_ground() -> None:
    drawn = drawn_slices()
    looks = draw_looks(64, torch.Generator().manual_seed(2))
    slices = in_bins(drawn, looks)
    assert torch.equal(slices.bins, slices.bins.round())
    ground = torch.where(looks.mirrored[:, None, None], drawn.values.flip(1), drawn.values) == 0
    ground = torch.where(looks.turned[:, None, None], ground.flip(2), ground)
    assert torch.equal(slices.bins == 0, ground)
    assert bool((slices.bins < 0).any())
    assert float(slices.bins.max()) > 1000  # deeper than 8 bits
    assert {len(torch.unique(each)) > 1 for each in (looks.step, looks.gain, slices.has_decoded)} == {
        True
    }


def test_plain_slices_are_the_bins_of_their_values() -> None:
    drawn = drawn_slices(3)
    passes = draw_passes(3, torch.Generator().manual_seed(2))
    slices = in_bins(drawn, plain_looks(passes, 2, True))
    np.testing.assert_array_equal(slices.bins, np.ceil(drawn.values / 5))
    centres = (slices.bins - 1) * 5 + 3  # of 5 values to a bin
    inside = drawn.values > 0
    assert float((centres - drawn.values)[inside].abs().max()) <= 2
    # the decoded image is in bins too: that of a centre would be whole
    decoded = (slices.decoded * 5 - 2)[inside]
    np.testing.assert_allclose(decoded, drawn.decoded[inside], rtol=1e-5)


def test_cells_are_of_the_mask_and_drawn_evenly() -> None:
    mask = torch.zeros(3, 6, 8, dtype=torch.bool)
    mask[0, 2, 3:7] = True
    mask[1] = True
    draws = torch.rand(3, 4000, generator=torch.Generator().manual_seed(1))
    draws[:, 0], draws[:, 1] = 0, 1 - 2**-24
    cells, is_given = cells_of(mask, draws)
    counts = [np.bincount(row, minlength=48) for row in cells.numpy()]
    assert set(np.flatnonzero(counts[0])) == {19, 20, 21, 22}
    assert counts[0][19:23].min() > 900
    assert counts[1].min() > 50
    assert is_given.view(3, -1).mean(1).tolist() == [1, 1, 0]


def test_weighted_places_of_the_support_stand_for_all_pixels() -> None:
    """Sums over few places, weighted, are those over all pixels, on the average."""
    bins = torch.zeros(1, 40, 48)
    bins[0, 10:30, 12:40] = 1
    everywhere = torch.arange(40 * 48.0).view(40, 48) / 1000
    draws = torch.rand(400, NEAR + FAR, generator=torch.Generator().manual_seed(1))
    cells, weights = places_of_support(bins.expand(400, -1, -1), torch.full((400,), 2), draws)
    sums = (everywhere.flatten()[cells] * weights.view(400, -1)).sum(1)
    assert float(sums.mean()) == pytest.approx(float(everywhere.sum()), rel=0.02)


def test_neighbours_are_of_one_volume() -> None:
    def record(subject: str, number: int) -> SliceRecord:
        return SliceRecord(subject, f"{subject}_{number}.png", 1, (8, 8), number)

    records = tuple(record(*each) for each in [("a", 1), ("a", 2), ("a", 9), ("b", 10), ("b", 12)])
    assert neighbours(records).tolist() == [[-1, 1], [0, -1], [-1, -1], [-1, 4], [3, -1]]


def test_noise_is_in_quarter_octaves_and_left_out_of_ground() -> None:
    bins = torch.zeros(2, 4, 6)
    bins[0, 1] = torch.tensor([5.0, 9, 5, 9, 5, 9])  # each is 4 from the mean of its neighbours
    assert noise_of(bins).tolist() == pytest.approx([4, 2 ** (round(np.log2(0.05) * 4) / 4)])


def test_inputs_are_zero_where_a_pass_sees_nothing() -> None:
    slices = in_bins(
        drawn_slices(3), plain_looks(Passes(torch.arange(3), torch.tensor([1, 2, 8])), 0, False)
    )  # fmt: skip
    passes = Passes(torch.arange(3), torch.tensor([1, 2, 8]))
    cells = torch.randint(500, 1900, (3, 50), generator=torch.Generator().manual_seed(1))
    inputs = ResidueInputs(RESIDUE)(slices, passes, cells).inputs.view(3, 50, -1)
    slots = RESIDUE.slots
    odd = torch.tensor([row % 2 == 1 and column % 2 == 1 for row, column in slots])
    assert not inputs[0, :, : len(slots)][:, ~odd].any()
    assert bool(inputs[0, :, : len(slots)][:, odd].any(0).all())
    assert inputs[:, 0, len(slots) : len(slots) + 3].tolist() == [[32, 0, 0], [0, 32, 0], [0, 0, 32]]
    assert not inputs[:, :, len(slots) + 3 : len(slots) + 28].any()  # no decoded image
    assert inputs.abs().max() <= 127
    assert torch.equal(inputs, inputs.round())


def test_the_unknown_is_never_seen() -> None:
    """Changing what later passes code changes no input."""
    generator = torch.Generator().manual_seed(4)
    bins = torch.randint(1, 90, (1, 48, 48), generator=generator).float()
    nothing = torch.zeros(1, 2, 48, 48)
    for kind, (row, column) in enumerate([(1, 1), (0, 1), (1, 0)]):
        known = torch.zeros(48, 48, dtype=torch.bool)
        known[::2, ::2] = True
        known[1::2, 1::2] = kind > 0
        known[::2, 1::2] = kind > 1
        places = [
            (r, c) for r in range(16, 32) for c in range(16, 32) if (r % 2, c % 2) == (row, column)
        ]
        cells = torch.tensor([[r * 48 + c for r, c in places]])
        passes = Passes(torch.tensor([kind]), torch.tensor([1]))
        seen = []
        for change in (0, 7):
            changed = torch.where(known, bins, bins + change)
            changed[0, 0, :2] = torch.tensor([1.0, 200.0])  # the ends stay
            slices = Slices(changed, bins * 0, nothing, torch.zeros(1), torch.zeros(1, 2))
            targets = ResidueInputs(RESIDUE)(slices, passes, cells)
            seen.append(targets.inputs[:, :-2])  # but for the noise, which is of the slice
            support = SupportInputs(SUPPORT)(slices, passes, cells)[0]
        assert torch.equal(seen[0], seen[1])
        assert support.shape == (len(places), SUPPORT.inputs)


def test_a_few_steps_learn(data: Path) -> None:
    slices = torch.from_numpy(open_dataset(data).array("train").astype(np.float32))
    count = len(slices)
    nothing = torch.zeros(count)
    drawn = Drawn(
        slices, slices * 0, torch.zeros(count, 2, *slices.shape[1:]), nothing, torch.zeros(count, 2)
    )
    step = ResidueStep(new_networks(RESIDUE, SUPPORT, 1), "float32")
    optimizer = torch.optim.AdamW(step.networks.parameters(), lr=3e-3)
    found = []
    for number in range(30):
        generator = torch.Generator().manual_seed(number)
        passes = draw_passes(count, generator)
        looks = plain_looks(passes, 0, False)
        draws = torch.rand(count, 100 + NEAR + FAR, generator=generator)
        bits = step(in_bins(drawn, looks), looks, draws)
        optimizer.zero_grad()
        bits.sum().backward()
        optimizer.step()
        found.append(bits.detach())
    before, after = torch.stack(found[:5]).mean(0), torch.stack(found[-5:]).mean(0)
    assert after[0] < before[0] - 0.1
    assert after[1] < before[1] * 0.8
