"""Samples that cannot be drawn, and outputs in their way."""

from pathlib import Path

from conftest import Refused, Run


def test_sampling_without_a_prior(refused: Refused) -> None:
    for options in (
        ("-o", "a.png"),
        ("-o", "folder"),
        ("-o", "folder", "--codes"),
        ("-n1", "-o", "a.codes"),
    ):
        assert "--prior-only" in refused("sample", *options, naming="has no prior to draw from")


def test_samples_never_overwrite_unasked(
    refused: Refused, prior_model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"precious")
    (tmp_path / "a.codes").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "sample-1.png").write_bytes(b"precious")
    for output, count in (("a.png", "2"), ("a.codes", "1"), ("folder", "3")):
        options = ("-n", count, "-o", output, "--model", prior_model_file)
        assert "pass -f" in refused("sample", *options, naming=output)


def test_neighbours_that_are_no_dataset_of_the_models_size(
    refused: Refused, run: Run, prior_model_file: Path, raw_folder: Path, tmp_path: Path
) -> None:
    assert run("preprocess", raw_folder, "-o", "large", "--size", "80").code == 0
    for data, naming in (("missing", "missing"), ("data", "data"), ("large", "slices of 80×80")):
        options = ("-n", "1", "-o", "a.png", "--neighbours", data, "--model", prior_model_file)
        refused("sample", *options, naming=naming)
