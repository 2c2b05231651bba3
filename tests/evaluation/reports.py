"""A report of a tiny split, whose names are those of an attacker, for tests of reports."""

import json
from dataclasses import replace
from pathlib import Path

from conftest import tiny_model, tiny_prior, write_raw_folder

import oasisvq
from oasisvq.data.dataset import Dataset, Split
from oasisvq.data.preprocess import preprocess
from oasisvq.evaluation.baselines import compare
from oasisvq.evaluation.observations import observe
from oasisvq.evaluation.report import Report
from oasisvq.evaluation.samples import Request, draw_beside, score_samples
from oasisvq.training.weights import save_model

EVIL = "</title></script><script>alert(1)</script>--><!-- & \"' onload=x $x^$ \x1b[31m\u202e\x9b"
EPOCH = {
    "what": "codec",
    "kind": "epoch",
    "epoch": 1,
    "loss": 0.5,
    "ssim_loss": 0.3,
    "l1": 0.1,
    "commitment": 0.1,
    "validation_ssim": [0.5, 0.6, 0.7],
    "perplexity": [5.0, 6.0, 7.0],
}
PRIOR_EPOCH = {"what": "prior", "kind": "epoch", "epoch": 1, "validation_bits": [3.0, 3.5, 4.0]}


def make_dataset(folder: Path) -> Dataset:
    """A prepared dataset of few subjects."""
    raw = write_raw_folder(folder / "raw", {"train": [1, 2], "validate": [4, 5, 6, 7]}, slices=3)
    found = preprocess(raw, folder / "prepared", size=64)
    split = found.splits["validation"]
    records = [replace(record, source=f"{EVIL}/{record.source}") for record in split.records]
    records = [replace(r, subject=EVIL) if r.subject == records[0].subject else r for r in records]
    splits = found.splits | {"validation": Split(tuple(records), split.sha256, split.content)}
    training = found.splits["train"]
    near = tuple(replace(record, subject=f"{EVIL} t", source=f"{EVIL} t") for record in training.records)
    splits["train"] = Split(near, training.sha256, training.content)
    named = Path(f"{EVIL} given")
    return replace(found, splits=splits, layout=f"{EVIL} layout", raw=f"{EVIL} raw", named=named)


def make_report(dataset: Dataset, folder: Path) -> Report:
    """Everything a report can tell of it."""
    run = folder / EVIL.replace("/", "\N{FRACTION SLASH}")
    run.mkdir()
    model = run / "model.safetensors"
    save_model(tiny_model(), model, {"images": "scans", "size": 64, EVIL: f"{EVIL} card"}, tiny_prior())
    rows = [EPOCH, EPOCH | {"epoch": 2}, PRIOR_EPOCH, PRIOR_EPOCH | {"epoch": 2}]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nspoilt")
    codec = oasisvq.load(model)
    return Report(
        codec,
        model,
        f"{EVIL} named",
        dataset,
        1,
        observe(codec, dataset, "validation", [2, 3]),
        compare(codec, dataset, "validation", ["jpeg"], every=4),
        draw_beside(codec, Request(2), dataset),
        score_samples(codec, dataset, "validation", 6),
    )
