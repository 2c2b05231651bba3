"""The report of a split: all of its parts, safe to open, and alive in a real browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import Result, tiny_model, tiny_prior, write_raw_folder
from PIL import Image

import oasisvq
from oasisvq.codec.codec import Codec
from oasisvq.data.dataset import Dataset, Split
from oasisvq.data.preprocess import preprocess
from oasisvq.evaluation import figures
from oasisvq.evaluation.baselines import Comparison, compare
from oasisvq.evaluation.charts import bits_map, latent_map, rate_curve
from oasisvq.evaluation.figures import Chart
from oasisvq.evaluation.observations import Observations, QualityRows, choose_cases, level_usage, observe
from oasisvq.evaluation.panels import View, draw_panel, view_slice
from oasisvq.evaluation.report import Report, page, write_figures
from oasisvq.evaluation.samples import Request, draw_beside, score_samples
from oasisvq.evaluation.score import score_split
from oasisvq.evaluation.training_charts import read_metrics
from oasisvq.text import printable
from oasisvq.training.weights import save_model

EVIL = "</title></script><script>alert(1)</script>--><!-- & \"' onload=x $x^$ \x1b[31m\u202e\x9b"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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
PROBE = """<script>
window.addEventListener("load", () => {
  const slider = document.querySelector(".case input");
  const over = document.querySelectorAll(".compare img")[1];
  const before = getComputedStyle(over).clipPath;
  slider.value = 20;
  slider.dispatchEvent(new Event("input"));
  const dot = document.querySelector("[data-slice='3']");
  dot.dispatchEvent(new Event("pointerover", { bubbles: true }));
  const wide = [...document.querySelectorAll("body *")].filter((element) =>
    !element.closest(".scroll, svg") && element.getBoundingClientRect().right > innerWidth + 1);
  parent.postMessage({
    width: innerWidth, clip: [before, getComputedStyle(over).clipPath],
    thumb: document.getElementById("thumb").getAttribute("aria-label"),
    broken: [...document.images].filter((image) => !image.complete || !image.naturalWidth).length,
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 5)),
    wide: wide.map((element) => element.outerHTML.slice(0, 80)),
    scroll: document.documentElement.scrollWidth,
  }, "*");
});
</script></body>"""
FRAMES = """<!doctype html><body><pre></pre><script>
const said = [];
addEventListener("message", (event) => {
  said.push(event.data);
  document.querySelector("pre").textContent = "said:" + JSON.stringify(said) + ":end";
});
</script><iframe src="probed.html" width="390" height="800"></iframe>
<iframe src="probed.html" width="1280" height="800"></iframe></body>"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("report")
    raw = write_raw_folder(folder / "raw", {"train": [1, 2], "validate": [4, 5, 6, 7]}, slices=3)
    found = preprocess(raw, folder / "prepared", size=64)
    split = found.splits["validation"]
    records = [replace(record, source=f"{EVIL}/{record.source}") for record in split.records]
    records = [replace(r, subject=EVIL) if r.subject == records[0].subject else r for r in records]
    splits = found.splits | {"validation": Split(tuple(records), split.sha256, split.content)}
    training = found.splits["train"]
    near = tuple(replace(record, subject=f"{EVIL} t", source=f"{EVIL} t") for record in training.records)
    splits["train"] = Split(near, training.sha256, training.content)
    return replace(found, splits=splits, layout=f"{EVIL} layout", raw=f"{EVIL} raw")


@pytest.fixture(scope="module")
def report(dataset: Dataset, prior_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    run = tmp_path_factory.mktemp("run") / EVIL.replace("/", "\N{FRACTION SLASH}")
    run.mkdir()
    model = run / "model.safetensors"
    save_model(tiny_model(), model, {"images": "scans", "size": 64, EVIL: f"{EVIL} card"}, tiny_prior())
    rows = [EPOCH, EPOCH | {"epoch": 2}, PRIOR_EPOCH, PRIOR_EPOCH | {"epoch": 2}]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nspoilt")
    codec = oasisvq.load(model)
    return Report(
        codec,
        model,
        dataset,
        1,
        observe(codec, dataset, "validation", [2, 3]),
        compare(codec, dataset, "validation", ["jpeg"], every=4),
        draw_beside(codec, Request(2), dataset),
        score_samples(codec, dataset, "validation", 6),
    )


@pytest.fixture(scope="module")
def html(report: Report) -> str:
    return page(report)


def test_one_pass_gathers_what_score_measures(report: Report, dataset: Dataset) -> None:
    seen, codec = report.seen, report.codec
    assert seen.score == score_split(codec, dataset, "validation", [2, 3])
    assert (seen.main, list(seen.rows)) == (2, [2, 3])
    assert seen.rows[2].ssim.mean() == pytest.approx(seen.score.qualities[0].ssim.mean)
    assert seen.pooled.shape == (12, 9 * codec.config.code_dim)
    cells = 5 * 6  # of the model's field of view
    np.testing.assert_array_equal(seen.usage.sum(1), [12 * cells] * 3)
    assert type(codec.prior).__name__ == "Prior"  # that of the codec itself is left as it was


def test_bits_of_cells_add_up_to_the_files(report: Report) -> None:
    seen = report.seen
    assert seen.bits is not None
    assert seen.bits.shape == (2, 8, 8)
    overhead = seen.score.qualities[0].file_bytes - seen.bits.sum() / 8
    assert 34 < overhead < 42  # header, kind of slice and rounding


def test_every_n_th_slice(dataset: Dataset, report: Report) -> None:
    seen = observe(report.codec, dataset, "validation", [1], every=5)
    assert seen.score.slices == len(seen.records) == len(seen.thumbnails) == 3
    assert seen.records[1] == dataset.splits["validation"].records[5]


def test_cases_are_of_different_subjects() -> None:
    merit = np.array([0.9, 0.1, 0.2, 0.8, 0.5, np.nan, 0.55])
    ssim = np.full(7, 0.52)
    subjects = ["a", "a", "b", "b", "c", "c", "a"]
    cases = choose_cases(QualityRows(ssim, merit, ssim, ssim), subjects)
    assert cases[0] == ("best", 0)
    assert cases[1] == ("best", 3)
    assert [place for kind, place in cases if kind == "worst"] == [1, 2, 4]
    assert len({place for _, place in cases}) == len(cases)


def test_usage_of_a_level() -> None:
    assert level_usage(np.array([4, 4, 0, 4, 4])) == pytest.approx((4, 4.0, 16))
    assert level_usage(np.zeros(3, np.int64)).used == 0


def test_the_report_has_all_its_parts(html: str, report: Report) -> None:
    seen = report.seen
    for part in (
        f"SSIM {seen.score.qualities[0].ssim.mean:.4f}",
        f"{seen.score.qualities[0].file_bytes:,.0f} bytes",
        "Where does it fail?",
        "Is the codebook healthy?",
        "How does it compare?",
        f"model <code>{seen.score.fingerprint[:8]}</code>",
        "all black",
        "BD-rate against",
        "JPEG (optimised tables)",
        "Fréchet distance",
        "nearest training slice",
        "Content-Security-Policy",
    ):
        assert part in html, part
    for name in (
        "ssim-slices",
        "ssim-subjects",
        "ssim-position",
        "error-map",
        "rate-ssim",
        "codebook-usage",
        "codebook-ranks",
        "bits",
        "training-loss",
        "training-ssim",
        "training-perplexity",
        "training-prior",
        "latent-map",
    ):
        assert f'id="{name}-figure_1"' in html, name
    assert html.count("type='range'") == len(seen.cases) > 3
    assert html.count("data-slice=") >= 12
    assert len(html) < 2_000_000


def test_the_report_reaches_for_no_network(html: str) -> None:
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[\w+/=\s]*", "", html))
    sources = re.findall(r"(?:src|href)=[\"']([^\"'#]{1,5})", html)
    assert set(sources) <= {"data:"}


class Elements(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.attributes: set[str] = set()
        self.quoted: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.attributes |= {name for name, _ in attrs}
        self.quoted += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        self.quoted.append(data)


def test_names_from_files_are_escaped(html: str, report: Report) -> None:
    assert "<script>alert" not in html
    elements = Elements()
    elements.feed(html)
    elements.close()
    assert elements.scripts == 1
    assert not any(name.startswith("on") or not name.isprintable() for name in elements.attributes)
    whole = "\n".join(elements.quoted)
    for said in (EVIL, f"{EVIL} layout", f"{EVIL} card", f"{EVIL} t", report.model.parent.name):
        assert printable(said) in whole, said
    assert not any(letter in html for letter in "\x1b\u202e\x9b")


def test_names_in_a_vector_figure_are_escaped(report: Report) -> None:
    """An SVG is a page of its own to a browser."""
    view = View(EVIL, report.seen.cases[0].codes, None, None, 1.0)
    slices = [view_slice(report.codec, view, 0)]
    content = figures.figure_bytes(draw_panel(view, slices, report.codec.file.codebooks), ".svg")
    root = ElementTree.fromstring(content)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert {"svg", "path", "image"} <= tags
    assert not tags & {"script", "foreignObject", "a", "b", "iframe"}
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not any(name.startswith("on") for name in attributes)
    assert b"<script" not in content
    comments = re.findall(rb"<!--(.*?)-->", content, re.DOTALL)  # matplotlib says each text in one
    assert any(b"alert(1)" in comment for comment in comments)


def test_every_picture_has_an_alternative_text(html: str) -> None:
    pictures = re.findall(r"<img [^>]*>", html)
    assert len(pictures) > 15
    assert all(re.search(r' alt="[^"]+"', picture) for picture in pictures)
    charts = re.findall(r"<svg [^>]*>", html)
    assert all(re.search(r'role="img" aria-label="[^"]+"', chart) for chart in charts)


def test_names_in_the_page_are_unique(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(set(ids)) == len(ids)
    used = re.findall(r'xlink:href="#([^"]+)"|url\(#([^)]+)\)', html)
    assert {first or second for first, second in used} <= set(ids)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_report_lives_in_a_browser(html: str, tmp_path: Path) -> None:
    (tmp_path / "probed.html").write_text(html.replace("</body>", PROBE))
    (tmp_path / "frames.html").write_text(FRAMES)
    assert CHROMIUM is not None
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    options += " --disable-background-networking --disable-component-update --enable-logging=stderr"
    ended = subprocess.run(
        [
            CHROMIUM,
            *options.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--virtual-time-budget=4000",
            "--dump-dom",
            (tmp_path / "frames.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CONSOLE" not in ended.stderr, ended.stderr
    found = re.search("said:(.*):end", unescape(ended.stdout))
    assert found, ended.stdout[-2000:]
    said = sorted(json.loads(found[1]), key=lambda each: each["width"])
    assert [each["width"] for each in said] == [390, 1280]
    for each in said:
        assert each["clip"] == ["inset(0px 0px 0px 50%)", "inset(0px 0px 0px 20%)"]
        assert re.search(r"slice 0: SSIM 0\.\d{4}", each["thumb"])
        assert each["broken"] == 0
        assert set(each["fetched"]) <= {"data:"}
        assert each["wide"] == []
        assert each["scroll"] <= each["width"]


@pytest.fixture
def few_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two charts in place of all, which the tests of the page draw."""

    def draw(seen: Observations, comparison: Comparison, metrics: list[object]) -> list[Chart]:
        assert isinstance(metrics, list)
        return [rate_curve(seen, comparison, "ssim"), latent_map(seen)]

    monkeypatch.setattr(figures, "DOTS_PER_INCH", 100)
    monkeypatch.setattr("oasisvq.evaluation.report.draw_charts", draw)


@pytest.mark.usefixtures("few_charts")
def test_figures_for_a_paper(report: Report, tmp_path: Path) -> None:
    assert write_figures(report, tmp_path / "figures") == 6
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    expected = "rate-ssim", "latent-map", "panel-best", "panel-median", "panel-worst", "samples"
    assert names == {f"{name}{suffix}" for name in expected for suffix in (".png", ".svg")}
    for name, millimetres in (("rate-ssim", 88), ("panel-worst", 180)):
        with Image.open(tmp_path / "figures" / f"{name}.png") as chart:
            assert chart.width == pytest.approx(100 * millimetres / 25.4, abs=1)


def test_the_same_measurement_draws_the_same_bytes(report: Report) -> None:
    for suffix in figures.SUFFIXES:
        first, second = (figures.figure_bytes(bits_map(report.seen).figure, suffix) for _ in range(2))
        assert first == second


def test_a_model_without_prior_or_run_has_a_report(dataset: Dataset, tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "model.safetensors", {"size": 64})
    codec = Codec.load(tmp_path / "model.safetensors")
    seen = observe(codec, dataset, "validation", [])
    assert seen.bits is None
    text = page(Report(codec, tmp_path / "model.safetensors", dataset, 1, seen))
    assert "This model has no prior" in text
    assert "No metrics.jsonl lies beside the model" in text
    assert "Not measured" in text


def test_spoilt_metrics_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 1}\n[1]\nnull\n{"kind": "ste')
    assert read_metrics(tmp_path / "model.safetensors") == [{"kind": "epoch", "epoch": 1}]
    assert read_metrics(tmp_path / "none" / "model.safetensors") == []
    for key, value in (
        ("epoch", "<script>"),
        ("epoch", 10**400),
        ("loss", "0.5"),
        ("validation_ssim", 0.5),
        ("validation_ssim", [[0.5]]),
        ("perplexity", "high"),
        ("validation_bits", [None]),
    ):
        rows = [EPOCH, EPOCH | {key: value}]
        (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert read_metrics(tmp_path / "model.safetensors") == [EPOCH]


@pytest.mark.usefixtures("few_charts")
def test_score_writes_report_and_figures(
    run: Callable[..., Result],
    dataset: Dataset,
    prior_model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("oasisvq.evaluation.report.page", lambda report: f"{report.every} {EVIL}")
    common = ("score", dataset.folder, "--every", "6", "--model", prior_model_file)
    result = run(*common, "--report", "r.html", "--figures", "f", "--against", "jpeg", "--json")
    assert result.code == 0, result
    fields = json.loads(result.out)
    assert fields["slices"] == fields["comparison"]["slices"] == 2
    assert "it holds pictures of scans" in result.err
    assert (tmp_path / "r.html").read_text() == f"6 {EVIL}"
    assert (tmp_path / "f" / "rate-ssim.svg").is_file()
    for option in (("--report", "r.html"), ("--figures", "f")):
        refused = run(*common, *option)
        assert (refused.code, "pass -f" in refused.err) == (1, True)
    again = run(*common, "--report", "r.html", "-f", "--against", "jpeg", "--samples", "6")
    assert "  quality 60 " in again.out
    assert "Fréchet distance to 12 slices" in again.out
    assert run("score", tmp_path / "r.html", "--report", "x.html").code == 2
