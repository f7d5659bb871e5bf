"""The Program: a model's traces and everything the passes have found out about it.

A pass is a function from a Program to a Program. Facts are frozen dataclasses keyed by parameter
or node name; a pass adds facts or returns a Program with rewritten graphs, and never changes the
one it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mufx.align import Trace
from mufx.constants import Constants
from mufx.construction import Construction
from mufx.diagnostics import Diagnostic, Place, Severity
from mufx.knobs import Knobs
from mufx.magnitudes import Site
from mufx.moments import Moments
from mufx.ratios import Use
from mufx.rules import RULES, RuleTable
from mufx.source import Source


class Role(StrEnum):
    """How a weight's axes scale (Tensor Programs V, Table 3 and Appendix B).

    Of the axes that grow with width, a hidden weight contracts one and keeps one, an output
    weight (readout) only contracts, an input weight (embeddings, gains, biases) only keeps, and
    a scalar has none.
    """

    INPUT = "input"
    HIDDEN = "hidden"
    OUTPUT = "output"
    SCALAR = "scalar"


class Form(StrEnum):
    """Which of the equivalent tables of Tensor Programs V is produced."""

    TABLE3 = "table3"
    """No multipliers: everything is in init and learning rate."""
    TABLE8 = "table8"
    """The readout has a multiplier 1/fan-in; the form of microsoft/mup."""
    TABLE9 = "table9"
    """Multipliers sqrt(width) on input weights and 1/sqrt(width) on the readout."""


class Optimizer(StrEnum):
    """The update rule that the learning rates are for."""

    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"


@dataclass(frozen=True, slots=True)
class Label:
    """What a parameter is: its role, and the use that decides it.

    `multipliers` are the factors that its other uses need beside the anchor's, by node: a tied
    readout needs 1/m where the embedding is the anchor.
    """

    role: Role
    m_in: float
    m_out: float
    anchor: Use | None
    multipliers: Mapping[str, float] = field(default_factory=dict)
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowBlocks:
    """The rows of a fused hidden weight that read out: what they make has a fixed size.

    `rows` are (start, stop) on `axis` of the weight at target width.
    """

    axis: int
    rows: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Scales:
    """The plan for one parameter, relative to base width; all 1 at base.

    Attributes:
        multiplier: Factor A in the forward pass.
        init: Factor B on the standard deviation (or constant) at base width.
        lr: Factor C on the learning rate.
        weight_decay: Factor on the optimizer's weight decay, so that lr * weight_decay keeps
            its value (independent decay).
        eps: Factor on Adam's eps: the gradient's scale.
        clip: Factor on the gradient before a global norm is taken.
    """

    multiplier: float = 1.0
    init: float = 1.0
    lr: float = 1.0
    weight_decay: float = 1.0
    eps: float = 1.0
    clip: float = 1.0

    def shifted(self, theta: float, optimizer: Optimizer) -> Scales:
        """The same training with `multiplier` theta times as large.

        The abc-symmetry (Tensor Programs V, Lemma J.1): A -> A theta, B -> B / theta, Adam's
        C -> C / theta and eps -> eps theta, SGD's C -> C / theta**2; decay follows 1/C.
        """
        lr = self.lr / (theta**2 if optimizer is Optimizer.SGD else theta)
        decay = self.weight_decay * self.lr / lr
        return Scales(
            self.multiplier * theta,
            self.init / theta,
            lr,
            decay,
            self.eps * theta,
            self.clip / theta,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """One place where the forward pass was rewritten."""

    node: str
    place: Place
    before: str
    after: str
    because: str


@dataclass(frozen=True)
class Program:
    """A model on its way from standard to maximal update parametrization."""

    source: Source
    optimizer: Optimizer
    form: Form
    base: Construction
    target: Construction
    along: Construction
    along_knobs: Knobs
    """Those of the source further along the way, or its target's."""
    train: Trace
    evaluate: Trace
    rules: RuleTable = field(default_factory=lambda: RULES)
    uses: Mapping[str, tuple[Use, ...]] = field(default_factory=dict)
    """By parameter: every way in which either mode consumes it."""
    row_blocks: Mapping[str, RowBlocks] = field(default_factory=dict)
    """By parameter: rows with a role of their own."""
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By parameter: how many times its parts grow, largest first, where its axes do not say it."""
    labels: Mapping[str, Label] = field(default_factory=dict)
    inits: Mapping[str, tuple[Moments, Moments]] = field(default_factory=dict)
    """By parameter: what its constructor draws, at base and at target width."""
    plan: Mapping[str, Scales] = field(default_factory=dict)
    corrections: Mapping[bool, Mapping[Site, float]] = field(default_factory=dict)
    """By mode (training or not): the factors that the forward pass needs."""
    buffers: Mapping[str, float] = field(default_factory=dict)
    """Factors on the values of buffers."""
    init_corrections: Mapping[str, float] = field(default_factory=dict)
    """By parameter: the factor on what the constructor draws at target width."""
    absorbed: Mapping[str, float] = field(default_factory=dict)
    """By parameter: the factor that replaces corrections where the forward pass is kept."""
    unabsorbed: tuple[Diagnostic, ...] = ()
    """The corrections that no parameter can take over."""
    row_corrections: Mapping[str, float] = field(default_factory=dict)
    """By parameter: a further factor on the rows of `row_blocks`."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """By parameter: the name of its learning-rate group."""
    changes: tuple[Change, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def traces(self) -> tuple[Trace, Trace]:
        """Both modes: training, evaluation."""
        return (self.train, self.evaluate)

    def constants(self, trace: Trace) -> Constants:
        """The constants of one trace, with the buffers of base and target."""
        return Constants(trace, self.base, self.target)

    def parameters(self) -> tuple[str, ...]:
        """The names of all parameters, in the model's order, tied ones once."""
        return tuple(name for name, _ in self.target.model.named_parameters())

    @property
    def is_refused(self) -> bool:
        """Whether an error was found: the program will not be finished."""
        return any(d.severity is Severity.ERROR for d in self.diagnostics)

    def report(self, *diagnostics: Diagnostic) -> Program:
        """The Program with more diagnostics; none is reported twice."""
        new = dict.fromkeys((*self.diagnostics, *diagnostics))
        return replace(self, diagnostics=tuple(new))


Pass = Callable[[Program], Program]
