"""The public API: `convert` and what it returns, `trace` and `run` for rewriting of one's own."""

from __future__ import annotations

import atexit
import importlib.util
import inspect
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

import mufx
from mufx import manifest as manifests
from mufx.diagnostics import Diagnostic, raise_errors
from mufx.emit import optim_mup
from mufx.emit.initialisation import InitScale
from mufx.emit.tables import TABLES_FILE, tables_of
from mufx.emit.writer import Emission, emit
from mufx.garbage import uncollected
from mufx.manifest import Manifest
from mufx.output import CONVERSION, write_files
from mufx.passes import PASSES
from mufx.precision import with_taken_types
from mufx.program import Change, Optimizer, Pass, Program, Role
from mufx.rules import RULES, RuleTable
from mufx.source import ExampleInputs, Source, from_callable
from mufx.tracing import trace as trace_source

MODULE_FILE = "model_mup.py"
OPTIM_FILE = "optim_mup.py"
MANIFEST_FILE = "manifest.json"

Progress = Callable[[str], None]


@uncollected()
def trace(
    source: Source,
    *,
    optimizer: str = "adamw",
    form: str = "table3",
    rules: RuleTable = RULES,
) -> Program:
    """Builds and records a model at its sizes, without memory.

    See `mufx.tracing.trace`.
    """
    return trace_source(source, optimizer=optimizer, form=form, rules=rules)


@uncollected()
def run(program: Program, passes: Sequence[Pass] = PASSES) -> Program:
    """Runs passes one after the other and checks the Program after each.

    A pass is a function from a Program to a Program; `mufx.PASSES` are ours, and a pass of your
    own goes anywhere between them:

        passes = list(mufx.PASSES)
        passes.insert(4, freeze_embeddings)
        program = mufx.run(mufx.trace(source), passes)

    Raises:
        MufxError: All errors that the passes reported, together.
    """
    for step in passes:
        program = step(program)
        _verify(program)
    raise_errors(program.diagnostics)
    return program


def _verify(program: Program) -> None:
    """What holds of every Program: sound graphs, and facts about things that exist."""
    for trace in program.traces:
        trace.graph.lint()
        names = {node.name for node in trace.graph.nodes}
        operations = {n.name for n in trace.graph.nodes if n.op.startswith("call_")}
        assert operations <= trace.recording.origins.keys(), "a node without an origin"
        assert {name for name, _ in trace.numbers} <= names | trace.axes.keys()
    parameters = set(program.parameters())
    for facts in (program.labels, program.plan, program.inits, program.init_corrections):
        assert facts.keys() <= parameters, "facts about unknown parameters"


@uncollected()
def convert(
    build: Callable[..., nn.Module],
    inputs: ExampleInputs,
    base: Mapping[str, object],
    target: Mapping[str, object],
    *,
    optimizer: str = "adamw",
    form: str = "table3",
    vary: Iterable[str] = (),
    passes: Sequence[Pass] = PASSES,
    rules: RuleTable = RULES,
) -> Conversion:
    """Puts a model in standard parametrization into the maximal update parametrization.

    Nothing is allocated: the model is built on `meta` at base and at target width.

    Args:
        build: Makes the model, called with the knobs as keywords.
        inputs: Example inputs of `forward`: a tuple of arguments, a dict of keyword arguments,
            one tensor, or a callable of the batch size that returns one of these.
        base: The knobs where hyperparameters are tuned.
        target: The knobs of the model to train.
        optimizer: "adam", "adamw" or "sgd".
        form: "table3" (no multipliers), "table8" (as microsoft/mup) or "table9".
        vary: Where base and target are equal: the knobs that would grow.
        passes: The passes, `PASSES` with any of your own between them.
        rules: The op rules, `RULES | yours`.

    Returns:
        The conversion: the emitted module, its manifest, and the Program with all facts.

    Raises:
        MufxError: Everything that mufx cannot label, scale or write with certainty, located.

    Source: Tensor Programs V (Yang et al., 2022), Tables 3, 8 and 9 and Appendix B.
    """
    source = from_callable(build, inputs, base, target, tuple(vary))
    return convert_source(source, optimizer=optimizer, form=form, passes=passes, rules=rules)


@uncollected()
def convert_source(
    source: Source,
    *,
    optimizer: str = "adamw",
    form: str = "table3",
    passes: Sequence[Pass] = PASSES,
    rules: RuleTable = RULES,
    progress: Progress = lambda _: None,
) -> Conversion:
    """`convert` for a Source, as the command line loads it; `progress` is told each step."""
    progress("recording the model")
    program = trace(source, optimizer=optimizer, form=form, rules=rules)
    return convert_program(program, passes, progress)


def convert_program(
    program: Program, passes: Sequence[Pass] = PASSES, progress: Progress = lambda _: None
) -> Conversion:
    """`convert` for what was traced; `progress` is told each step."""
    progress("labelling and rewriting")
    program = run(program, passes)
    progress("writing the module")
    return Conversion(program, emit(_emission(program)))


@dataclass(frozen=True)
class Conversion:
    """A finished conversion.

    Attributes:
        program: Graphs, facts and diagnostics.
        text: The source of the emitted module.
    """

    program: Program
    text: str

    @cached_property
    def manifest(self) -> Manifest:
        """The learning-rate groups and everything known of each parameter."""
        return _manifest(self.program, self.text)

    @cached_property
    def tables(self) -> Mapping[str, torch.Tensor]:
        """By name: numbers that no torch function computed, such as a table made with numpy."""
        return tables_of(self.program.target)

    def files(self) -> dict[str, str | bytes]:
        """The emitted files by name; the tables, where there are any, are one more."""
        files: dict[str, str | bytes] = {
            MODULE_FILE: self.text,
            OPTIM_FILE: inspect.getsource(optim_mup),
            MANIFEST_FILE: manifests.dumps(self.manifest),
        }
        if self.tables:
            torch.save(dict(self.tables), held := BytesIO())
            files[TABLES_FILE] = held.getvalue()
        return files

    def write(self, folder: str | Path) -> None:
        """Writes the emitted files into a folder, which is made, in the place of earlier ones."""
        write_files(Path(folder), self.files(), replacing=CONVERSION)

    def module(self, device: str | torch.device = "cpu", seed: int = 0) -> nn.Module:
        """The emitted module on a device, initialised after `torch.manual_seed(seed)`."""
        torch.manual_seed(seed)
        made: nn.Module = getattr(self._python, self.program.source.name)(device=device)
        return made

    @cached_property
    def _python(self) -> ModuleType:
        """The emitted file, imported from a folder of its own."""
        folder = Path(tempfile.mkdtemp(prefix="mufx-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self.write(folder)
        return import_emitted(folder / MODULE_FILE)


def import_emitted(path: Path) -> ModuleType:
    """Imports an emitted file under a name of its own, so that its objects can be pickled."""
    name = f"mufx_emitted_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _emission(program: Program) -> Emission:
    source = program.source
    knobs = " -> ".join(
        ", ".join(f"{k}={v}" for k, v in knobs.items()) for knobs in (source.base, source.target)
    )
    summary = (
        f"Converted by mufx {mufx.__version__} from {source.spec or source.name}: {knobs}.\n"
        f"Form {program.form}, optimizer {program.optimizer}. State-dict keys are the original's."
    )
    comments = {c.node: _comment(c) for c in program.changes}
    return Emission(
        source.name,
        summary,
        program.target,
        with_taken_types(program.train),
        with_taken_types(program.evaluate),
        comments,
        _init_scales(program),
    )


def _comment(change: Change) -> str:
    return f"μP: {change.before} -> {change.after}"


def _init_scales(program: Program) -> list[InitScale]:
    scales: list[InitScale] = []
    for name, factor in program.init_corrections.items():
        drawn = program.inits[name][1]
        before, after = drawn.size, drawn.size * factor
        if factor != 1.0 and before != 0.0:
            what = "std" if drawn.random else "value"
            scales.append(InitScale(name, factor, f"{what} {before:.4g} -> {after:.4g}"))
        if (further := program.row_corrections.get(name, 1.0)) != 1.0 and before != 0.0:
            blocks = program.row_blocks[name]
            why = f"these rows read out: -> {after * further:.4g}"
            scales.append(InitScale(name, further, why, blocks.axis, blocks.rows))
    for name, factor in program.buffers.items():
        scales.append(InitScale(name, factor, "keeps its value at base width"))
    return scales


def _manifest(program: Program, text: str) -> Manifest:
    source = program.source
    aliases = _aliases(program)
    entries = {name: _entry(program, name, aliases) for name in program.parameters()}
    parameters, groups = manifests.grouped(entries)
    return Manifest(
        mufx_version=mufx.__version__,
        torch_version=torch.__version__.partition("+")[0],
        model=source.name,
        source=manifests.SourceEntry(spec=source.spec, digest=source.digest),
        emitted=manifests.EmittedEntry(file=MODULE_FILE, digest=sha256(text.encode()).hexdigest()),
        base=dict(source.base),
        target=dict(source.target),
        optimizer=program.optimizer,
        form=program.form,
        parameters=parameters,
        groups=groups,
        changes=tuple(
            manifests.Change(
                node=c.node,
                module=c.place.module,
                file=c.place.portable().file,
                line=c.place.line,
                before=c.before,
                after=c.after,
                because=c.because,
            )
            for c in program.changes
        ),
        unabsorbed=_recorded(program.unabsorbed),
        diagnostics=_recorded(program.diagnostics),
    )


def _recorded(diagnostics: Iterable[Diagnostic]) -> tuple[manifests.DiagnosticEntry, ...]:
    return tuple(
        manifests.DiagnosticEntry.of(replace(d, place=d.place and d.place.portable()))
        for d in diagnostics
    )


def _entry(
    program: Program, name: str, aliases: Mapping[str, tuple[str, ...]]
) -> manifests.ParameterEntry:
    label, plan = program.labels[name], program.plan[name]
    return manifests.ParameterEntry(
        role=label.role,
        shape=tuple(program.target.model.get_parameter(name).shape),
        base_shape=tuple(program.base.model.get_parameter(name).shape),
        m_in=label.m_in,
        m_out=label.m_out,
        multiplier=plan.multiplier,
        init_scale=plan.init,
        init_correction=program.init_corrections[name],
        lr_scale=plan.lr,
        weight_decay_scale=plan.weight_decay,
        eps_scale=1.0 if program.optimizer is Optimizer.SGD else plan.eps,
        clip_scale=plan.clip,
        absorbed=program.absorbed.get(name, 1.0),
        init_size=program.inits[name][1].size,
        group="",
        tied=aliases.get(name, ()),
        because=label.because,
        rows=_rows(program, name),
    )


def _rows(program: Program, name: str) -> tuple[manifests.RowsEntry, ...]:
    blocks = program.row_blocks.get(name)
    if blocks is None:
        return ()
    correction = program.row_corrections[name]
    return tuple(
        manifests.RowsEntry(
            axis=blocks.axis, start=start, stop=stop, role=Role.OUTPUT, init_correction=correction
        )
        for start, stop in blocks.rows
    )


def _aliases(program: Program) -> dict[str, tuple[str, ...]]:
    """By first name: the other names of a tied parameter."""
    first: dict[int, str] = {}
    others: dict[str, list[str]] = {}
    for name, parameter in program.target.model.named_parameters(remove_duplicate=False):
        kept = first.setdefault(id(parameter), name)
        if kept != name:
            others.setdefault(kept, []).append(name)
    return {name: tuple(found) for name, found in others.items()}
