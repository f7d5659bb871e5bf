"""report.html, as headless Chromium shows it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from typer.testing import CliRunner

from mufx import cli, html
from mufx.api import Conversion, convert_source
from mufx.auditing.entry import audited_source
from mufx.html.document import Branch, Document, Section, Table, Tree
from mufx.html.of_audit import of_audit
from mufx.html.of_conversion import of_conversion
from mufx.html.page import embedded
from mufx.source import Source, load

HOSTILE = "</script><script>document.title='run'</script>\"'&μ{{style}}"
EXAMPLES = Path(__file__).parents[1] / "examples"
WIDTHS = [360, 1280]

CONTRASTS = (Path(__file__).parent / "data" / "contrast.js").read_text(encoding="utf-8")

Show = Callable[..., Page]


@cache
def source(name: str) -> Source:
    return load(str(EXAMPLES / f"{name}.py"), None, None, None, [])


@cache
def conversion(name: str) -> Conversion:
    return convert_source(source(name), form="table8")


@cache
def document(kind: str) -> Document:
    made = {
        "convert": lambda: of_conversion(conversion("encoder")),
        "audit": lambda: of_audit(audited_source(source("encoder"))),
    }
    return made[kind]()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    assert found is not None, "install Debian's chromium: make browser"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found)
        yield started
        started.close()


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Show]:
    """Opens a page; nothing may be said on the console, or asked of anyone."""
    said: list[str] = []
    asked: list[str] = []
    opened: list[Page] = []

    def shown(shown: Document, width: int = 1280, scheme: str = "light") -> Page:
        file = tmp_path / "report.html"
        file.write_text(html.written(shown), encoding="utf-8")
        page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda problem: said.append(str(problem)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        opened.append(page)
        return page

    yield shown
    for page in opened:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len(asked) == len(opened)


def column(page: Page, section: str, number: int = 1) -> list[str]:
    """What a column of a section's table shows."""
    cells = page.locator(f"#{section} tbody tr:not(.detail) > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


@pytest.mark.parametrize("kind", ["convert", "audit"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_fits_and_can_be_read(kind: str, scheme: str, width: int, show: Show) -> None:
    page = show(document(kind), width, scheme)
    sections = [section.id for section in document(kind).sections]
    assert [s.get_attribute("id") for s in page.locator("main > section").all()] == sections
    assert page.evaluate("document.documentElement.scrollWidth") == width
    dark = "rgb(22, 24, 28)" if scheme == "dark" else "rgb(252, 252, 251)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    contrasts: dict[str, float] = page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert {where: ratio for where, ratio in contrasts.items() if ratio < 4.5} == {}


def test_roles_are_sorted_by_a_click_and_filtered_by_role_group_and_module(show: Show) -> None:
    page = show(document("convert"))
    parameters = conversion("encoder").manifest.parameters
    assert column(page, "roles") == sorted(parameters)
    head = page.locator("#roles thead th").first
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "roles") == sorted(parameters)[::-1]

    page.locator("#roles thead button", has_text="Learning rate").click()
    rates = [float(text) for text in column(page, "roles", 7)]
    assert rates == sorted(rates)

    filters = page.locator("#roles form")
    filters.get_by_label("Role").select_option("output")
    outputs = {name for name, p in parameters.items() if p.role.value == "output"}
    assert set(column(page, "roles")) == outputs != set()
    filters.get_by_label("Role").select_option("")
    group = next(iter(conversion("encoder").manifest.groups))
    filters.get_by_label("Group").select_option(group)
    assert set(column(page, "roles")) == {n for n, p in parameters.items() if p.group == group}
    filters.get_by_label("Group").select_option("")
    filters.get_by_label("Parameter contains").fill("encoder.layers.1.")
    assert set(column(page, "roles")) == {n for n in parameters if "encoder.layers.1." in n}
    count = len(column(page, "roles"))
    assert page.locator("#roles output").inner_text() == f"{count} of {len(parameters)}"


def test_the_theme_can_be_chosen_against_the_system(show: Show) -> None:
    page = show(document("convert"))
    ground = "getComputedStyle(document.body).backgroundColor"
    grounds: list[str] = []
    for _ in range(3):
        page.locator("#theme").click()
        grounds.append(page.evaluate(ground))
    assert grounds == ["rgb(252, 252, 251)", "rgb(22, 24, 28)", "rgb(252, 252, 251)"]


OUTLINED = """() => {
  const [focused, line] = [document.activeElement, document.activeElement.querySelector(".line")];
  return [focused, line].some((each) => each && getComputedStyle(each).outlineStyle !== "none");
}"""
FOCUSED = "document.activeElement.textContent.trim()"


def test_everything_is_reached_by_keyboard(show: Show) -> None:
    page = show(document("convert"))
    keyboard = page.keyboard
    keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"

    stops: list[str] = []
    keyboard.press("Tab")
    while page.evaluate("document.activeElement !== document.body"):
        stops.append(page.evaluate(FOCUSED))
        assert page.evaluate(OUTLINED), stops[-1]
        keyboard.press("Tab")
    first = min(conversion("encoder").manifest.parameters)
    assert stops.index("Role") < stops.index(first)
    names = set(conversion("encoder").manifest.parameters)
    assert len([stop for stop in stops if stop in names]) == 1, "one stop for all rows"


def test_a_row_says_why_and_arrows_lead_through_the_rows(show: Show) -> None:
    page = show(document("convert"))
    rows = page.locator("#roles tbody th button")
    rows.first.focus()
    page.keyboard.press("ArrowDown")
    second = sorted(conversion("encoder").manifest.parameters)[1]
    assert page.evaluate(FOCUSED) == second
    page.keyboard.press("Enter")
    told = page.locator("#roles tr.detail li").all_inner_texts()
    assert told == list(conversion("encoder").manifest.parameters[second].because) != []
    page.keyboard.press("Enter")
    assert page.locator("#roles tr.detail").count() == 0


def line(page: Page) -> str:
    """What the focused item of the tree says, without what it holds."""
    said: str = page.evaluate("document.activeElement.querySelector('.line').textContent")
    return " ".join(said.split())


def test_the_module_tree_is_walked_with_arrows(show: Show) -> None:
    page = show(document("convert"))
    page.locator("[role=treeitem][tabindex='0']").focus()
    press = page.keyboard.press
    assert line(page) == "Encoder"
    press("ArrowDown")
    parameter = conversion("encoder").manifest.parameters["positions"]
    rows, base, target = parameter.shape[0], parameter.base_shape[1], parameter.shape[1]
    assert line(page) == f"positions input {rows} fixed A {base} → {target}"
    press("ArrowUp")
    press("ArrowLeft")
    assert page.evaluate("document.activeElement.ariaExpanded") == "false"
    press("ArrowDown")
    assert line(page) == "Encoder", "what is closed has nothing below it"
    press("ArrowRight")
    press("End")
    assert line(page).startswith("bias")
    press("ArrowLeft")
    assert line(page) == "head Linear"
    press("Home")
    assert line(page) == "Encoder"
    assert page.locator("[role=treeitem][tabindex='0']").count() == 1


def test_a_correction_is_drawn_before_and_after(show: Show) -> None:
    page = show(document("convert"))
    before, after = page.locator("#corrections article", has_text="× 0.25").locator("svg").all()
    assert before.locator(".new, .old").count() == 0
    assert after.locator(".new text").all_text_contents()[-1] == "× 0.25"
    said = [before.get_attribute("aria-label") or "", after.get_attribute("aria-label") or ""]
    assert ["× 0.25" in text for text in said] == [False, True]


def test_hostile_names_are_text(show: Show) -> None:
    table, tree = (section.blocks[-1] for section in document("convert").sections[:2])
    assert isinstance(table, Table)
    assert isinstance(tree, Tree)
    row = replace(table.rows[0], cells=(HOSTILE, *table.rows[0].cells[1:]))
    sections = (
        Section("roles", HOSTILE, (replace(table, rows=(row,)),)),
        Section("modules", HOSTILE, (replace(tree, branches=(Branch(HOSTILE, HOSTILE),)),)),
    )
    page = show(Document(HOSTILE, HOSTILE, sections, HOSTILE), WIDTHS[0])
    assert page.title() == HOSTILE
    assert column(page, "roles") == [HOSTILE]
    assert page.evaluate("document.documentElement.scrollWidth") == WIDTHS[0]


def test_data_cannot_end_its_element() -> None:
    text = embedded({HOSTILE: 1})
    assert "<" not in text
    assert json.loads(text) == {HOSTILE: 1}


def test_the_same_conversion_gives_the_same_bytes() -> None:
    again = convert_source(source("encoder"), form="table8")
    assert html.written(of_conversion(again)) == html.written(document("convert"))


@pytest.mark.parametrize(("command", "status"), [("convert", 0), ("audit", 1)])
def test_a_command_writes_the_page(command: str, status: int, tmp_path: Path) -> None:
    page = tmp_path / "made" / "report.html"
    words = [command, str(EXAMPLES / "mlp.py"), "--report", str(page)]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == status, result.output
    assert "<h1>" in page.read_text(encoding="utf-8")
