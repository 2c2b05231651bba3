"""The documents: their links lead somewhere, their commands work, README stays short."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("commands", ROOT / "examples" / "commands.py")
assert SPEC is not None and SPEC.loader is not None
commands = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(commands)

DOCUMENTS: list[Path] = commands.documents()
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MARKS = "<!-- commands -->", "<!-- end of commands -->"


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What GitHub calls the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", without_fences(document.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def names_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=names_of)
def test_links_lead_somewhere(document: Path) -> None:
    lost = []
    for link in LINK.findall(without_fences(document.read_text("utf-8"))):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert not lost


def test_the_readme_has_at_most_a_thousand_words_and_its_two_commands_to_the_letter() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 1000
    between = text.split(MARKS[0])[1].split(MARKS[1])[0]
    assert [line for line in between.split("\n") if line and not line.startswith("```")] == [
        "pip install . && oasisvq encode examples/scan.png -o scan.codes && oasisvq decode scan.codes",
        "pip install '.[test]' && pytest",
    ]


def test_every_file_that_the_architecture_names_is_there() -> None:
    lines = (ROOT / "oasisvq" / "ARCHITECTURE.md").read_text("utf-8").split("\n")
    folder, missing = "", []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following.startswith("|---"):
            folder = line.split("`")[1] if "`" in line else ""
        elif line.startswith("|"):
            named = re.findall(r"`(\w+\.py)`", line)
            missing += [name for name in named if not (ROOT / "oasisvq" / folder / name).exists()]
    assert not missing


def test_every_command_is_run_or_has_a_reason() -> None:
    found = [block for document in DOCUMENTS for block in commands.blocks_of(document)]
    lines = [line for block in found if not block.is_python for line in block.lines]
    unexplained = [
        line for line in lines if commands.reason_for(line) is None and not line.startswith("oasisvq ")
    ]
    assert not unexplained
    unused = [part for part in commands.NOT_RUN if not any(part in line for line in lines)]
    assert not unused


@pytest.mark.slow
@pytest.mark.parametrize(
    "document",
    [
        document
        for document in DOCUMENTS
        if any(
            block.is_python or any(commands.reason_for(line) is None for line in block.lines)
            for block in commands.blocks_of(document)
        )
    ],
    ids=names_of,
)
def test_the_commands_of_a_document_work(document: Path) -> None:
    script = [sys.executable, str(ROOT / "examples" / "commands.py"), str(document)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_command_that_fails_is_seen(tmp_path: Path) -> None:
    commands.draw(tmp_path)
    with commands.working_in(tmp_path):
        assert commands.run("oasisvq info --json") is None
        assert "exit code 1" in commands.run("oasisvq info missing.codes")
        assert "exit code 2" in commands.run("oasisvq info --no-such-option")
