"""What a check and a sweep make lies where they train: only the user's own tensors are moved."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mufx.check.checking import checked
from mufx.check.request import Variant
from mufx.check.storage import Runs
from mufx.factory import place_of
from mufx.source import from_callable, load
from mufx.sweep.batches import Data, batches
from mufx.sweep.models import Models
from mufx.sweep.preparing import Request
from mufx.sweep.settings import Parametrization, Point
from mufx.sweep.sweeping import Worker
from tests.checks import CASES

HERE = torch.device("cpu")


def text(rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random bytes on the CPU, wherever tensors are made by default."""
    while True:
        drawn = torch.randint(0, 256, (rows, 17), device=HERE)
        yield drawn[:, :-1], drawn[:, 1:].contiguous()


@contextmanager
def elsewhere() -> Generator[None]:
    """New tensors lie on another device, unless one is asked for, as they do beside a GPU."""
    before = torch.get_default_device()
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(before)


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_a_check_makes_its_tensors_on_its_device(name: str) -> None:
    case = replace(CASES[name], data=text)
    made = case.experiment(*Variant, steps=4, seeds=1)

    with elsewhere():
        found = checked(made, partial(Runs, None))

    assert found.has_first_step
    assert found.judged > 0


def test_a_sweep_makes_its_tensors_on_its_device(tmp_path: Path) -> None:
    data = tmp_path / "data.py"
    data.write_text(
        "import torch\n"
        "def data(batch):\n"
        "    while True:\n"
        "        x = torch.randint(0, 256, (batch, 17), device='cpu')\n"
        "        yield x[:, :-1], x[:, 1:].contiguous()\n",
        encoding="utf-8",
    )
    spec = str(Path(__file__).parent.parent / "examples" / "gpt.py")
    request = Request(
        spec=spec, over=("lr=1e-3",), data=f"{data}:data", steps=2, batch=2, seeds=1,
        widths="64,256", study=str(tmp_path / "study.db"),
    )  # fmt: skip
    worker = Worker.of(request, load(spec))

    with elsewhere():
        results = worker.work(worker.plan, lambda *_: None)

    assert [r.point.width for r in results] == [64, 64, 256, 256]
    assert all(r.loss < 10 for r in results)


class Table(nn.Module):
    """A layer and a table from numpy, which no device context places."""

    table: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 3)
        self.register_buffer("table", torch.from_numpy(numpy.sin(numpy.arange(4.0))).float())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x + self.table))
        return out


def test_a_model_lies_where_it_is_trained_with_all_that_it_holds() -> None:
    source = from_callable(Table, (torch.ones(2, 4),), {"width": 8}, {"width": 16})
    models = Models(source, {16: {"width": 16}}, "sgd", "table3", torch.device("meta"))

    made, _ = models.made(Point(Parametrization.SP, 16, 0), {"lr": 0.1})

    assert {t.device.type for t in (*made.parameters(), *made.buffers())} == {"meta"}


def test_batches_are_moved_with_all_that_they_hold() -> None:
    def nested(rows: int) -> Iterator[object]:
        while True:
            yield torch.ones(rows), {"masks": [torch.ones(rows), None]}, "causal"

    data = Data(nested, place_of(nested), "nested")
    ((args, kwargs),) = batches(data, 2, 1, torch.device("meta"), {})

    assert [t.device.type for t in tree_leaves(args) if isinstance(t, Tensor)] == ["meta", "meta"]
    assert (args[2], kwargs) == ("causal", {})
