"""The page of a conversion."""

from __future__ import annotations

from collections.abc import Iterable

from mufx.api import Conversion
from mufx.diagnostics import Diagnostic
from mufx.html import roles, tree
from mufx.html.axes import Grown
from mufx.html.command import Typed
from mufx.html.corrections import corrections
from mufx.html.document import Block, Document, Section, Words
from mufx.html.places import of_diagnostic
from mufx.html.training import Settings, blocks, stand_ins
from mufx.knobs import written
from mufx.program import Program


def of_conversion(
    conversion: Conversion, grown: Grown | None = None, typed: Typed | None = None
) -> Document:
    """Roles, modules, corrections, diagnostics and the code to train of a conversion.

    `grown` is what is known of the instance, where one was converted; `typed` names the model.
    """
    manifest = conversion.manifest
    return Document(
        f"{manifest.model} in μP",
        f"{written(manifest.base)} → {written(manifest.target)} · {manifest.optimizer} · "
        f"{manifest.form} · mufx {manifest.mufx_version}",
        (
            *of_program(conversion, grown),
            train(conversion, typed, stand_ins(manifest.optimizer)),
        ),
        source=manifest.source.digest,
    )


def of_program(conversion: Conversion, grown: Grown | None = None) -> tuple[Section, ...]:
    """The sections on what was decided."""
    program = conversion.program
    return (
        Section("roles", "Roles", (roles.of_manifest(conversion.manifest),)),
        tree.section(program, grown),
        Section("corrections", "Corrections", _corrections(program)),
        diagnostics((*program.diagnostics, *program.unabsorbed)),
    )


def diagnostics(found: Iterable[Diagnostic]) -> Section:
    """What mufx has to say, each with its lines of source."""
    blocks: tuple[Block, ...] = tuple(of_diagnostic(each) for each in found)
    return Section("diagnostics", "Diagnostics", blocks or (Words("None."),))


def train(conversion: Conversion, typed: Typed | None, settings: Settings) -> Section:
    """What a user writes to train the emitted module."""
    manifest = conversion.manifest
    named = typed or Typed(manifest.source.spec)
    form, sizes = manifest.form, (manifest.base, manifest.target)
    command = named.convert(*sizes, manifest.optimizer, form) if named.spec else ""
    return Section("train", "Train", blocks(command, manifest.model, manifest.optimizer, settings))


def _corrections(program: Program) -> tuple[Block, ...]:
    return corrections(program) or (Words("None: the forward pass is kept as it is."),)
