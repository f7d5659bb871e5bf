"""report.html, as headless Chromium shows it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Literal

import pytest
from matplotlib.image import imread
from playwright.sync_api import Browser, Page, sync_playwright
from typer.testing import CliRunner

from mufx import cli, html
from mufx.api import convert_source
from mufx.html.document import Branch, Document, Entry, Section, Table, Tree
from mufx.html.of_conversion import of_conversion
from mufx.html.page import embedded
from tests.pages import KINDS, conversion, document, source

HOSTILE = "</script><script>document.title='run'</script>\"'&μ{{style}}"
MODELS = Path(__file__).parent / "models"
WIDE, PHONE, NARROW = 1280, 390, 360
VIEWS = Path(__file__).parents[1] / "build" / "pages"
GROUNDS = {"light": "rgb(252, 252, 251)", "dark": "rgb(22, 24, 28)"}

CONTRASTS = (Path(__file__).parent / "data" / "contrast.js").read_text(encoding="utf-8")

Show = Callable[..., Page]


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

    def shown(shown: Document, width: int = WIDE) -> Page:
        file = tmp_path / "report.html"
        file.write_text(html.written(shown), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900})
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_every_view_fits_and_can_be_read(kind: str, width: int, show: Show) -> None:
    """What was looked at lies in build/pages."""
    page = show(document(kind), NARROW)
    sections = [section.id for section in document(kind).sections]
    assert [s.get_attribute("id") for s in page.locator("main > section").all()] == sections
    for details in page.locator("details").all():
        details.locator("summary").click()
    for each in (NARROW, width):
        page.set_viewport_size({"width": each, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == each
    for scheme in ("light", "dark"):
        assert contrasts(page, scheme) == []
        view = page.screenshot(path=VIEWS / f"{kind}-{width}-{scheme}.png", full_page=True)
        seen = inks(page, view)
        assert list(seen) == sections
        assert min(seen.values()) > 0.005, seen


RECTS = """Object.fromEntries([...document.querySelectorAll("main > section")].map((each) => {
  const { top, bottom } = each.getBoundingClientRect();
  return [each.id, [Math.round(top + scrollY), Math.round(bottom + scrollY)]];
}))"""


def inks(page: Page, view: bytes) -> dict[str, float]:
    """By section, the part of its picture that is not empty ground."""
    pixels = imread(BytesIO(view))
    rects: dict[str, tuple[int, int]] = page.evaluate(RECTS)
    return {
        name: float((pixels[top:bottom] != pixels[0, 0]).any(axis=-1).mean())
        for name, (top, bottom) in rects.items()
    }


def contrasts(page: Page, scheme: Literal["light", "dark"]) -> list[str]:
    """The texts that are hard to read: WCAG 2 asks for a contrast of 4.5."""
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme]
    found: dict[str, float] = page.evaluate(CONTRASTS)
    assert len(found) > 50
    return [f"{where} {ratio:.2f}" for where, ratio in found.items() if ratio < 4.5]


def test_roles_are_sorted_by_a_click_and_filtered_by_role_group_and_module(show: Show) -> None:
    page = show(document("convert"))
    parameters = conversion().manifest.parameters
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
    group = next(iter(conversion().manifest.groups))
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
    assert grounds == [GROUNDS["light"], GROUNDS["dark"], GROUNDS["light"]]


OUTLINED = """() => {
  const [focused, line] = [document.activeElement, document.activeElement.querySelector(".line")];
  return [focused, line].some((each) => each && getComputedStyle(each).outlineStyle !== "none");
}"""
FOCUSED = "document.activeElement.textContent.trim()"


STOPS = """[...document.querySelectorAll("main :is(a, button, input, select, summary, [tabindex])")]
  .filter((each) => each.tabIndex >= 0 && each.checkVisibility())"""


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_reached_by_keyboard(kind: str, show: Show) -> None:
    page = show(document(kind))
    keyboard = page.keyboard
    keyboard.press("Tab")
    assert page.evaluate(FOCUSED) == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"

    expected: int = page.evaluate(f"{STOPS}.length")
    reached: list[int] = []
    keyboard.press("Tab")
    while page.evaluate("document.activeElement !== document.body"):
        reached.append(page.evaluate(f"{STOPS}.indexOf(document.activeElement)"))
        assert page.evaluate(OUTLINED), page.evaluate(FOCUSED)
        keyboard.press("Tab")
    assert reached == list(range(expected)), "in the order of the page"
    for table in page.locator("table:has(tbody button)").all():
        assert table.locator("tbody button[tabindex='0']").count() == 1, "one stop for all rows"


def test_a_finding_is_opened_by_keyboard(show: Show) -> None:
    page = show(document("audit"))
    (findings,) = (b for s in document("audit").sections for b in s.blocks if s.id == "findings")
    assert isinstance(findings, Table)
    page.locator("#findings tbody th button").first.focus()
    page.keyboard.press("Enter")
    told = tuple(page.locator("#findings tr.detail li").all_inner_texts())
    name = page.evaluate(FOCUSED)
    assert told in [row.detail for row in findings.rows if row.cells[0] == name]


def test_diagnostics_stand_with_their_lines_of_source(show: Show) -> None:
    page = show(document("audit"))
    (section,) = (s for s in document("audit").sections if s.id == "diagnostics")
    entries = [block for block in section.blocks if isinstance(block, Entry)]
    articles = page.locator("#diagnostics article").all()
    assert [a.locator("h3").inner_text() for a in articles] == [e.title for e in entries]
    for entry, article in zip(entries, articles, strict=True):
        terms, told = article.locator("dt"), article.locator("dd")
        shown = zip(terms.all_inner_texts(), told.all_inner_texts(), strict=True)
        assert tuple(shown) == entry.facts != ()
        assert (
            article.locator("pre").all_inner_texts()
            == ["\n".join(entry.source)][: len(entry.source)]
        )


# -- on a phone, and where there is more than fits ----------------------------------------------


def test_the_navigation_and_the_verdicts_are_in_sight_on_a_phone(show: Show) -> None:
    page = show(document("check"), PHONE)
    links = [link.bounding_box() for link in page.locator("nav a").all()]
    verdicts = [mark.bounding_box() for mark in page.locator("#check td:nth-child(2) span").all()]
    assert len(links) == len(document("check").sections)
    assert len(verdicts) == 6
    for box in (*links, *verdicts):
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE
        assert box["height"] < 30, "one line"


SHADED_AS = """([frame, wanted]) => ["::before", "::after"].every(
  (side, i) => (getComputedStyle(frame, side).opacity === "1") === wanted[i])"""
BEYOND = """(view) => view.scrollWidth > view.clientWidth + 1"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_shadow_says_where_there_is_more(kind: str, show: Show) -> None:
    page = show(document(kind), PHONE)
    frames = [f for f in page.locator(".frame").all() if f.is_visible()]
    wide = [f for f in frames if f.locator(".scroll").evaluate(BEYOND)]
    assert wide != []
    for frame in frames:
        view = frame.locator(".scroll")
        ends = ("0", "view.scrollWidth")
        for end, expected in zip(ends, ([False, True], [True, False]), strict=True):
            view.evaluate(f"(view) => {{ view.scrollLeft = {end}; }}")
            wanted = expected if frame in wide else [False, False]
            page.wait_for_function(SHADED_AS, arg=[frame.element_handle(), wanted])


def test_the_table_of_a_check_is_not_cut_on_a_desktop(show: Show) -> None:
    page = show(document("check"), WIDE)
    assert not page.locator("#check .scroll").evaluate(BEYOND)


@pytest.mark.parametrize("kind", KINDS)
def test_the_heads_of_a_table_look_alike(kind: str, show: Show) -> None:
    page = show(document(kind))
    fonts = page.locator("thead button").evaluate_all(
        """(all) => all.map((each) => {
          const { fontFamily, fontSize, fontWeight } = getComputedStyle(each);
          return [fontFamily, fontSize, fontWeight].join(" ");
        })"""
    )
    assert len(fonts) > 1
    assert len(set(fonts)) == 1


def test_a_product_of_axes_shows_the_class_of_each(show: Show) -> None:
    page = show(document("convert"))
    shade = "(all) => all.map((each) => getComputedStyle(each).backgroundColor)"
    letters = page.locator("#modules .classes .part")
    shades = dict(zip(letters.all_inner_texts(), letters.evaluate_all(shade), strict=True))
    assert len(set(shades.values())) == len(shades)
    axis = page.locator("[role=treeitem]", has_text="in_proj_weight").last.locator(".axis").first
    parts = axis.locator(".part")
    assert axis.inner_text() == "B·C·D 192 → 768"
    assert parts.all_inner_texts() == ["B", "C", "D"]
    assert parts.evaluate_all(shade) == [shades[letter] for letter in "BCD"]


def test_one_page_shows_the_plots_of_a_check_and_a_sweep(show: Show) -> None:
    page = show(document("joined"))
    for section, count in (("check", 3), ("sweep", 2)):
        assert page.locator(f"#{section} svg.plot").first.locator("g.series").count() == count
        page.locator(f"#{section} svg.plot").first.focus()
    assert told(page).startswith("fc:linear#1 · flat · width 64 · ")


# -- walked and opened --------------------------------------------------------------------------


def test_a_row_says_why_and_arrows_lead_through_the_rows(show: Show) -> None:
    page = show(document("convert"))
    rows = page.locator("#roles tbody th button")
    rows.first.focus()
    page.keyboard.press("ArrowDown")
    second = sorted(conversion().manifest.parameters)[1]
    assert page.evaluate(FOCUSED) == second
    page.keyboard.press("Enter")
    told = page.locator("#roles tr.detail li").all_inner_texts()
    assert told == list(conversion().manifest.parameters[second].because) != []
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
    parameter = conversion().manifest.parameters["positions"]
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


def told(page: Page, panel: int = 0) -> str:
    return page.locator(".told").nth(panel).inner_text()


def test_a_plot_tells_the_numbers_where_it_is_pointed_at(show: Show) -> None:
    page = show(document("check"))
    plot = page.locator("#check svg.plot").first
    assert "Point at a line" in told(page)
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + 10)
    assert told(page) == "fc:linear#1 · flat · width 512 · diverged"
    page.mouse.move(box["x"] + 60, box["y"] + box["height"] - 60)
    assert told(page) == "fc:linear#1 · flat · width 64 · mean |change| 0.1049 (0.1 to 0.11)"


def test_a_plot_is_walked_with_arrows(show: Show) -> None:
    page = show(document("sweep"))
    page.locator("#sweep svg.plot").first.focus()
    press = page.keyboard.press
    assert told(page).startswith("width 64 · lr 2^-9 · training loss ")
    press("ArrowDown")
    assert told(page).startswith("width 256 · lr 2^-9 · ")
    press("ArrowUp")
    for _ in range(4):
        press("ArrowRight")
    best = told(page)
    assert best.startswith("width 64 · lr 2^-5 · ")
    assert best.endswith(" · best")
    for _ in range(2):
        press("ArrowRight")
    assert told(page) == "width 64 · lr 2^-3 · diverged"
    press("ArrowRight")
    assert told(page) == "width 64 · lr 2^-3 · diverged", "the line ends there"
    press("ArrowLeft")
    assert told(page).startswith("width 64 · lr 2^-4 · training loss ")


def test_a_legend_hides_and_shows_lines(show: Show) -> None:
    page = show(document("check"))
    lines = page.locator("#check .chart").first.locator("svg.plot g.series")
    grows = page.get_by_role("button", name="grows (2)").first
    assert lines.count() == 3
    page.locator("#check svg.plot").first.focus()
    page.keyboard.press("ArrowUp")
    assert told(page).startswith(":relu#1 · grows · width 64 · ")
    grows.click()
    assert lines.count() == 1
    assert told(page).startswith("Point at a line"), "what is hidden is not told"
    assert grows.get_attribute("aria-pressed") == "false"
    grows.focus()
    page.keyboard.press("Enter")
    assert lines.count() == 3


def test_the_numbers_behind_a_plot_stand_in_a_table(show: Show) -> None:
    page = show(document("check"))
    page.locator("#check form").get_by_label("Trained").select_option("SP")
    slopes = dict(zip(column(page, "check"), column(page, "check", 5), strict=True))
    assert slopes["out:linear#1"].startswith("+1.00 ± 0.00")
    predicted = dict(zip(column(page, "check"), column(page, "check", 7), strict=True))
    assert predicted["out:linear#1"] == "+0.00"
    changes = dict(zip(column(page, "check"), column(page, "check", 10), strict=True))
    assert changes["out:linear#1"] == "6.71", "the mean of both seeds at width 64"


def test_a_page_says_whether_it_holds(show: Show) -> None:
    good = show(document("check")).locator("#verdict").inner_text()
    bad = show(document("audit")).locator("#verdict").inner_text()
    assert good.startswith("✓ μP holds")
    assert bad.startswith("✗ not μP: ")


def test_hostile_names_are_text(show: Show) -> None:
    table, tree = (section.blocks[-1] for section in document("convert").sections[:2])
    assert isinstance(table, Table)
    assert isinstance(tree, Tree)
    row = replace(table.rows[0], cells=(HOSTILE, *table.rows[0].cells[1:]))
    sections = (
        Section("roles", HOSTILE, (replace(table, rows=(row,)),)),
        Section("modules", HOSTILE, (replace(tree, branches=(Branch(HOSTILE, HOSTILE),)),)),
    )
    page = show(Document(HOSTILE, HOSTILE, sections, HOSTILE), NARROW)
    assert page.title() == HOSTILE
    assert column(page, "roles") == [HOSTILE]
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW


def test_data_cannot_end_its_element() -> None:
    text = embedded({HOSTILE: 1})
    assert "<" not in text
    assert json.loads(text) == {HOSTILE: 1}


def test_the_same_conversion_gives_the_same_bytes() -> None:
    first, second = (of_conversion(convert_source(source("mlp"))) for _ in range(2))
    assert html.written(first) == html.written(second)


@pytest.mark.parametrize(
    ("words", "statuses", "title"),
    [
        ("convert", {0}, "Classifier in μP"),
        ("audit", {1}, "Audit of Classifier"),
        ("audit --grow into.weight:0=4 --grow hidden.weight:0=4", {1}, "Audit of Classifier"),
        # So few runs may hold or not: either way there is a page.
        ("check --widths 8,16,32,64 --steps 4 --seeds 1", {0, 1}, "Check of Classifier"),
        ("sweep --over lr=0.1,0.2 --steps 1 --seeds 1", {0}, "Sweep of Classifier"),
    ],
)
def test_a_command_writes_the_page(
    words: str, statuses: set[int], title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names no folder of this machine, however the model was named."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODELS / "sweepable.py", tmp_path)
    command, *options = words.split()
    given = [command, str(tmp_path / "sweepable.py"), *options, "--report", "made/report.html"]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code in statuses, result.output
    page = (tmp_path / "made" / "report.html").read_text(encoding="utf-8")
    assert f"<title>{title}</title>" in page
    assert str(tmp_path) not in page
