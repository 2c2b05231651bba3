"""A report is alive in a real browser, at the width of a phone and of a desk."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from reports import make_dataset, make_report

from oasisvq.evaluation.report import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_report_lives_in_a_browser(tmp_path: Path) -> None:
    html = page(make_report(make_dataset(tmp_path / "data"), tmp_path))
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
