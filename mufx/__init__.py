"""mufx: a static compiler from standard to maximal update parametrization.

    conversion = mufx.convert(build, inputs, base={"width": 64}, target={"width": 1024})
    conversion.write("out/")

The names below are the public API; each is imported when it is first used, so that importing
mufx costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mufx.garbage import uncollected

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mufx.api import Conversion, convert, run, trace
    from mufx.applying import applied, apply
    from mufx.auditing.entry import audit
    from mufx.auditing.records import AuditReport
    from mufx.diagnostics import Diagnostic, MufxError
    from mufx.manifest import Manifest
    from mufx.optim import clip_grad_norm_, param_groups
    from mufx.passes import PASSES
    from mufx.program import Program
    from mufx.rules import RULES, RuleTable
    from mufx.source import Source, load

_HOME = {
    "AuditReport": "mufx.auditing.records",
    "Conversion": "mufx.api",
    "Diagnostic": "mufx.diagnostics",
    "Manifest": "mufx.manifest",
    "MufxError": "mufx.diagnostics",
    "PASSES": "mufx.passes",
    "Program": "mufx.program",
    "RULES": "mufx.rules",
    "RuleTable": "mufx.rules",
    "Source": "mufx.source",
    "audit": "mufx.auditing.entry",
    "applied": "mufx.applying",
    "apply": "mufx.applying",
    "clip_grad_norm_": "mufx.optim",
    "convert": "mufx.api",
    "load": "mufx.source",
    "param_groups": "mufx.optim",
    "run": "mufx.api",
    "trace": "mufx.api",
}

__all__ = [
    "PASSES",
    "RULES",
    "AuditReport",
    "Conversion",
    "Diagnostic",
    "Manifest",
    "MufxError",
    "Program",
    "RuleTable",
    "Source",
    "audit",
    "applied",
    "apply",
    "clip_grad_norm_",
    "convert",
    "load",
    "param_groups",
    "run",
    "trace",
]


def __getattr__(name: str) -> object:
    """Imports a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'mufx' has no attribute {name!r}")
    with uncollected():
        return getattr(import_module(_HOME[name]), name)
