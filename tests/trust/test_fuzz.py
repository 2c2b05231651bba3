"""The fuzz targets on their seeds and some changes of them, without atheris; `fuzz/run.py` runs long."""

import argparse
import contextlib
import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutators
import pytest
import run as runner
import seeds
from harness import Examiner, LimitError, Target
from targets import TARGETS

from oasisvq.codec import container
from oasisvq.errors import CodesFileError, ImageError

A_FEW = 60  # changes of each target


def changed_bytes(rng: random.Random) -> Callable[[bytes], bytes]:
    """What libFuzzer does better: one byte replaced, left out or put in."""

    def change(content: bytes) -> bytes:
        at, byte = rng.randrange(len(content) + 1), bytes((rng.randrange(256),))
        return content[:at] + rng.choice((byte, b"")) + content[at + rng.randrange(2) :]

    return change


def changes(name: str, count: int) -> list[bytes]:
    rng, target = random.Random(name), TARGETS[name]
    start = target.seeds()
    return [target.mutate(rng.choice(start), rng, changed_bytes(rng)) for _ in range(count)]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_accepted_and_changes_of_them_crash_nothing(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    start = target.seeds()
    examine = Examiner(target, tmp_path, seconds=20, grown_bytes=2**31)  # of a busy machine
    assert all(examine(seed) for seed in start)
    assert max(map(len, start)) <= target.most_bytes
    accepted = [examine(content) for content in changes(name, A_FEW)]
    assert set(accepted) == {False, True}


# -- what counts as a crash


def nothing(*_: object) -> None:
    pass


def target_of(read: Callable[[bytes, Path], Any], hold: Callable[..., None] = nothing) -> Target:
    return Target(read, (CodesFileError,), hold, list, mutators.as_bytes, 9)


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_refusal_is_none(tmp_path: Path) -> None:
    assert Examiner(target_of(raising(CodesFileError("damaged"))), tmp_path)(b"") is False
    assert Examiner(target_of(lambda content, _: content), tmp_path)(b"") is True


@pytest.mark.parametrize("error", [KeyError(), ImageError("of another kind"), AssertionError()])
def test_every_other_error_is_a_crash(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        Examiner(target_of(raising(error)), tmp_path)(b"")


def test_what_does_not_hold_is_a_crash_whatever_the_error(tmp_path: Path) -> None:
    target = target_of(lambda content, _: content, raising(CodesFileError("later")))
    with pytest.raises(CodesFileError, match="later"):
        Examiner(target, tmp_path)(b"")


def test_time_and_memory_are_limited(tmp_path: Path) -> None:
    slow = target_of(lambda _, __: sum(range(100_000)))
    with pytest.raises(LimitError, match="s, expected at most"):
        Examiner(slow, tmp_path, seconds=1e-9)(b"")
    with pytest.raises(LimitError, match="bytes of memory"):
        Examiner(target_of(raising(CodesFileError("refused"))), tmp_path, grown_bytes=-1)(b"")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("codes", lambda file: file._replace(payload=file.payload + b"\0")),
        ("payload", lambda codes: codes._replace(indices=codes.indices + 9)),
        ("volume", lambda scan: type(scan)(scan.planes[:1], scan.placement)),
        ("image", lambda scan: type(scan)(scan.planes.astype("i4"))),
    ],
)
def test_what_is_accepted_wrongly_is_seen(
    name: str, spoil: Callable[[Any], Any], tmp_path: Path
) -> None:
    target = TARGETS[name]

    def read(content: bytes, folder: Path) -> Any:
        return spoil(target.read(content, folder))

    with pytest.raises(AssertionError):
        Examiner(target._replace(read=read), tmp_path)(target.seeds()[0])


# -- mutators


def test_changed_codes_files_reach_what_lies_behind_the_crc() -> None:
    right = [mutators.with_crc(each) == each for each in changes("codes", 300)]
    assert 0.85 < sum(right) / len(right) < 1


def test_headers_of_codes_files_are_changed_field_by_field() -> None:
    rng, seed = random.Random(1), container.write(seeds.cases()[2].header, seeds.cases()[2].payloads[1])
    wanted = {"stride", "window", "intensity", "sample_type"}
    header, found = container.read(seed, "x").header, set()
    for _ in range(3000):
        with contextlib.suppress(CodesFileError):
            other = container.read(mutators.codes_file(seed, rng, lambda part: part), "x").header
            found |= {field for field in wanted if getattr(other, field) != getattr(header, field)}
    assert found == wanted


def test_parts_of_files_are_put_together_as_they_were() -> None:
    for content in seeds.dicom_files()[3:]:
        elements = mutators._elements(content)
        assert content[:132] + b"".join(mutators._element(*each) for each in elements) == content
    png = seeds.image_files()[0]
    assert mutators._chunk((b"IHDR", png[16:29])) in png


def test_json_is_changed_to_json() -> None:
    rng, text = random.Random(2), json.dumps({"a": [1, "x", {"b": None}], "c": 2.5}).encode()
    found = {mutators.json_text(text, rng, lambda part: b"") for _ in range(300)} - {b""}
    assert len(found) > 100
    for each in found:
        if not each.startswith(b"[["):
            json.loads(each)


# -- the runner


def fake_run(code: int, said: bytes, crash: bytes | None = None) -> Callable[..., Any]:
    def run(command: list[str], stdout: Any, **_: object) -> "subprocess.CompletedProcess[bytes]":
        stdout.write(said)
        if crash is not None:
            (prefix,) = (each for each in command if each.startswith("-artifact_prefix="))
            Path(prefix.partition("=")[2] + "crash-1").write_bytes(crash)
        return subprocess.CompletedProcess(command, code)

    return run


def test_what_a_run_came_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = b"#2\tINITED cov: 3 ft: 4 corp: 5/6b\n#90\tNEW    cov: 7 ft: 8 corp: 9/10b\n"
    stats = b"stat::number_of_executed_units: 123\n"
    monkeypatch.setattr(subprocess, "run", fake_run(0, said + stats))
    outcome = runner.fuzz("codes", [], tmp_path / "corpus", tmp_path / "crashes")
    assert outcome[:4] == (123, 7, 8, 9)
    assert outcome.is_well
    assert len(list((tmp_path / "corpus").iterdir())) == len(set(seeds.codes_files()))

    monkeypatch.setattr(subprocess, "run", fake_run(77, said, crash=b"bad"))
    outcome = runner.fuzz("codes", [], tmp_path / "corpus", tmp_path / "crashes")
    assert outcome.executions == 90
    assert [path.read_bytes() for path in outcome.crashes] == [b"bad"]
    assert not outcome.is_well

    monkeypatch.setattr(subprocess, "run", fake_run(1, b"Traceback"))
    assert not runner.fuzz("codes", [], tmp_path / "corpus", tmp_path / "crashes").is_well


def test_executions_add_up_to_a_total(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    given = argparse.Namespace(total=250_000, record=record, seed=1, runs=None, seconds=None)
    rounds = []
    for options in runner.ends_of(given, "codes"):
        rounds.append(options)
        runner.add_to_record(record, "codes", int(options[0].partition("=")[2]))
    assert rounds[0] == ["-runs=100000", "-seed=1"]
    assert rounds[-1] == ["-runs=50000", "-seed=200001"]
    assert runner.on_record(record) == {"codes": 250_000}


def test_a_finding_ends_with_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "there")
    monkeypatch.setattr(sys, "argv", ["run.py", "--target", "payload", "--runs", "5"])
    monkeypatch.setattr(subprocess, "run", fake_run(0, b"#5 DONE cov: 1 ft: 1 corp: 1/1b\n"))
    assert runner.main() == 0
    monkeypatch.setattr(subprocess, "run", fake_run(77, b"#5 DONE cov: 1 ft: 1 corp: 1/1b\n", b"bad"))
    assert runner.main() == 1
    assert "payload-crash-1" in capsys.readouterr().out
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert runner.main() == 2
    assert "pip install" in capsys.readouterr().out


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_atheris_finds_its_way(tmp_path: Path) -> None:
    outcome = runner.fuzz("manifest", ["-runs=300"], tmp_path / "corpus", tmp_path / "crashes")
    assert outcome.is_well
    assert outcome.executions >= 300 and outcome.coverage > 50
