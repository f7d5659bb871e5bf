"""Input, hidden, output or scalar: read off the axes that grow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mufx.diagnostics import Diagnostic, warning
from mufx.program import Label, Program, Role, RowBlocks
from mufx.ratios import Use
from mufx.sizes import same


def assign_roles(program: Program) -> Program:
    """Gives every parameter its role.

    Case 1: one use. The role follows from the axes that grow: contracted and kept -> hidden,
        contracted only -> output, kept only -> input, none -> scalar.
    Case 2: several uses that ask for the same init and learning rate: the same.
    Case 3: several uses whose demands differ by one factor (a tied embedding: a lookup, and a
        readout that wants both init and learning rate 1/m). The use that contracts nothing is the
        anchor; the others get that factor as a multiplier.
    Case 4: uses whose demands do not differ by one factor (hidden and readout, m**1/2 apart).
        Learning rates are right everywhere, the init is the smallest that any use wants, and
        `MUF203` says so.

    Before: `uses`, `row_blocks` and `parts`. After: `labels` holds a label for every parameter.
    """
    diagnostics: list[Diagnostic] = []
    labels: dict[str, Label] = {}
    for name in program.parameters():
        label, problem = _label(name, program.uses.get(name, ()))
        labels[name] = _in_parts(label, program.parts.get(name, ()), program.row_blocks.get(name))
        diagnostics.extend(problem)
    return replace(program, labels=labels).report(*diagnostics)


def role_of(use: Use) -> Role:
    """The role that a single use gives.

    Source: Tensor Programs V, Appendix B. An axis that weight, input and result share (a head, an
    expert) numbers weights of one kind: many readouts are readouts. Where nothing that grows is
    contracted it counts as kept.
    """
    if use.contracts:
        return Role.HIDDEN if use.keeps else Role.OUTPUT
    return Role.INPUT if use.keeps else Role.SCALAR


def demands(use: Use) -> tuple[float, float]:
    """Init and Adam learning rate that one use asks for (Tensor Programs V, Table 3)."""
    return 1 / use.terms, 1 / use.m_in


def excluded_by(anchor: Use, uses: Iterable[Use]) -> list[Use]:
    """The uses that want another init than the anchor's, beside their multiplier."""
    init = demands(anchor)[0]
    return [
        use
        for use in uses
        if not same(1.0 if use.normed else demands(use)[0] / init, _factor(use, anchor))
    ]


def _factor(use: Use, anchor: Use) -> float:
    """The multiplier that makes the anchor's learning rate right for another use.

    Of what is used over its own size only the rate over the init counts: cosines with a table
    that is looked up as well want nothing.
    """
    factor = demands(use)[1] / demands(anchor)[1]
    return factor * demands(anchor)[0] / demands(use)[0] if use.normed else factor


def _label(name: str, uses: tuple[Use, ...]) -> tuple[Label, list[Diagnostic]]:
    if not uses:
        return Label(Role.SCALAR, 1.0, 1.0, None, because=("no operation uses it",)), []
    anchor = min(uses, key=_preference)
    multipliers = {use.node: _factor(use, anchor) for use in uses}
    needed = {node: factor for node, factor in multipliers.items() if not same(factor, 1.0)}
    excluded = excluded_by(anchor, uses)
    because = [_because(use) for use in _distinct(uses)]
    if needed:
        because.append(f"anchored on {anchor.operation}; its other uses get a multiplier")
    label = Label(
        role_of(anchor),
        anchor.m_in,
        max(use.m_out for use in uses if role_of(use) is role_of(anchor)),
        anchor,
        needed,
        tuple(because),
    )
    return label, [_exclusive(name, anchor, excluded[0])] if excluded else []


def _in_parts(label: Label, parts: tuple[float, ...], blocks: RowBlocks | None) -> Label:
    """The label of a fused weight: the part that grows most says how large its gradient is."""
    reasons = list(label.because)
    if len(parts) > 1:
        grown = " and ".join(f"x {m:.4g}" for m in parts)
        reasons.append(f"its parts grow {grown}: eps follows the first, the smallest gradient")
    elif parts and blocks is None and not same(parts[0], label.m_out):
        reasons.append(
            f"joined before it is read: its gradient falls as that grows, x {parts[0]:.4g}"
        )
    if blocks is not None:
        rows = ", ".join(f"{start}:{stop}" for start, stop in blocks.rows)
        reasons.append(f"rows {rows} make parts of fixed size: they read out, and start smaller")
    return replace(label, m_out=parts[0] if parts else label.m_out, because=tuple(reasons))


def _preference(use: Use) -> tuple[bool, float, float]:
    """Uses that contract nothing first, then the smallest init relative to the learning rate."""
    return (use.contracts, demands(use)[0] * use.m_in, use.m_in)


def _distinct(uses: tuple[Use, ...]) -> list[Use]:
    return list({(u.operation, u.kind, u.m_in, u.m_out, u.contracts): u for u in uses}.values())


def _because(use: Use) -> str:
    def axes(which: tuple[object, ...]) -> str:
        return " x ".join(str(a) for a in which) or "nothing"

    gone = tuple(f"{a.base}->{a.target}" for a in use.contracted if a.grows)
    kept = tuple(f"{a.base}->{a.target}" for a in use.kept if a.grows)
    return (
        f"{use.operation} at {use.place.portable()} contracts {axes(gone)} and keeps {axes(kept)} "
        f"of the axes that grow: {role_of(use)}"
    )


def _exclusive(name: str, anchor: Use, other: Use) -> Diagnostic:
    return warning(
        "MUF203",
        f"{name} is used as {role_of(anchor)} ({anchor.operation}) and as {role_of(other)} "
        f"({other.operation}, {other.place}): no single init serves both",
        hint="learning rates are right for both, the init is the smaller one; untie the two "
        "uses for an exact parametrization",
        place=anchor.place,
    )
