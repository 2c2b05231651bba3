"""curves.png and panel.png: what they show, when they are drawn, and that they change nothing."""

import dataclasses
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_raw_folder
from PIL import Image

from oasisvq.data.dataset import SliceRecord
from oasisvq.data.layouts import Images
from oasisvq.data.preprocess import preprocess
from oasisvq.errors import OasisVQError
from oasisvq.training import codec_training, command, pictures
from oasisvq.training.curves import draw_curves, recent_losses
from oasisvq.training.metrics_file import MetricsFile
from oasisvq.training.panel import GAP, LINE, Column, draw_panel, error_column, fixed_slices
from oasisvq.training.pictures import Pictures

BOTH = ("curves.png", "panel.png")
NETWORK = {
    "encoder_channels": (4, 8),
    "encoder_blocks": (1, 1),
    "decoder_channels": (8, 4),
    "decoder_blocks": (1, 1),
    "code_dim": 4,
    "codebook_size": 8,
    "levels": 3,
    "epochs": 3,
    "batch_size": 4,
    "prior_epochs": 1,
}


def is_png(content: bytes) -> bool:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image.format == "PNG"


# curves


def codec_rows(epochs: int, validation: bool = True, levels: int = 8) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        step = {"what": "codec", "kind": "step", "epoch": epoch, "loss": 1 / epoch}
        rows += [step | {"step": 30 * (epoch - 1) + done} for done in (10, 20, 30)]
        parts = {"ssim_loss": 0.8, "l1": 0.1, "mse": 0.01, "commitment": 0.1}
        loss = {"loss": 1 / epoch} | {name: part / epoch for name, part in parts.items()}
        ssim = [1 - 1 / (epoch + level + 1) for level in range(levels)] if validation else []
        codes = {"validation_ssim": ssim, "active": [90] * levels, "perplexity": [70.5] * levels}
        rows.append(
            {"what": "codec", "kind": "epoch", "epoch": epoch, "step": 30 * epoch} | loss | codes
        )
    return rows


def prior_rows(epochs: int, validation: bool = True) -> list[dict[str, Any]]:
    bits = {"bits_of_levels": [4.0, 5.0], "validation_bits": [4.1, 5.1] if validation else []}
    row = {"what": "prior", "kind": "epoch"} | bits
    return [row | {"epoch": epoch, "step": 9 * epoch} for epoch in range(1, epochs + 1)]


def charts(rows: list[dict[str, Any]]) -> tuple[int, int]:
    with Image.open(io.BytesIO(draw_curves(rows))) as image:
        return round(image.width / 480), round(image.height / 340)


def test_the_curves_have_a_chart_of_each_thing() -> None:
    assert charts(codec_rows(2) + prior_rows(1)) == (2, 2)
    assert charts(prior_rows(2, validation=False)) == (1, 1)
    assert charts(codec_rows(2, validation=False, levels=1)) == (3, 1)
    assert charts([]) == (1, 1)


def test_recent_losses_undo_the_running_mean() -> None:
    losses = np.random.default_rng(0).uniform(size=12)
    reported = [2, 4, 5, 7, 10]  # of two epochs of five steps; the reports of 9 and others are lost
    rows = []
    for step in reported:
        epoch = (step - 1) // 5
        rows.append({"epoch": epoch + 1, "step": step, "loss": losses[5 * epoch : step].mean()})
    places, recent = recent_losses(rows, 5)
    assert places == [step / 5 for step in reported]
    wanted = [losses[a:b].mean() for a, b in zip([0, *reported], reported, strict=False)]
    np.testing.assert_allclose(recent, wanted)


# panel


def test_the_fixed_slices_are_the_middle_ones_of_subjects_far_apart() -> None:
    def record(subject: int, number: int) -> SliceRecord:
        return SliceRecord(f"{subject:03}", "x.png", 1, (8, 8), number)

    records = [record(subject, number) for subject in range(10) for number in (7, 1, 4)]
    assert fixed_slices(records) == [3 * subject + 2 for subject in (0, 3, 6, 9)]
    assert fixed_slices(records[:6]) == [2, 5]
    assert fixed_slices(records[:1]) == [0]


def test_the_panel_shows_what_it_is_given(rng: np.random.Generator) -> None:
    original = rng.uniform(size=(2, 10, 200)).astype(np.float32)
    decoded = original + np.float32(0.1)
    error = error_column("1 level", original, decoded)
    assert error.captions == ["mean 0.1000"] * 2
    content = draw_panel("t", [Column("original", original), Column("1", decoded, ["a", "b"]), error])
    with Image.open(io.BytesIO(content)) as image:
        shown = np.asarray(image)
    top, left = GAP + 2 * LINE, GAP
    np.testing.assert_array_equal(shown[top : top + 10, left : left + 200], np.rint(original[0] * 255))
    second = shown[top + 10 + LINE + GAP :][:10]
    np.testing.assert_array_equal(second[:, left : left + 200], np.rint(original[1] * 255))
    assert set(second[:, left + 2 * (200 + GAP) :][:, :200].ravel()) == {102}  # 4 · 0.1


# when they are drawn


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(pictures.time, "monotonic", lambda: self.now)


def test_pictures_take_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, drawn = Clock(monkeypatch), []
    drawer = Pictures(tmp_path, drawn.append)

    def drawing() -> bytes:
        drawn.append(clock.now)
        clock.now += 2
        return b"picture"

    for _ in range(40):  # epochs of 10 seconds
        clock.now += 10
        drawer.draw({"a.png": drawing})
    drawer.draw({"a.png": drawing}, at_once=True)
    assert drawn == [1030.0, 1132.0, 1234.0, 1336.0, 1408.0]
    assert not drawer.due
    drawer.draw({"a.png": drawing})
    assert drawer.due


def test_a_picture_that_fails_is_said_once_and_harms_nothing(tmp_path: Path) -> None:
    notes: list[str] = []
    drawer = Pictures(tmp_path, notes.append)

    def failing() -> bytes:
        raise RuntimeError("out of memory")

    def lacking() -> bytes:
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    drawings = {"a.png": failing, "b.png": lacking, "c.png": lambda: b"picture"}
    (tmp_path / "d.png").mkdir()
    for _ in range(2):
        drawer.draw(drawings | {"d.png": lambda: b"picture"}, at_once=True)
    assert len(notes) == 3
    assert notes[0] == "no a.png from here on: out of memory"
    assert "pip install matplotlib" in notes[1]
    assert "d.png" in notes[2]
    assert {path.name for path in tmp_path.iterdir()} == {"c.png", "d.png"}


def test_an_interrupted_picture_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawer = Pictures(tmp_path, print)
    drawer.draw({"a.png": lambda: b"old"}, at_once=True)

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drawer.draw({"a.png": lambda: b"new"}, at_once=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


# in a training


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    raw = write_raw_folder(root / "raw", {"train": [1, 2, 3], "validate": [4, 5]})
    return preprocess(raw, root / "prepared", size=64).folder


@pytest.fixture
def every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures may take all the time there is."""
    monkeypatch.setattr(pictures, "SHARE_OF_TIME", float("inf"))


def train(data: Path, run: Path, stop_after: int = 0, **changes: Any) -> command.Trained:
    plain = command.Request(
        data=(data,),
        run=run,
        preset="seed",
        images=Images.SCANS,
        overrides=NETWORK,
        seed=5,
        precision="float32",
        device="cpu",
        max_minutes=None,
        resume=False,
        force=False,
        with_prior=False,
        with_residue=False,
    )
    if changes.get("resume"):
        nothing = {"preset": None, "images": None, "overrides": {}, "seed": None, "precision": None}
        plain = dataclasses.replace(plain, **nothing)
    steps = iter(range(1, 10**6))

    def should_stop() -> bool:
        return next(steps) == stop_after

    request = dataclasses.replace(plain, **changes)
    trained = command.train(request, lambda message: None, should_stop, lambda done, total: None)
    assert trained is not None
    return trained


def test_pictures_change_nothing_of_a_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_epoch: None
) -> None:
    """Drawn every epoch, interrupted and resumed, it ends with the bytes of one without pictures."""
    train(data, tmp_path / "drawn", stop_after=4)
    first = {name: (tmp_path / "drawn" / name).read_bytes() for name in BOTH}
    assert all(is_png(content) for content in first.values())
    train(data, tmp_path / "drawn", resume=True)
    last = {name: (tmp_path / "drawn" / name).read_bytes() for name in BOTH}
    assert all(is_png(last[name]) and last[name] != first[name] for name in BOTH)
    rows = MetricsFile(tmp_path / "drawn").rows()
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [1, 2, 3]
    assert last["curves.png"] == draw_curves(rows)  # of the epochs before the stop too

    monkeypatch.setattr(Pictures, "draw", lambda *arguments, **options: None)
    train(data, tmp_path / "plain")
    assert not any((tmp_path / "plain" / name).exists() for name in BOTH)
    ours, theirs = (tmp_path / name / "model.safetensors" for name in ("drawn", "plain"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert not list((tmp_path / "drawn").glob(".*"))


def test_short_epochs_are_drawn_when_the_training_stops(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = count_draws(monkeypatch)
    train(data, tmp_path / "run", stop_after=5)  # one epoch has ended; it was too short to be drawn
    assert drawn == [5]
    train(data, tmp_path / "run", resume=True)
    assert drawn == [5, 9]


def count_draws(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which the panel is drawn from now on; curves are not."""
    drawn: list[int] = []
    panel = codec_training.Training.panel

    def counted(self: codec_training.Training) -> bytes:
        drawn.append(self.step)
        return panel(self)

    monkeypatch.setattr(codec_training.Training, "panel", counted)
    monkeypatch.setattr("oasisvq.training.loop.draw_curves", lambda rows: b"curves")
    return drawn


def test_without_matplotlib_it_is_said_once(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    every_epoch: None,
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    trained = train(data, tmp_path / "run", with_prior=True)
    assert (trained.finished, trained.what) == (True, "prior")
    assert capsys.readouterr().err.count("no curves.png: it is drawn by matplotlib") == 1
    assert is_png((tmp_path / "run" / "panel.png").read_bytes())
    assert not (tmp_path / "run" / "curves.png").exists()


def test_a_panel_without_a_validation_split_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_raw_folder(tmp_path / "raw", {"train": [1, 2, 3]})
    folder = preprocess(raw, tmp_path / "prepared", size=64).folder
    panels: list[tuple[str, list[Column]]] = []
    count_draws(monkeypatch)

    def seen(title: str, columns: list[Column]) -> bytes:
        panels.append((title, columns))
        return b"panel"

    monkeypatch.setattr(codec_training, "draw_panel", seen)
    train(folder, tmp_path / "run")
    [(title, columns)] = panels
    assert title == "step 9 of 9, training slices: no validation split"
    names = ["original", "1 level", "3 levels", "error x4, 1 level"]
    assert [column.name for column in columns] == names
    assert all(len(column.pixels) == 3 for column in columns)  # one a subject
    assert all(column.pixels.min() >= 0 for column in columns)


def test_pictures_of_a_training_that_is_replaced_go(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_draws(monkeypatch)
    run = tmp_path / "run"
    run.mkdir()
    (run / "panel.png").write_bytes(b"precious")
    with pytest.raises(OasisVQError, match=r"holds a training already \(panel.png\)"):
        train(data, run)
    train(data, run, stop_after=1, force=True)
    assert not any((run / name).exists() for name in BOTH)


def test_the_metrics_name_the_parts_of_the_loss(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path / "run", stop_after=3)
    step, epoch = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    parts = step["parts"]
    named = {name: epoch[name] for name in ("ssim_loss", "l1", "mse", "commitment")}
    assert parts == pytest.approx(named, rel=1e-5)
    whole = parts["ssim_loss"] + parts["l1"] + 30 * parts["mse"] + 0.25 * parts["commitment"]
    assert step["loss"] == pytest.approx(whole)


def test_metrics_pass_over_what_someone_spoilt(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path)
    assert metrics.rows() == []
    metrics.write({"step": 1})
    metrics.path.write_bytes(metrics.path.read_bytes() + b'{"step": \n[1]\n\xff\n{"step": 2}\n')
    assert metrics.rows() == [{"step": 1}, {"step": 2}]
