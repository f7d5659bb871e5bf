"""One page of several: what a check and a sweep measured, beside a conversion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mufx import cli, html
from mufx.diagnostics import MufxError
from mufx.html.document import Document, Words
from mufx.html.joining import agree, earlier, joined
from mufx.html.page import read
from tests.pages import KINDS, document
from tests.pages import earlier as page_of

MODEL = Path(__file__).parent / "models" / "sweepable.py"
MADE = {
    "check": "check --widths 8,16,32,64 --steps 4 --seeds 1",
    "sweep": "sweep --over lr=0.1,0.2 --steps 1 --seeds 1",
}


def ids(page: Document) -> list[str]:
    return [section.id for section in page.sections]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_read_as_it_was_written(kind: str) -> None:
    assert read(html.written(document(kind))) == document(kind)


def torn(kind: str) -> str:
    """A page whose data ends too early."""
    return html.written(document(kind)).partition('"sections"')[0]


@pytest.mark.parametrize("text", ["", "<html></html>", torn("sweep")])
def test_what_is_no_page_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"no page|JSON|json"):
        read(text)


@pytest.mark.parametrize(
    ("kind", "others", "expected"),
    [
        ("convert", ["sweep", "check"], "check sweep optima tuned roles"),
        ("convert", ["check"], "check roles modules"),
        ("audit", ["check", "sweep"], "findings check sweep optima tuned roles"),
        ("check", ["sweep"], "check sweep optima tuned roles"),
        ("convert", ["joined"], "check sweep optima tuned roles"),
    ],
)
def test_what_was_measured_comes_before_what_was_decided(
    kind: str, others: list[str], expected: str
) -> None:
    found = joined(document(kind), [page_of(other) for other in others])
    names = expected.split()
    assert ids(found)[: len(names)] == names
    assert len(set(ids(found))) == len(ids(found))
    assert set(document(kind).sections) <= set(found.sections), "its own stay as they are"
    assert (found.title, found.verdict) == (document(kind).title, document(kind).verdict)


def test_what_is_taken_says_what_its_page_said() -> None:
    """Once, however often it is taken."""
    check = document("check")
    (own,) = (s for s in check.sections if s.id == "check")
    for page in (document("joined"), joined(document("convert"), [page_of("joined")])):
        (section,) = (s for s in page.sections if s.id == "check")
        assert section.blocks == (Words(check.summary), Words(check.verdict), *own.blocks)


def written(folder: Path, kind: str) -> Path:
    file = folder / f"{kind}.html"
    file.write_text(html.written(document(kind)), encoding="utf-8")
    return file


def test_pages_that_cannot_be_joined_are_refused(tmp_path: Path) -> None:
    page, check, convert = (
        tmp_path / "new.html",
        *(written(tmp_path, k) for k in ("check", "convert")),
    )
    broken = tmp_path / "torn.html"
    broken.write_text(torn("check"), encoding="utf-8")
    refused: dict[str, Callable[[], object]] = {
        "has no page to go to": lambda: earlier([check], None),
        "cannot be read: No such file": lambda: earlier([tmp_path / "not.html"], page),
        "torn.html is no page of this version": lambda: earlier([broken], page),
        "holds no check and no sweep": lambda: earlier([convert], page),
        "holds a second check": lambda: earlier([check, check], page),
        "check.html holds a second check": lambda: earlier([check], page, "check"),
        "is about another model": lambda: agree(earlier([check], page), "0" * 64),
    }
    for message, refuse in refused.items():
        with pytest.raises(MufxError, match=message) as caught:
            refuse()
        assert [d.code for d in caught.value.diagnostics] == ["MUF019"]
        assert caught.value.diagnostics[0].hint
    assert [p.document for p in earlier([check], page, "sweep")] == [document("check")]
    assert earlier([], None) == ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and the pages of its check and its sweep."""
    made = tmp_path_factory.mktemp("joined")
    shutil.copy(MODEL, made / "model.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        for kind, words in MADE.items():
            command, *options = words.split()
            run(command, "model.py", *options, "--report", f"{kind}.html")
    return made


def run(*words: str) -> None:
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code in {0, 1}, result.output


@pytest.mark.parametrize(
    ("command", "others"),
    [
        ("convert model.py", ["check", "sweep"]),
        ("audit model.py", ["check", "sweep"]),
        ("check model.py --widths 8,16,32,64 --steps 4 --seeds 1", ["sweep"]),
        ("sweep model.py --over lr=0.1,0.2 --steps 1 --seeds 1", ["check"]),
    ],
)
def test_every_command_makes_one_file_with_both_plots(
    command: str, others: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    extra = [word for other in others for word in ("--with", f"{other}.html")]
    run(*command.split(), "--report", "report.html", *extra)
    page = read((folder / "report.html").read_text(encoding="utf-8"))
    shown = {s.id for s in page.sections if any(block.kind == "panels" for block in s.blocks)}
    assert shown == {"check", "sweep"}


@pytest.mark.parametrize(
    "command", ["convert model.py -o out", "check model.py -o out", "sweep model.py -o out"]
)
def test_pages_of_another_model_are_refused_before_anything_is_trained_or_written(
    command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(f"{MODEL.read_text(encoding='utf-8')}\n# edited\n")
    kind = "check" if command.startswith("sweep") else "sweep"
    given = ["--report", "report.html", "--with", str(folder / f"{kind}.html"), "--json"]
    result = CliRunner().invoke(cli.app, [*command.split(), *given])
    assert result.exit_code == 2
    (told,) = json.loads(result.stdout)["diagnostics"]
    assert told["code"] == "MUF019"
    assert [p for p in tmp_path.rglob("*.*") if p.suffix in {".html", ".json", ".db"}] == []
