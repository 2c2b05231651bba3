"""Tiny models and drawn phantoms, and no network. No scan of a person is needed to run the tests."""

import atexit
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from residue_models import tiny_residue, tiny_support

from oasisvq.cli.app import main
from oasisvq.codec.codec import Codec
from oasisvq.codec.config import ModelConfig
from oasisvq.codec.modelfile import read_model, write_model
from oasisvq.codec.prior import Prior, PriorConfig
from oasisvq.model_store import carried_name, fingerprint_of, kept_name
from oasisvq.training.loop import Loop
from oasisvq.training.prior_network import Kinds, LevelNetwork, PriorNetwork
from oasisvq.training.weights import Model, file_of, load_model, save_model

TINY = ModelConfig(
    window=(40, 48),
    stride=8,
    encoder_channels=(8, 12),
    encoder_blocks=(1, 1),
    decoder_channels=(12, 8, 4),
    decoder_blocks=(1, 1, 0),
    code_dim=6,
    codebook_size=20,  # no power of two
    levels=3,
    default_levels=2,
)

TINY_PRIOR = PriorConfig(
    codebook_size=20,
    grid=(5, 6),
    code_dim=6,
    features=6,
    position_features=3,
    kinds=4,
    kind_features=2,
    hidden=(16, 12, 8),
    blocks=(1, 1, 0),
    reach=(2, 1, 0),
    passes=(8, 2, 1),
)

TINY_OF_VOLUMES = replace(TINY, levels=2, context=1)
TINY_PRIOR_OF_VOLUMES = replace(
    TINY_PRIOR, hidden=(16, 12), blocks=(1, 1), reach=(2, 1), passes=(8, 2), expected=3
)


def draw_phantom(
    rng: np.random.Generator, height: int = 64, width: int = 64, margin: int = 12
) -> NDArray[np.uint8]:
    """A bright ellipse with darker holes on a ground of exactly 0."""
    rows, columns = np.mgrid[:height, :width]
    vertical, horizontal = (height - 1) / 2, (width - 1) / 2

    def ellipse(row: float, column: float, tall: float, wide: float) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = ((rows - row) / tall) ** 2 + ((columns - column) / wide) ** 2 < 1
        return inside

    plane = np.zeros((height, width))
    plane[ellipse(vertical, horizontal, vertical - margin, horizontal - margin)] = rng.uniform(150, 200)
    for _ in range(3):
        shift = rng.uniform(-4, 4, size=2)
        hole = ellipse(vertical + shift[0], horizontal + shift[1], *rng.uniform(2, 6, size=2))
        plane[hole] = rng.uniform(40, 120)
    plane[plane > 0] += rng.normal(0, 3, size=int((plane > 0).sum()))
    plane = np.clip(np.rint(plane), 0, 255)
    plane[int(vertical), int(horizontal)] = 255
    return plane.astype(np.uint8)


def draw_head(
    rng: np.random.Generator, height: int = 64, width: int = 64, margin: int = 12
) -> NDArray[np.uint8]:
    """A phantom a quarter of which is as faint as air around a whole head: its ground is no mask."""
    plane = draw_phantom(rng, height, width, margin)
    inside = np.flatnonzero((plane > 0) & (plane < 255))
    chosen = rng.choice(inside, inside.size // 4, replace=False)
    plane.flat[chosen] = rng.integers(1, 9, chosen.size)
    return plane


AFFINE = np.array([[-1.0, 0, 0, 90], [0, 1.0, 0, -126], [0, 0, 1.25, -72], [0, 0, 0, 1]])


def draw_volume(
    rng: np.random.Generator,
    slices: int = 6,
    draw: Callable[..., NDArray[np.uint8]] = draw_phantom,
) -> NDArray[np.int16]:
    """(40, 48, slices): a phantom that changes a little from slice to slice, the last two empty."""
    plane = draw(rng, 40, 48, margin=6).astype(np.float64)
    planes = [
        plane * (7 + place) + rng.normal(0, 3, plane.shape) * (plane > 0) for place in range(slices)
    ]
    voxels = np.rint(np.stack(planes, axis=2)).astype(np.int16)
    voxels[..., -2:] = 0
    return voxels


def draw_labels(
    rng: np.random.Generator, shape: tuple[int, int, int], count: int, seeds: int = 30
) -> NDArray[np.uint16]:
    """A ball of cells, each voxel with the label of the nearest of a few points, on a ground of 0."""
    places = np.stack(np.indices(shape), axis=-1) + 0.5
    middle = np.array(shape) / 2
    nearest = np.full(shape, np.inf)
    ranks = np.zeros(shape, np.uint16)
    for label in rng.integers(0, count, seeds):
        distance = ((places - rng.uniform(0, shape)) ** 2).sum(axis=-1)
        ranks[distance < nearest] = label
        nearest = np.minimum(nearest, distance)
    ranks[(((places - middle) / middle) ** 2).sum(axis=-1) > 1] = 0
    return ranks


def tiny_model(config: ModelConfig = TINY, seed: int = 0) -> Model:
    """A model with random weights and codebooks that are really used."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(config)
        model.quantizer.codebooks.copy_(torch.randn_like(model.quantizer.codebooks) * 0.3)
        for block in model.modules():
            if isinstance(block, torch.nn.Conv2d) and not block.weight.any():
                torch.nn.init.normal_(block.weight, std=0.05)
    return model.eval()


def tiny_network(config: PriorConfig = TINY_PRIOR, seed: int = 0) -> PriorNetwork:
    """A prior as it learns, with random weights and predictions that differ by some octaves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PriorNetwork(config)
        with torch.no_grad():
            for level in network.levels:
                assert isinstance(level, LevelNetwork)
                level.output.weight *= 2
                for layer in (level.input, level.output):
                    layer.bias.normal_(std=0.5)
    return network


def tiny_kinds(config: PriorConfig = TINY_PRIOR, seed: int = 0) -> Kinds:
    """Kinds with random centres, one of which no slice has."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(config.kinds, 9 * config.code_dim, generator=generator) * 0.3
    return Kinds(centres, torch.arange(config.kinds).float())


def tiny_prior(config: PriorConfig = TINY_PRIOR, seed: int = 0) -> Prior:
    """A prior for `tiny_model`."""
    return tiny_network(config, seed).prior(tiny_kinds(config, seed))


def codec_of(model: Model) -> Codec:
    """The codec of a model in memory, as it would be in a file."""
    return Codec(file_of(model, {}))


os.environ["OASISVQ_STORE"] = tempfile.mkdtemp(prefix="oasisvq-store-")  # also of processes of tests
atexit.register(shutil.rmtree, os.environ["OASISVQ_STORE"], ignore_errors=True)
os.environ["XDG_DATA_HOME"] = os.environ["OASISVQ_STORE"]  # also where a test unsets the first
os.environ.pop("OASISVQ_MODELS", None)


@pytest.fixture(autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's models are kept, and never those of a person."""
    folder = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("OASISVQ_STORE", str(folder))
    return folder


NETWORK_EVENTS = (
    *("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"),
    *("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"),
)
network_attempts: list[str] = []

if "PYTEST_XDIST_WORKER" in os.environ:  # another process tests on the other core
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
    torch.set_num_threads(1)


def refuse_network(event: str, arguments: tuple[object, ...]) -> None:
    """Python tells this hook of all it does with sockets, in whatever module; an error forbids it.

    Processes are not followed: those of torchrun in training/test_survival.py meet on this machine.
    """
    if event not in NETWORK_EVENTS:
        return
    first = arguments[0]
    if isinstance(first, socket.socket) and first.family == getattr(socket, "AF_UNIX", None):
        return
    network_attempts.append(f"{event} {arguments[1:]}")
    raise PermissionError(f"a test reached for the network: {network_attempts[-1]}")


sys.addaudithook(refuse_network)


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Also an attempt whose error was caught fails the test."""
    network_attempts.clear()
    yield
    assert not network_attempts


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(tiny_model(), path, {"images": "scans", "size": 64})
    return path


@pytest.fixture(scope="session")
def prior_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The codec of `model_file` with a prior."""
    path = tmp_path_factory.mktemp("prior") / "model.safetensors"
    save_model(tiny_model(), path, {"images": "scans", "size": 64}, tiny_prior())
    return path


@pytest.fixture(scope="session")
def residue_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `prior_model_file` with a network for residues."""
    path = tmp_path_factory.mktemp("residue") / "model.safetensors"
    file = file_of(tiny_model(), {"images": "scans", "size": 64}, tiny_prior())
    write_model(file.with_residue(tiny_residue(), tiny_support(), file.card), path)
    return path


@pytest.fixture(scope="session")
def volumes_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `residue_model_file` with codec and prior of volumes of their own."""
    path = tmp_path_factory.mktemp("volumes") / "model.safetensors"
    file = file_of(tiny_model(), {"images": "scans", "size": 64}, tiny_prior())
    theirs = tiny_model(TINY_OF_VOLUMES, seed=3)
    volumes = file_of(theirs, {}, tiny_prior(TINY_PRIOR_OF_VOLUMES, seed=3))
    with_residue = file.with_residue(tiny_residue(), None, file.card)
    write_model(with_residue.with_volumes(volumes, file.card), path)
    return path


@pytest.fixture
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("other") / "model.safetensors"
    save_model(tiny_model(seed=1), path, {})
    return path


@pytest.fixture(params=["model_file", "prior_model_file", "volumes_model_file"])
def model(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture
def phantom_png(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "scan.png"
    Image.fromarray(draw_phantom(rng)).save(path)
    return path


def write_raw_folder(
    root: Path,
    subjects: dict[str, list[int]],
    slices: int = 4,
    kind: str = "case",
    size: int = 64,
) -> Path:
    """A UQ PNG tree: {"train": [1, 2], "validate": [3]} -> root/keras_png_slices_train/case_001_..."""
    rng = np.random.default_rng(3)
    middle = "seg_" if kind == "seg" else ""
    for split, numbers in subjects.items():
        folder = root / f"keras_png_slices_{middle}{split}"
        folder.mkdir(parents=True)
        for number in numbers:
            for index in range(slices):
                plane = draw_phantom(rng, size, size, margin=size // 5)
                if kind == "seg":
                    plane = (np.digitize(plane, [1, 90, 180]) * 85).astype(np.uint8)
                Image.fromarray(plane).save(folder / f"{kind}_{number:03d}_slice_{index}.nii.png")
    return root


@pytest.fixture
def raw_folder(tmp_path: Path) -> Path:
    return write_raw_folder(tmp_path / "data", {"train": [1, 2, 3], "validate": [4, 5]})


class Result(NamedTuple):
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]
Killed = Callable[[Callable[[], object]], None]
Refused = Callable[..., str]
NOTES = ("dataset ", "model ", "preset ")  # lines on stderr that may stand before the error


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command line in this process, in `tmp_path`, without a model chosen by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OASISVQ_MODEL", raising=False)

    def call(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(exit_info.value.code, int)
        return Result(exit_info.value.code, captured.out, captured.err)

    return call


def snapshot(root: Path) -> dict[str, object]:
    """Everything below a folder: contents of files, targets of links, and the folders themselves."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = path.readlink()
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder or pipe"
    return found


def files_below(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def fingerprint(model: Path) -> str:
    return load_model(model).fingerprint.hex()


def carried(model: Path) -> str:
    """What a folder of codes calls its model."""
    return carried_name(fingerprint_of(read_model(model)))


def kept(model: Path) -> str:
    """What the store calls a model."""
    return kept_name(fingerprint_of(read_model(model)))


def renamed(model: Path, path: Path, other: str) -> None:
    """A copy of a model that says it is another one."""
    ours = fingerprint_of(read_model(model))
    path.write_bytes(model.read_bytes().replace(ours.encode(), other.encode()))


def plane(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def refused(run: Run, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a command that must fail with one line naming `naming`, and change nothing on disk."""
    monkeypatch.setenv("OASISVQ_MODEL", str(model_file))

    def call(*arguments: str | Path, naming: str, code: int = 1) -> str:
        before = snapshot(tmp_path)
        result = run(*arguments)
        assert result.code == code, result
        assert result.out == ""
        *notes, line = result.err.splitlines()
        assert line.startswith("oasisvq: ")
        assert naming in line
        assert all(note.startswith(NOTES) for note in notes), result.err
        assert snapshot(tmp_path) == before
        return line

    return call


@pytest.fixture
def codes(run: Run, model_file: Path, phantom_png: Path, tmp_path: Path) -> Path:
    """scan.codes, made from scan.png, which is taken away."""
    assert run("encode", phantom_png, "--model", model_file).code == 0
    phantom_png.unlink()
    return tmp_path / "scan.codes"


@pytest.fixture
def prepared(run: Run, tmp_path: Path) -> Path:
    """A prepared dataset of four training and two validation slices, and no raw folder."""
    raw = write_raw_folder(tmp_path / "raw", {"train": [1, 2], "validate": [3]}, slices=2)
    assert run("preprocess", raw, "-o", "prepared", "--size", "64").code == 0
    shutil.rmtree(raw)
    return tmp_path / "prepared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans, where this machine has them."""
    path = Path(os.environ.get("OASISVQ_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real scans at {path}; name their folder in OASISVQ_TEST_DATA")
    return path


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Killed:
    """Runs a call of `train` that is killed after the set-up of its first stage, before a save."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    def run_and_kill(train: Callable[[], object]) -> None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Loop, "go", die)
            train()

    return run_and_kill
