"""The report of a split: all of its parts, and safe to open."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import Result, tiny_model, write_raw_folder
from PIL import Image
from reports import EPOCH, EVIL, make_dataset, make_report

from oasisvq.codec.codec import Codec
from oasisvq.data.dataset import Dataset
from oasisvq.evaluation import figures
from oasisvq.evaluation.baselines import Comparison
from oasisvq.evaluation.charts import bits_map, latent_map, rate_curve
from oasisvq.evaluation.figures import Chart
from oasisvq.evaluation.galleries import cases
from oasisvq.evaluation.marks import AXIAL
from oasisvq.evaluation.observations import Observations, QualityRows, choose_cases, level_usage, observe
from oasisvq.evaluation.panels import View, draw_panel, view_slice
from oasisvq.evaluation.report import Report, page, write_figures
from oasisvq.evaluation.samples import Request, Training, draw_beside, training_of
from oasisvq.evaluation.score import score_split
from oasisvq.evaluation.training_charts import read_metrics
from oasisvq.text import printable
from oasisvq.training.weights import save_model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def report(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make_report(dataset, tmp_path_factory.mktemp("run"))


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
    # header, kind of slice, rounding, the outline of the ground and the weights of its restoration
    assert 34 < overhead < 90


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
        "nearest of the 6 training slices",
        "does not say on which slices it was trained",
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


def test_cases_say_which_way_they_lie(report: Report) -> None:
    seen = report.seen
    assert "nose" not in cases(seen)  # nothing is known of this layout
    shown = cases(seen._replace(cases=[case._replace(marks=AXIAL) for case in seen.cases]))
    assert "The triangle points to the nose." in shown
    assert shown.count("<b class='top' aria-hidden='true'>L</b>") == 2 * len(seen.cases)
    assert shown.count("<b class='right' aria-hidden='true'>▸</b>") == 2 * len(seen.cases)
    assert "left at the top, right at the bottom, nose at the right" in shown


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
        self.goes_on = False  # where a line may break inside a name

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.goes_on = tag == "wbr"
        self.scripts += tag == "script"
        self.attributes |= {name for name, _ in attrs}
        self.quoted += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        before = self.quoted.pop() if self.goes_on else ""
        self.goes_on = False
        self.quoted.append(before + data)


def test_names_from_files_are_escaped(html: str, report: Report) -> None:
    assert "<script>alert" not in html
    elements = Elements()
    elements.feed(html)
    elements.close()
    assert elements.scripts == 1
    assert not any(name.startswith("on") or not name.isprintable() for name in elements.attributes)
    whole = "\n".join(elements.quoted)
    for said in (EVIL, *(f"{EVIL} {name}" for name in ("layout", "card", "t", "given", "named"))):
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


@pytest.fixture
def few_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two charts in place of all, which the tests of the page draw."""

    def draw(
        seen: Observations, comparison: Comparison, metrics: list[object], **style: object
    ) -> list[Chart]:
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
    model = tmp_path / "model.safetensors"
    text = page(Report(codec, model, "my model", replace(dataset, named=Path("my/data")), 1, seen))
    for section in ("bits", "training", "samples", "comparison"):
        assert f'<section id="{section}"' not in text
        assert f'href="#{section}"' not in text
    assert "my model, " in text
    assert "my/data, split validation" in text
    assert str(dataset.folder) not in text
    for said in ("classic codecs: add --against", "the model has no prior", "no metrics.jsonl"):
        assert said in text, said
    bodies = re.findall(r"<section id=.*?</h2>\n(.*?)</section>", text, re.DOTALL)
    assert len(bodies) == 6
    assert all(len(body) > 200 for body in bodies)


def test_neighbours_are_searched_where_a_copy_could_be(report: Report, dataset: Dataset) -> None:
    codec, own = report.codec, dataset.splits["train"].sha256

    def told(**card: object) -> tuple[Training, str]:
        codec.card = {"images": "scans", "size": 64} | card
        drawn = draw_beside(codec, Request(1), dataset)
        text = page(report._replace(drawn=drawn))
        where = training_of(codec, dataset)
        assert (drawn[0].neighbour is None) == (where is Training.OTHERS)
        return where, text

    before = codec.card
    try:
        known = told(training_data=own)
        other = told(training_data="00")
        prior = told(training_data="00", prior={"training_data": own})
        kind = told(images="segmentations")
    finally:
        codec.card = before
    assert (known[0], prior[0]) == (Training.ITS_OWN, Training.ITS_OWN)
    assert "The model was trained on these slices" in known[1]
    assert (other[0], kind[0]) == (Training.OTHERS, Training.OTHERS)
    assert "Nearest slices were not searched: the model was not trained on those of" in other[1]
    bare = replace(dataset, splits={"validation": dataset.splits["validation"]})
    assert training_of(codec, bare) is Training.NONE
    assert "has no training slices" in page(
        report._replace(dataset=bare, drawn=draw_beside(codec, Request(1), bare))
    )


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
    assert "it contains pictures of scans" in result.err
    assert (tmp_path / "r.html").read_text() == f"6 {EVIL}"
    assert (tmp_path / "f" / "rate-ssim.svg").is_file()
    for option in (("--report", "r.html"), ("--figures", "f")):
        refused = run(*common, *option)
        assert (refused.code, "pass -f" in refused.err) == (1, True)
    again = run(*common, "--report", "r.html", "-f", "--against", "jpeg", "--samples", "6")
    assert "  quality 60 " in again.out
    assert "Fréchet distance to 12 slices" in again.out
    assert run("score", tmp_path / "r.html", "--report", "x.html").code == 2


def test_the_report_names_the_data_as_they_were_given(
    run: Callable[..., Result], tmp_path: Path, prior_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a raw folder too, which is prepared somewhere else for the moment."""
    monkeypatch.setattr("oasisvq.evaluation.report.draw_charts", lambda *args, **style: [])
    told: list[Report] = []
    monkeypatch.setattr("oasisvq.evaluation.report.page", lambda report: told.append(report) or "page")
    write_raw_folder(tmp_path / "raw", {"train": [1], "validate": [4]}, slices=1)
    result = run("score", "raw", "--size", "64", "--report", "r.html", "--model", prior_model_file)
    assert result.code == 0, result
    assert (told[0].dataset.shown, told[0].model_given) == (Path("raw"), str(prior_model_file))
    assert told[0].dataset.folder != Path("raw")
    missing = run("score", "raw", "--size", "64", "--split", "test", "--model", prior_model_file)
    assert "raw: no split 'test'" in missing.err
