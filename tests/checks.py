"""What the examples learn in the dynamic checks, and how fast.

Learning rates and batches were chosen after looking at results, so that what is measured is the
limit of large width and not the way to it:

- The encoder's first attention moves by 0.125 (1 - 2.9/sqrt(width)) at lr 1e-3, a fit to four
  widths: a slope of 0.15 that falls as width grows. Its embeddings, of size 0.02, have then moved
  by 0.75 of their size.
- Tokens that are looked at and were hardly learned from move only by what others taught, which is
  nearly orthogonal: an incoherent part that falls as 1/sqrt(width) and hides the coherent one. Of
  the Llama, with 256 kinds of tokens the median slope is -0.22, with 64 it is 0.03.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mufx.api import Conversion, convert_source
from mufx.check.checking import checked
from mufx.check.experiment import Experiment, planned
from mufx.check.request import Request, Variant
from mufx.check.result import Checked
from mufx.check.storage import Runs
from mufx.factory import place_of
from mufx.source import Source, load
from mufx.sweep.batches import Data

EXAMPLES = Path(__file__).parent.parent / "examples"
SYMBOLS = 64

Convert = Callable[..., Conversion]


# -- what is learned ----------------------------------------------------------------------------


def text(length: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """Bytes of which each follows from the last one, but for some noise, and the next ones."""

    def batches(rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            tokens = [torch.randint(SYMBOLS, (rows,))]
            for _ in range(length):
                tokens.append((5 * tokens[-1] + torch.randint(4, (rows,))) % SYMBOLS)
            stacked = torch.stack(tokens, dim=1)
            yield stacked[:, :-1].contiguous(), stacked[:, 1:].contiguous()

    return batches


def clouds(*shape: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """Points of 10 clouds in a space of some shape, and which cloud."""
    centres = torch.randn(10, *shape, generator=torch.Generator().manual_seed(99))

    def batches(rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            labels = torch.randint(10, (rows,))
            yield centres[labels] + 0.5 * torch.randn(rows, *shape), labels

    return batches


# -- the examples -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An example, how it is widened, what it learns from, and how fast."""

    name: str
    base: Mapping[str, int]
    growing: tuple[str, ...]
    data: Callable[[int], object]
    lr: float
    batch: int

    def source(self) -> Source:
        """Eight times as wide at target."""
        wide = {name: value * 8 for name, value in self.base.items() if name in self.growing}
        return load(str(EXAMPLES / f"{self.name}.py"), self.base, {**self.base, **wide})

    def check(
        self, *variants: Variant, convert: Convert = convert_source, **settings: Any
    ) -> Checked:
        """15 steps of AdamW on this case's batches at four widths, with three seeds."""
        made = self.experiment(*variants, convert=convert, **settings)
        return checked(made, partial(Runs, None))

    def experiment(
        self, *variants: Variant, convert: Convert = convert_source, **settings: Any
    ) -> Experiment:
        """What such a check trains."""
        request = Request(lr=self.lr, batch=self.batch, variants=variants, **settings)
        data = Data(self.data, place_of(self.data), self.name)
        return planned(self.source(), request, data, convert=convert)


CASES = {
    case.name: case
    for case in (
        Case("mlp", {"width": 64}, ("width",), clouds(32), 1e-2, 64),
        Case("gpt", {"n_embd": 64, "n_head": 2, "n_layer": 2}, ("n_embd",), text(16), 1e-3, 2),
        Case(
            "llama",
            {"dim": 64, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 160, "n_layers": 2},
            ("dim", "hidden_dim"),
            text(16),
            3e-3,
            2,
        ),
        Case("resnet", {"width": 16}, ("width",), clouds(3, 8, 8), 1e-2, 16),
        Case(
            "encoder",
            {"d_model": 64, "nhead": 4, "dim_feedforward": 128},
            ("d_model", "dim_feedforward"),
            text(16),
            5e-4,
            2,
        ),
    )
}
