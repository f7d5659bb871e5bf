"""What a page says of findings and diagnostics, each with its lines of source."""

from __future__ import annotations

from pathlib import Path

import pytest

from mufx.auditing.entry import audited_source
from mufx.diagnostics import Place, note, warning
from mufx.html.document import Entry, Words
from mufx.html.of_conversion import diagnostics
from tests.pages import EXAMPLES, document, source

TEXT = "".join(f"line {number}\n" for number in range(1, 8))


def entries() -> list[Entry]:
    (section,) = (s for s in document("audit").sections if s.id == "diagnostics")
    return [block for block in section.blocks if isinstance(block, Entry)]


def test_parameters_are_told_together_only_where_all_that_is_said_holds_for_each() -> None:
    findings = audited_source(source("encoder")).report.findings
    messages = {f.message for f in findings}
    hints = {f.message: f.hint for f in findings}
    told: list[str] = []
    for entry in entries():
        message = hint = ""
        for name, text in entry.facts:
            if name == "hint":
                hint = text
            elif name == "also":
                first = next(f.parameter for f in findings if f.message == message)
                others = [message.replace(str(first), other) for other in text.split(", ")]
                assert {hints.get(other) for other in others} == {hint}
                told += others
            else:
                message = text
                told.append(text)
    assert set(told) == messages
    assert len(told) == len(messages), "each once"


def test_an_entry_of_an_audit_shows_the_lines_around_its_place() -> None:
    entry, last = entries()
    file, _, number = entry.title.rpartition(":")
    lines = (EXAMPLES / Path(file).name).read_text(encoding="utf-8").splitlines()
    at = int(number) - 1
    assert len(entry.source) == 5
    assert entry.source[2] == f"> {number:>5} {lines[at]}"
    assert [line[8:] for line in entry.source] == lines[at - 2 : at + 3]
    assert last.source == (), "eps is nowhere in the source"


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (
            4,
            [
                "      2 line 2",
                "      3 line 3",
                ">     4 line 4",
                "      5 line 5",
                "      6 line 6",
            ],
        ),
        (1, [">     1 line 1", "      2 line 2", "      3 line 3"]),
        (7, ["      5 line 5", "      6 line 6", ">     7 line 7"]),
        (8, []),
    ],
)
def test_a_diagnostic_shows_the_lines_that_the_file_has(
    number: int, shown: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "model.py"
    file.write_text(TEXT, encoding="utf-8")
    place = Place(str(file), number, "blocks.0", "Block")
    (entry,) = diagnostics([warning("MUF206", "it is so", hint="do that", place=place)]).blocks
    assert isinstance(entry, Entry)
    assert entry.title == f"warning MUF206 model.py:{number}"
    assert entry.facts == (("what", "it is so"), ("hint", "do that"), ("in", "blocks.0"))
    assert entry.mark == "warning"
    assert list(entry.source) == shown


def test_a_diagnostic_without_a_place_and_none_at_all_are_told() -> None:
    (entry,) = diagnostics([note("MUF111", "it is so")]).blocks
    assert entry == Entry("note MUF111", (("what", "it is so"),), mark="note")
    assert diagnostics([]).blocks == (Words("None."),)


def test_lines_of_a_file_that_is_not_here_are_left_out() -> None:
    place = Place("/nowhere/model.py", 3)
    (entry,) = diagnostics([note("MUF111", "it is so", place=place)]).blocks
    assert isinstance(entry, Entry)
    assert (entry.title, entry.source) == ("note MUF111 model.py:3", ())
