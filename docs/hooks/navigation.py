"""The order of the pages.

A feature's page is written with the feature: one that is not there yet is left out, and one that
nobody has put in order comes under "More".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

GENERATED = {"cli.md", "manifest.md", "refusals.md"}

ORDER: dict[str, tuple[str, ...]] = {
    "Start": ("index.md", "quickstart.md", "mup.md", "glossary.md"),
    "Use": (
        "audit.md",
        "apply.md",
        "check.md",
        "check-agreement.md",
        "sweep.md",
        "transfer.md",
        "report.md",
        "classes.md",
        "coverage.md",
    ),
    "Extend": ("extend/op-rule.md", "extend/pass.md", "extend/adapter.md", "extend/optimizer.md"),
    "Reference": ("cli.md", "api.md", "internals.md", "manifest.md", "refusals.md"),
}


def on_config(config: Any) -> Any:
    """Fills the navigation with the pages that exist."""
    config["nav"] = navigation(Path(config["docs_dir"]))
    return config


def navigation(folder: Path) -> list[dict[str, list[str]]]:
    """The sections and their pages, as mkdocs takes them."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")} | GENERATED
    found = {page for page in found if not page.startswith("refusals/")}
    ordered = {page for pages in ORDER.values() for page in pages}
    sections = {**ORDER, "More": tuple(sorted(found - ordered))}
    kept = {title: [page for page in pages if page in found] for title, pages in sections.items()}
    return [{title: pages} for title, pages in kept.items() if pages]
