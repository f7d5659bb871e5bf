"""The body of `init_weights`: the constructor's own init, replayed on the live tensors."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mufx.construction import Construction
from mufx.emit.init_loops import fold
from mufx.emit.init_resets import RESET
from mufx.emit.init_statements import init_statements, reference, tree_order
from mufx.emit.tables import LOADING, loads_tables
from mufx.emit.text import hole

_OVERWRITTEN = "# Draws that later ones overwrite are kept: they advance the random stream."


@dataclass(frozen=True, slots=True)
class InitScale:
    """A factor on what the constructor draws, and why: "std 0.02 -> 0.01".

    `rows` are those of axis `axis` that it is for; all where there are none.
    """

    name: str
    factor: float
    comment: str
    axis: int = 0
    rows: tuple[tuple[int, int], ...] = ()


def init_body(
    construction: Construction,
    init_scales: Sequence[InitScale],
    leaves: Collection[str] = (),
) -> list[str]:
    """The lines of `init_weights(self, generator=None)` of the root module, without indentation.

    They write to `self`'s parameters and buffers in place and pass `generator` to every draw. On
    the CPU, after the same seed and without `init_scales`, the result is bit for bit what the
    constructor gives; on any device it is the same distribution. The lines need `torch` and
    `nn`, and have to run under `torch.no_grad()`.

    `leaves` are the paths of the modules of torch that the emitted file constructs as they are:
    their default fills can be left to `reset_parameters()`.

    Raises:
        MufxError: `MUF4xx`: an operation that has no public name in torch.
    """
    statements = init_statements(construction, leaves)
    lines = [_OVERWRITTEN] if statements.reset or statements.overwritten else []
    lines += RESET if statements.reset else ()
    whole = "\n".join((*statements.ordered, *statements.free))
    if loads_tables(whole) or "device=device" in whole:
        lines.append(_device(construction))
    lines += [LOADING] if loads_tables(whole) else []
    lines += fold(statements.ordered, construction.model)
    lines += fold(statements.free, construction.model, free=True)
    order = tree_order(construction)
    scaled = sorted(init_scales, key=lambda scale: order[scale.name])
    if scaled:
        lines.append("# μP: the constructor's init, brought to its size at base width")
        texts = [text for scale in scaled for text in _scaling(scale)]
        lines += fold(texts, construction.model, free=True)
    return lines


def _device(construction: Construction) -> str:
    """Where what is drawn and thrown away is drawn."""
    model = construction.model
    for tensors in ("parameters", "buffers"):
        if any(True for _ in getattr(model, tensors)()):
            return f"device = next(self.{tensors}()).device"
    return "device = torch.get_default_device()"


def _scaling(scale: InitScale) -> list[str]:
    tensor, before = reference(scale.name), ":, " * scale.axis
    blocks = [f"[{before}{start}:{stop}]" for start, stop in scale.rows] or [""]
    factor = hole(scale.factor, "scale")
    return [f"{tensor}{block}.mul_({factor})  # {scale.comment}" for block in blocks]
