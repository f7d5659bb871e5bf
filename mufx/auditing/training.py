"""Findings about the groups as a whole: inactive, flattened, unscaled eps, a floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mufx.auditing.expected import Expectation
from mufx.auditing.groups import Live
from mufx.auditing.numbers import Found, close
from mufx.auditing.records import Finding, Quantity
from mufx.diagnostics import Place, Severity
from mufx.program import Optimizer, Program
from mufx.sizes import same


def is_plain(found: Mapping[str, Found]) -> bool:
    """Whether every learning rate is the same at base and at target, up to one factor of all."""
    rates = [f.lr for f in found.values() if f.lr is not None]
    return not rates or all(same(rate, 1.0) for rate in rates)


def of_groups(
    program: Program,
    found: Mapping[str, Found],
    expected: Expectation,
    live: tuple[Live, Live],
    place: Place,
) -> Iterator[Finding]:
    """What explains many findings at once."""
    wrong = [n for n, s in expected.scales.items() if _rate_is_wrong(found[n], s.lr)]
    if is_plain(found) and wrong:
        yield _flattened(found, place) if _was_flattened(found) else _inactive(place)
    elif any(found[name].setting.shares_lr for name in wrong):
        yield _shared(place)
    yield from _bent(live, place)
    if program.optimizer is Optimizer.ADAM and any(f.setting.weight_decay for f in found.values()):
        yield _coupled(place)


def of_eps(found: Mapping[str, Found], expected: Expectation) -> Iterator[Finding]:
    """A note where eps is the same everywhere, as in most implementations of μP."""
    scales = {n: s.eps for n, s in expected.scales.items() if found[n].eps is not None}
    constant = all(same(found[n].eps or 1.0, 1.0) for n in scales)
    smallest = min(scales.values(), default=1.0)
    if constant and smallest < 1.0:
        eps = next(found[n].setting.eps for n in scales)
        yield _general(
            "MUF614",
            Severity.NOTE,
            Quantity.EPS,
            f"eps is the same at every width, and gradients shrink with it: up to x {smallest:.4g}",
            "this matters once gradients come near eps; scale it with them, group by group",
            None,
            (smallest, 1.0, eps * smallest, eps),
        )


def _was_flattened(found: Mapping[str, Found]) -> bool:
    """Whether the groups were made with rates that differ, and have one now."""
    given = {f.setting.given_lr for f in found.values() if f.lr is not None}
    return len(given) > 1 or any(f.setting.shares_lr for f in found.values())


def _rate_is_wrong(found: Found, wanted: float) -> bool:
    return found.lr is not None and not close(found.lr, wanted)


def _inactive(place: Place) -> Finding:
    return _general(
        "MUF616",
        Severity.ERROR,
        Quantity.GROUPS,
        "every group has the same learning rate at base and at target width: μP is not active",
        "check that the groups are made from the model's own shapes, and that the base shapes "
        "were set before the optimizer",
        place,
    )


def _flattened(found: Mapping[str, Found], place: Place) -> Finding:
    if any(f.setting.shares_lr for f in found.values()):
        return _shared(place)
    rates = sorted({f.setting.given_lr for f in found.values()}, reverse=True)
    shown = ", ".join(f"{rate:.4g}" for rate in rates[:4])
    return _general(
        "MUF617",
        Severity.ERROR,
        Quantity.GROUPS,
        f"the groups were made with learning rates {shown}, and all have one when training starts",
        "what a scheduler takes as an absolute rate (max_lr of OneCycleLR, base_lr of CyclicLR) "
        "needs a list with one entry for each group",
        place,
    )


def _shared(place: Place) -> Finding:
    return _general(
        "MUF617",
        Severity.ERROR,
        Quantity.GROUPS,
        "several groups have one and the same tensor as their learning rate: what scales one "
        "scales all",
        "give each group a tensor of its own: lr.clone() * scale",
        place,
    )


def _bent(live: tuple[Live, Live], place: Place) -> Iterator[Finding]:
    """A schedule along which the rates of base and target do not keep their ratio."""
    base, target = live
    groups = {(base.settings[n].group, target.settings[n].group): n for n in target.settings}
    for step, (low, high) in enumerate(zip(base.path, target.path, strict=False)):
        for (i, j), name in groups.items():
            small, large, first, start = low[i], high[j], base.path[0][i], target.path[0][j]
            if not (small and large and first and start):
                continue
            now, then = large / small, start / first
            if not close(now, then):
                yield _general(
                    "MUF618",
                    Severity.ERROR,
                    Quantity.LR,
                    f"after {step} steps of the schedule the learning rate of {name} is x "
                    f"{now:.4g} from base to target, and x {then:.4g} when it starts",
                    "scale the whole schedule, its floor too: a LambdaLR multiplies every group's "
                    "own rate",
                    place,
                    (then, now, small * then, large),
                )
                return


def _coupled(place: Place) -> Finding:
    return _general(
        "MUF613",
        Severity.WARNING,
        Quantity.WEIGHT_DECAY,
        "Adam adds the decay to the gradient before it normalises it: no scale of the decay is "
        "right at every width",
        "use AdamW",
        place,
    )


def _general(
    code: str,
    severity: Severity,
    quantity: Quantity,
    message: str,
    hint: str,
    place: Place | None,
    numbers: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> Finding:
    return Finding(
        code, severity, quantity, None, None, *numbers, 1.0, "activation", place, message, hint
    )
