"""The deviations: what is there against what is expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from mufx.align import Trace
from mufx.auditing.expected import Expectation
from mufx.auditing.forms import Fit, Misfit
from mufx.auditing.numbers import Found, close
from mufx.auditing.records import Finding, Quantity
from mufx.diagnostics import Severity
from mufx.magnitudes import Site, SiteKind
from mufx.program import Label, Optimizer, Program, Role, Scales
from mufx.sizes import Number, same

_CODES = {
    Quantity.INIT: "MUF610",
    Quantity.LR: "MUF611",
    Quantity.MULTIPLIER: "MUF612",
    Quantity.WEIGHT_DECAY: "MUF613",
    Quantity.EPS: "MUF614",
}


def of_diagnostics(program: Program, expected: Expectation) -> Iterator[Finding]:
    """What a conversion refuses and an audit can go on with: it has no consistent width rule."""
    walks = [d for fit in expected.fits for d in fit.diagnostics]
    for diagnostic in dict.fromkeys([*program.diagnostics, *walks]):
        if diagnostic.severity is Severity.ERROR:
            yield Finding(
                diagnostic.code,
                Severity.ERROR,
                Quantity.INIT if diagnostic.code == "MUF204" else Quantity.MULTIPLIER,
                None,
                None,
                *(1.0, 1.0, 1.0, 1.0, 1.0),
                "activation",
                diagnostic.place,
                diagnostic.message,
                diagnostic.hint,
            )


def of_parameters(
    program: Program, found: Mapping[str, Found], expected: Expectation
) -> Iterator[Finding]:
    """One finding for each number of each parameter that changes with width as it should not."""
    for name, label in program.labels.items():
        if label.anchor is not None:
            judge = _Judge(program, name, label, found[name], expected.scales[name])
            yield from judge.findings()


class _Judge:
    """Compares the numbers of one parameter."""

    def __init__(
        self, program: Program, name: str, label: Label, found: Found, wanted: Scales
    ) -> None:
        self.program, self.name, self.label = program, name, label
        self.found, self.wanted = found, wanted

    def findings(self) -> Iterator[Finding]:
        found, wanted = self.found, self.wanted
        if not found.init_is(wanted.init):
            assert found.init is not None
            yield self._finding(Quantity.INIT, wanted.init, found.init, found.std)
        further = wanted.init * self.label.m_in**-0.5
        if found.rows_init is not None and not close(further, found.rows_init):
            yield self._of_rows(further, found.rows_init)
        setting = found.setting
        rows = (
            (Quantity.LR, wanted.lr, found.lr, setting.lr),
            (Quantity.WEIGHT_DECAY, wanted.weight_decay, found.weight_decay, setting.weight_decay),
        )
        for quantity, expected, there, value in rows:
            if there is not None and not close(expected, there):
                yield self._finding(quantity, expected, there, value)
        if found.eps is not None and not same(found.eps, 1.0) and not close(wanted.eps, found.eps):
            yield self._finding(Quantity.EPS, wanted.eps, found.eps, setting.eps)

    def _finding(self, quantity: Quantity, expected: float, found: float, value: float) -> Finding:
        label, anchor = self.label, self.label.anchor
        assert anchor is not None
        wanted_value = value * expected / found if found else value
        what = {Quantity.INIT: "starts", Quantity.LR: "learns"}.get(quantity, "")
        message = (
            f"the {_SPOKEN[quantity]} of {self.name} is x {found:.4g} from base to target; for "
            f"this {label.role} weight x {expected:.4g} is right"
        )
        if what and found:
            message += f": what {self.name} {what} with is x {found / expected:.4g} as large"
        return Finding(
            _CODES[quantity],
            self._severity(quantity, expected, found),
            quantity,
            self.name,
            label.role.value,
            expected,
            found,
            wanted_value,
            value,
            found / expected if what else 1.0,
            "readout" if label.role is Role.OUTPUT else "activation",
            anchor.place,
            message,
            self._hint(quantity, expected, found, wanted_value),
        )

    def _of_rows(self, expected: float, found: float) -> Finding:
        """The init of the rows of a fused weight that make parts of fixed size."""
        rows = ", ".join(f"{a}:{b}" for a, b in self.program.row_blocks[self.name].rows)
        std = self.found.std * found / (self.found.init or found)
        return replace(
            self._finding(Quantity.INIT, expected, found, std),
            severity=Severity.ERROR if found > expected else Severity.WARNING,
            role=Role.OUTPUT.value,
            where="readout",
            message=f"the init of the rows {rows} of {self.name} is x {found:.4g} from base to "
            f"target; they make parts of fixed size, so they read out, and x {expected:.4g} is "
            "right",
            hint=f"multiply these rows by {expected / found:.4g} after they are drawn",
        )

    def _severity(self, quantity: Quantity, expected: float, found: float) -> Severity:
        """What starts too small where little depends on it can learn its way up."""
        small = quantity is Quantity.INIT and found < expected
        mild = quantity is Quantity.EPS or (small and self.label.role is not Role.HIDDEN)
        return Severity.WARNING if mild else Severity.ERROR

    def _hint(self, quantity: Quantity, expected: float, found: float, value: float) -> str:
        if quantity is Quantity.LR:
            return self._hint_for_rate(expected, found)
        if quantity is Quantity.INIT:
            return self._hint_for_init(found, value)
        if quantity is Quantity.WEIGHT_DECAY:
            return (
                f"the optimizer multiplies decay by the learning rate: give its group x "
                f"{expected:.4g} the decay, so that a step decays as much as at base width"
            )
        return f"eps follows the size of the gradient: x {expected:.4g}"

    def _hint_for_rate(self, expected: float, found: float) -> str:
        hint = f"give its group x {expected:.4g} the learning rate at target width"
        m_in, m_out, theta = self.label.m_in, self.label.m_out, self.wanted.multiplier
        sgd = self.program.optimizer is Optimizer.SGD
        if same(found, 1.0):
            return hint
        if close(found, 1 / m_in / theta if sgd else m_out / m_in / theta**2):
            other = "Adam" if sgd else "SGD"
            return f"{hint}; x {found:.4g} is the rule for {other}"
        if not same(theta, 1.0) and close(found, (m_out / m_in) if sgd else 1 / m_in):
            return (
                f"{hint}; x {found:.4g} goes with Table 3, which has no multiplier, but the "
                f"forward pass has x {theta:.4g}"
            )
        if same(m_in, 1.0) and found < 1.0:
            return f"{hint}; it contracts no axis that grows, so the rule for hidden does not fit"
        return hint

    def _hint_for_init(self, found: float, value: float) -> str:
        hint = f"its std at target width should be {value:.4g}, not {self.found.std:.4g}"
        m_in = self.label.m_in
        theta = self.wanted.multiplier
        if self.label.role is Role.OUTPUT and close(found * theta, m_in**-0.5):
            return f"{hint}; x {m_in**-0.5:.4g} is the rule for hidden, and this one reads out"
        if self.label.multipliers and close(found, m_in**0.5 * _factor(self.label) ** -0.5):
            return f"{hint}; it is an embedding too, so do not rescale it as a readout"
        return hint


def _factor(label: Label) -> float:
    return next(iter(label.multipliers.values()))


_SPOKEN = {
    Quantity.INIT: "init",
    Quantity.LR: "learning rate",
    Quantity.WEIGHT_DECAY: "weight decay",
    Quantity.EPS: "eps",
}


# -- the forward pass ---------------------------------------------------------------------------


def of_forward(program: Program, expected: Expectation) -> Iterator[Finding]:
    """One finding for each number that the forward pass lacks, or that grows as it should not."""
    seen: set[tuple[Site, float]] = set()
    for trace, fit in zip(program.traces, expected.fits, strict=True):
        for site, factor in fit.corrections.items():
            if (site, round(factor, 9)) not in seen:
                seen.add((site, round(factor, 9)))
                yield _of_site(program, trace, fit, site, factor)


def _of_site(program: Program, trace: Trace, fit: Fit, site: Site, factor: float) -> Finding:
    misfit = fit.misfits[site]
    place = (
        trace.recording.origins[site.node].place if site.node in trace.recording.origins else None
    )
    number = _number(program, trace, site)
    found, value = (number.ratio, number.target) if number is not None else (1.0, 1.0)
    name = misfit.parameter
    return Finding(
        _CODES[Quantity.MULTIPLIER],
        Severity.ERROR,
        Quantity.MULTIPLIER,
        name,
        program.labels[name].role.value if name is not None else None,
        found * factor,
        found,
        value * factor,
        value,
        misfit.ratio,
        misfit.where,
        place,
        _told(misfit, name, found, factor, number),
        _advised(misfit.where, name, value, factor, number),
    )


def _told(
    misfit: Misfit, name: str | None, found: float, factor: float, number: Number | None
) -> str:
    behind = f" behind {name}" if name is not None else ""
    size = f"the size of the {misfit.where}{behind} is x {misfit.ratio:.4g} from base to target"
    if number is None:
        return f"{size}: a factor of {factor:.4g} is missing"
    return f"{size}: {number.target:.6g} is x {found:.4g}, and x {found * factor:.4g} is right"


def _advised(
    where: str, name: str | None, value: float, factor: float, number: Number | None
) -> str:
    wanted = f"{value * factor:.6g} at target width"
    if where == "attention logits":
        return (
            f"scale attention by 1/d_head with the constant of base width, "
            f"sqrt(d_head at base) / d_head: {wanted}"
        )
    if number is None:
        what = f"what {name} makes" if name is not None else "it"
        return f"multiply {what} by {wanted}"
    return f"let it be {wanted}"


def _number(program: Program, trace: Trace, site: Site) -> Number | None:
    """The number at a site; `None` where a multiplication would be new."""
    if site.kind in (SiteKind.RESULT, SiteKind.OPERAND):
        return None
    node = next(n for n in trace.graph.nodes if n.name == site.node)
    if site.kind is SiteKind.BUFFER:
        ratio = program.constants(trace).magnitude(node).ratio
        return Number(1.0, ratio, ratio * ratio)
    assert site.slot is not None
    known = trace.numbers.get((site.node, site.slot))
    if known is not None:
        return known
    literal = node.args[site.slot] if isinstance(site.slot, int) else node.kwargs.get(site.slot)
    if isinstance(literal, (int, float)):
        return Number(literal, literal, literal)
    head = trace.axes[node.all_input_nodes[0].name][-1]  # attention's default
    return Number(head.base**-0.5, head.target**-0.5, head.along**-0.5)
