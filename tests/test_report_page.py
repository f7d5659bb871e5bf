"""report.html, as headless Chromium shows it."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from mufx import html
from mufx.api import convert_source
from mufx.html.page import embedded
from mufx.manifest import Manifest, grouped
from mufx.source import load

HOSTILE = "</script><script>document.title='run'</script>\"'&μ{{style}}"
EXAMPLE = Path(__file__).parents[1] / "examples" / "mlp.py"

PROBE = """<script>
const rows = () => [...document.querySelectorAll("tbody tr")].map(r => r.cells[0].textContent);
const set = (name, value) => {
  const field = document.forms[0][name];
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
const out = { all: rows(), title: document.title };
out.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
out.width = document.documentElement.clientWidth;
out.requests = performance.getEntriesByType("resource").length;
const heads = [...document.querySelectorAll("thead button")];
heads[0].click();
out.turned = rows();
out.sort = heads[0].parentElement.ariaSort;
set("role", "output");
out.output = rows();
set("role", "");
set("module", "no such module");
out.none = rows();
heads[1].focus();
out.focused = document.activeElement === heads[1];
const ground = () => getComputedStyle(document.body).backgroundColor;
out.themes = [0, 1].map(() => { document.getElementById("theme").click(); return ground(); });
out.text = document.querySelector("main").textContent;
const told = document.createElement("pre");
told.id = "told";
told.textContent = JSON.stringify(out);
parent.document.body.append(told);
</script>"""


@cache
def manifest() -> Manifest:
    return convert_source(load(str(EXAMPLE), None, None, None, [])).manifest


def renamed(first: Manifest) -> Manifest:
    """The same, with a parameter of a name that would break a page made without care."""
    entries = {**first.parameters}
    name = next(iter(entries))
    entries[HOSTILE] = entries.pop(name)
    parameters, groups = grouped(entries)
    return first.model_copy(update={"parameters": parameters, "groups": groups})


def seen(page: str, folder: Path, width: int) -> dict[str, Any]:
    """What the probe finds in the page, in a frame of that width; nothing may reach the console."""
    probed = escape(page.replace("</body>", PROBE + "</body>"))
    frame = (
        f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{probed}"></iframe>'
    )
    (folder / "report.html").write_text(f"<!doctype html><meta charset=utf-8><body>{frame}</body>")
    found = shutil.which("chromium")
    assert found is not None, "install Debian's chromium: make browser"
    words = [found, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    words += [f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars", "--dump-dom"]
    address = (folder / "report.html").as_uri()
    ended = subprocess.run([*words, address], capture_output=True, text=True, timeout=60)
    assert "CONSOLE" not in ended.stderr
    told = ended.stdout.partition('<pre id="told">')[2].partition("</pre>")[0]
    result: dict[str, Any] = json.loads(unescape(told))
    return result


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_filters_and_sorts_and_fits(width: int, tmp_path: Path) -> None:
    page = seen(html.of_manifest(manifest()), tmp_path, width)
    assert page["width"] == width
    assert page["overflow"] == 0
    assert page["requests"] == 0
    assert page["all"] == sorted(manifest().parameters)
    assert page["turned"] == page["all"][::-1]
    assert page["sort"] == "descending"
    outputs = [n for n, p in manifest().parameters.items() if p.role.value == "output"]
    assert sorted(page["output"]) == sorted(outputs) != []
    assert page["none"] == []
    assert page["focused"]
    assert page["themes"] == ["rgb(252, 252, 251)", "rgb(22, 24, 28)"]
    assert f"from model_mup import {manifest().model}\n" in page["text"]


def test_hostile_names_are_text(tmp_path: Path) -> None:
    page = seen(html.of_manifest(renamed(manifest())), tmp_path, 1280)
    assert HOSTILE in page["all"]
    assert page["title"] == f"{manifest().model} in μP"
    assert page["overflow"] == 0


def test_data_cannot_end_its_element() -> None:
    text = embedded({HOSTILE: 1})
    assert "<" not in text
    assert json.loads(text) == {HOSTILE: 1}


def test_the_same_conversion_gives_the_same_bytes() -> None:
    again = convert_source(load(str(EXAMPLE), None, None, None, [])).manifest
    assert html.of_manifest(again) == html.of_manifest(manifest())
