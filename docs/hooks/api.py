"""Adds to the API page every public name that its sections leave out."""

from __future__ import annotations

import re
from typing import Any

import mufx

NAMED = re.compile(r"^::: mufx\.[\w.]*?(\w+)$|`mufx\.(\w+)`", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with what is missing at its end."""
    return completed(markdown) if page.file.src_uri == "api.md" else markdown


def completed(markdown: str) -> str:
    """The text, with a last section for the names that it does not have."""
    named = {name for pair in NAMED.findall(markdown) for name in pair}
    missing = [name for name in mufx.__all__ if name not in named]
    if not missing:
        return markdown
    return "\n".join([markdown, "## More", "", *(f"::: {mufx._HOME[n]}.{n}" for n in missing)])
