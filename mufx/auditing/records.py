"""What an audit finds, as records that print and serialise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from mufx.diagnostics import CODES, Diagnostic, Place, Severity

_WEIGHT = {Severity.NOTE: 0, Severity.WARNING: 1, Severity.ERROR: 2}


class Quantity(StrEnum):
    """What of a model or of its training has another width dependence than μP."""

    INIT = "init"
    LR = "lr"
    MULTIPLIER = "multiplier"
    WEIGHT_DECAY = "weight decay"
    EPS = "eps"
    GROUPS = "groups"


@dataclass(frozen=True, slots=True)
class Finding:
    """One deviation from μP.

    Attributes:
        code: A key of `mufx.diagnostics.CODES`.
        severity: An error breaks the transfer, a warning may, a note only says.
        quantity: What deviates.
        parameter: Of which parameter; `None` for a number in the forward pass.
        role: Its role.
        expected: Target over base of what μP wants, in the form the model is written in.
        found: Target over base of what is there.
        expected_value: The number itself at target width: a std, a rate, a literal.
        found_value: The number that is there at target width.
        ratio: By how much the size of what it makes leaves 1 from base to target.
        where: What leaves its size: "activation", "readout" or "attention logits".
        place: In the user's source.
        message: What is.
        hint: What to do.
    """

    code: str
    severity: Severity
    quantity: Quantity
    parameter: str | None
    role: str | None
    expected: float
    found: float
    expected_value: float
    found_value: float
    ratio: float
    where: str
    place: Place | None
    message: str
    hint: str

    def __post_init__(self) -> None:
        """A code that is not declared is a defect of ours."""
        assert self.code in CODES, self.code


@dataclass(frozen=True, slots=True)
class Parameter:
    """The role of one parameter and why it has it.

    `multiplier` is the factor that the forward pass gives it, target over base: which of the
    equivalent forms it is written in.
    """

    role: str
    shape: tuple[int, ...]
    m_in: float
    m_out: float
    multiplier: float
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Multiplier:
    """A number of the forward pass that scales an activation.

    Attributes:
        kind: "embedding", "residual", "attention", "logit" or "activation".
        base: Its value at base width.
        target: Its value at target width.
        implied_base: The width at which it would be 1 (for attention: 1/sqrt(d)), if it is read
            as a width multiplier; `None` where it does not depend on width in any reading.
        place: In the user's source.
    """

    kind: str
    base: float
    target: float
    implied_base: float | None
    place: Place


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of an audit.

    Attributes:
        model: The class of the root module.
        optimizer: "adam", "adamw" or "sgd".
        base: The knobs where hyperparameters are tuned.
        target: The knobs of what is trained.
        live: Whether the groups of a live optimizer were read.
        parameters: By name, tied ones once.
        findings: The deviations, most severe first.
        multipliers: The multipliers that the model carries.
        diagnostics: What the analysis has to say beside them.
    """

    model: str
    optimizer: str
    base: Mapping[str, object]
    target: Mapping[str, object]
    live: bool
    parameters: Mapping[str, Parameter]
    findings: tuple[Finding, ...]
    multipliers: tuple[Multiplier, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing of warning weight or more was found."""
        return not self.failing(Severity.WARNING)

    @property
    def sizes(self) -> Mapping[str, float]:
        """What leaves its size, and by how much at most, target over base."""
        ratios: dict[str, float] = {}
        for finding in self.findings:
            known = ratios.get(finding.where, 1.0)
            ratios[finding.where] = max(known, finding.ratio, key=_distance)
        return {w: r for w, r in ratios.items() if 0 < _distance(r) < math.inf}

    def failing(self, least: Severity) -> tuple[Finding, ...]:
        """The findings of at least this severity."""
        return tuple(f for f in self.findings if _WEIGHT[f.severity] >= _WEIGHT[least])

    def document(self) -> dict[str, object]:
        """The records as JSON takes them; places are relative to the working folder."""
        document = asdict(self)
        document["findings"] = [_of_finding(f) for f in self.findings]
        document["multipliers"] = [
            asdict(replace(m, place=m.place.portable())) for m in self.multipliers
        ]
        document["diagnostics"] = [
            asdict(replace(d, place=d.place and d.place.portable())) for d in self.diagnostics
        ]
        return {**document, "sizes": dict(self.sizes), "ok": self.ok}


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf


def _of_finding(finding: Finding) -> dict[str, object]:
    place = finding.place and finding.place.portable()
    record = asdict(replace(finding, place=place))
    return {name: None if value == math.inf else value for name, value in record.items()}


def ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    """Most severe first, else in the order they were found; none twice."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: -_WEIGHT[f.severity]))
