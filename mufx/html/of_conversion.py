"""The page of a conversion."""

from __future__ import annotations

from collections.abc import Iterable

from mufx.api import Conversion
from mufx.diagnostics import Diagnostic
from mufx.html import roles, tree
from mufx.html.axes import Grown
from mufx.html.corrections import corrections
from mufx.html.document import Block, Code, Document, Section, Words
from mufx.html.places import of_diagnostic
from mufx.html.training import training
from mufx.knobs import written
from mufx.manifest import Manifest
from mufx.program import Form, Optimizer, Program

_WHERE = "In the folder that {} -o FOLDER writes:"


def of_conversion(conversion: Conversion, grown: Grown | None = None) -> Document:
    """Roles, modules, corrections, diagnostics and the code to train of a conversion.

    `grown` is what is known of the instance, where one was converted.
    """
    manifest = conversion.manifest
    return Document(
        f"{manifest.model} in μP",
        f"{written(manifest.base)} → {written(manifest.target)} · {manifest.optimizer} · "
        f"{manifest.form} · mufx {manifest.mufx_version}",
        (*of_program(conversion, grown), train(conversion)),
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


def train(conversion: Conversion) -> Section:
    """What a user writes to train the emitted module."""
    manifest = conversion.manifest
    code = Code(training(manifest.model, manifest.optimizer))
    return Section("train", "Train", (Words(_WHERE.format(_command(manifest))), code))


def _command(manifest: Manifest) -> str:
    """The conversion as it is typed; a library call has no words for its model."""
    if not manifest.source.spec:
        return "a conversion"
    words = ["mufx convert", manifest.source.spec]
    words += ["--base", written(manifest.base), "--target", written(manifest.target)]
    if manifest.optimizer is not Optimizer.ADAMW:
        words += ["--optimizer", manifest.optimizer]
    if manifest.form is not Form.TABLE3:
        words += ["--form", manifest.form]
    return " ".join(words)


def _corrections(program: Program) -> tuple[Block, ...]:
    return corrections(program) or (Words("None: the forward pass is kept as it is."),)
