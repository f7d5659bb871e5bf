"""The emitted file is the model: the same tensors, names, init and results, from torch alone."""

from __future__ import annotations

import ast
import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import sympy
import torch
from torch import Tensor, nn
from torch.utils._sympy.functions import FloatPow, FloorDiv, Mod, ToFloat, TruncToInt

import mufx
from mufx.api import Conversion, convert_source, import_emitted
from mufx.emit.leaves import leaf_expression
from mufx.emit.text import filled
from mufx.size_text import TIMES, size_text

Golden = Callable[[str, str], None]
Inputs = Callable[..., tuple[Tensor, ...]]
MODELS = import_emitted(Path(__file__).parent / "models" / "structures.py")
GPT = import_emitted(Path(__file__).parent.parent / "examples" / "gpt.py")


def vectors(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 8),)


def ids(batch: int, length: int = 9) -> tuple[Tensor, ...]:
    return (torch.randint(0, 50, (batch, length)),)


def series(batch: int, length: int = 6) -> tuple[Tensor, ...]:
    return (torch.randn(batch, length, 8),)


def images(batch: int, size: int = 8) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, size, size),)


def labelled(batch: int) -> tuple[Tensor, ...]:
    return torch.randn(batch, 8), torch.randint(0, 4, (batch,))


INPUTS: dict[str, Inputs] = {
    "Rates": vectors,
    "Skips": vectors,
    "StochasticDepth": vectors,
    "Places": vectors,
    "Containers": vectors,
    "Carried": ids,
    "Drops": vectors,
    "Ways": vectors,
    "Images": images,
    "State": ids,
    "Chains": vectors,
    "ViewsInPlace": vectors,
    "MadeInPlace": vectors,
    "Halved": images,
    "Operators": vectors,
    "Record": labelled,
    "Modes": vectors,
    "Sizes": series,
    "Stock": series,
    "Made": lambda batch: series(batch),
}
every_model = pytest.mark.parametrize("name", INPUTS)
KNOBS = {"width": 32}


@cache
def conversion(name: str) -> Conversion:
    """The conversion at base width, where the model stays itself."""
    build = getattr(MODELS, name)
    return mufx.convert(build, lambda b=2: INPUTS[name](b), KNOBS, KNOBS, vary=["width"])


@cache
def emitted(name: str) -> ModuleType:
    module = conversion(name).module()
    return sys.modules[type(module).__module__]


def pair(name: str, seed: int = 3) -> tuple[nn.Module, nn.Module]:
    """The original and the emitted model, after the same seed."""
    new: Callable[[], nn.Module] = getattr(emitted(name), name)
    torch.manual_seed(seed)
    original: nn.Module = getattr(MODELS, name)(**KNOBS)
    torch.manual_seed(seed)
    written = new()
    return original, written


def tensors(value: Any) -> list[Tensor]:
    """All tensors of a result, in order."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value):
        value = [getattr(value, f.name) for f in fields(value)]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [t for item in value for t in tensors(item)]


def results(model: Callable[..., object], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    torch.manual_seed(7)
    return tensors(model(*copy.deepcopy(inputs)))


def assert_equal(got: object, expected: object) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@every_model
def test_the_state_has_the_same_names_in_the_same_order(name: str) -> None:
    original, written = pair(name)

    assert list(written.state_dict()) == list(original.state_dict())
    learned = [(k, p.requires_grad) for k, p in original.named_parameters()]
    assert [(k, p.requires_grad) for k, p in written.named_parameters()] == learned
    original.load_state_dict(written.state_dict(), strict=True)
    written.load_state_dict(original.state_dict(), strict=True)


@every_model
def test_a_new_model_holds_what_the_original_would(name: str) -> None:
    original, written = pair(name)

    assert_equal(written.state_dict(), original.state_dict())
    assert_equal(dict(written.named_buffers()), dict(original.named_buffers()))


@every_model
def test_building_draws_as_much_as_the_original(name: str) -> None:
    new: Callable[[], nn.Module] = getattr(emitted(name), name)
    torch.manual_seed(3)
    getattr(MODELS, name)(**KNOBS)
    expected = torch.rand(4)

    torch.manual_seed(3)
    new()

    assert_equal(torch.rand(4), expected)


class Chosen(nn.ModuleDict):
    def __init__(self, width: int) -> None:
        super().__init__({"inner": nn.Linear(8, width), "read-out": nn.Linear(width, 4)})

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self["read-out"](torch.relu(self["inner"](x)))
        return out


class Listed(nn.ModuleList):
    def __init__(self, width: int) -> None:
        super().__init__([nn.Linear(8, width), *(nn.Linear(width, width) for _ in range(3))])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = torch.relu(layer(x))
        return x


ROOTS: dict[str, Callable[[int], nn.Module]] = {
    "a chain": lambda width: nn.Sequential(nn.Linear(8, width), nn.GELU(), nn.Linear(width, 4)),
    "a dict": Chosen,
    "a list": Listed,
    "a layer": lambda width: nn.GRU(8, width, batch_first=True),
}


@pytest.mark.parametrize("build", ROOTS.values(), ids=ROOTS)
def test_a_model_may_be_one_of_torch_s_own_modules(build: Callable[[int], nn.Module]) -> None:
    def model(width: int) -> nn.Module:
        return build(width)

    made = mufx.convert(model, series(2), KNOBS, KNOBS, vary=["width"]).module(seed=3)
    torch.manual_seed(3)
    original, inputs = build(32), series(3)

    assert_equal(made.state_dict(), original.state_dict())
    assert_equal(results(made, inputs), results(original, inputs))


def test_a_chain_is_written_as_one() -> None:
    text = mufx.convert(ROOTS["a chain"], series(2), KNOBS, KNOBS, vary=["width"]).text

    assert "class Sequential(nn.Sequential):\n" in text
    assert "            self.append(nn.Linear(8, 32))\n" in text
    assert "        x = self[0](input)\n        x = self[1](x)\n        return self[2](x)\n" in text


@every_model
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch", [2, 5])
def test_results_are_bitwise_the_original_s(name: str, training: bool, batch: int) -> None:
    original, written = (m.train(training) for m in pair(name))
    inputs = INPUTS[name](batch)

    expected = results(original, inputs)
    got = results(written, inputs)

    assert_equal(got, expected)
    assert_equal(written.state_dict(), original.state_dict())  # running statistics


@pytest.mark.parametrize("name", [n for n, i in INPUTS.items() if i in (ids, series, images)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [5, 12])
def test_results_at_other_lengths_are_the_original_s(name: str, training: bool, size: int) -> None:
    original, written = (m.train(training) for m in pair(name))
    inputs = INPUTS[name](3, size)

    expected = results(original, inputs)
    got = results(written, inputs)

    assert_equal(got, expected)


@every_model
def test_memory_can_come_later(name: str) -> None:
    _, expected = pair(name)

    with torch.device("meta"):
        model: Any = getattr(emitted(name), name)()
    assert all(p.is_meta for p in model.parameters())
    model.to_empty(device="cpu")
    torch.manual_seed(3)
    model.init_weights()

    assert_equal(model.state_dict(), expected.state_dict())


@every_model
def test_copies_compute_the_same(name: str) -> None:
    _, written = pair(name)
    inputs = INPUTS[name](2)
    expected = results(written.eval(), inputs)

    assert_equal(results(copy.deepcopy(written), inputs), expected)
    assert_equal(results(pickle.loads(pickle.dumps(written)), inputs), expected)


@every_model
@pytest.mark.parametrize("training", [True, False])
def test_it_compiles_as_one_graph(name: str, training: bool) -> None:
    torch.compiler.reset()
    _, written = pair(name)
    written.train(training)
    inputs = INPUTS[name](2)
    compiled = torch.compile(copy.deepcopy(written), fullgraph=True, backend="eager")

    assert_equal(results(compiled, inputs), results(written, inputs))


def test_it_runs_where_mufx_is_not(tmp_path: Path) -> None:
    conversion("State").write(tmp_path)
    program = """
import sys
sys.modules["mufx"] = None
import torch, model_mup, optim_mup
model = model_mup.State()
torch.optim.AdamW(optim_mup.param_groups(model, lr=0.1))
print(tuple(model(torch.zeros(4, 7, dtype=torch.long)).shape))
"""

    command = [sys.executable, "-W", "error", "-c", program]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (run.stdout, run.stderr) == ("(4, 7, 50)\n", "")


# -- how it reads -----------------------------------------------------------------------------


def test_written_files_take_the_place_of_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "tables_mup.pt").write_text("old")

    conversion("Rates").write(tmp_path)

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"model_mup.py", "optim_mup.py", "manifest.json"}


def gpt(depth: int) -> str:
    """The emitted text of the example at the given depth."""

    def build(**knobs: int) -> nn.Module:
        model: nn.Module = GPT.GPT(GPT.GPTConfig(n_layer=depth, **knobs))
        return model

    return mufx.convert(build, GPT.example_inputs, GPT.base, GPT.target).text


def test_depth_adds_no_lines() -> None:
    shallow, deep = gpt(4), gpt(48)

    assert len(deep.splitlines()) == len(shallow.splitlines())


def test_what_the_last_call_drops_changes_no_line() -> None:
    text = conversion("Drops").text

    forward = text[text.rindex("    def forward") :]
    assert re.findall(r"^class (\w+)", text, re.MULTILINE) == ["Cell", "Halves", "Drops"]
    assert (
        forward.count("        for cell in self.cells:\n            x, state = cell(x, state)") == 1
    )
    assert forward.count("        x, state = self.halves(x, state)\n") == 3


def test_a_gpt_is_short() -> None:
    assert len(gpt(4).splitlines()) <= 120


@pytest.mark.parametrize("name", ["mlp", "gpt", "llama", "resnet", "encoder"])
def test_examples_read_as_written_by_hand(name: str, golden: Golden) -> None:
    source = mufx.load(str(Path(__file__).parent.parent / "examples" / f"{name}.py"))

    text = convert_source(source).text

    header = text.index("from __future__")
    golden(f"emit/{name}.txt", text[header:])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("State", "Inputs: ids int64[B, T].\n"),
        ("Sizes", "Inputs: x float32[B, T, 8]; sizes that are numbers are fixed.\n"),
        ("State", "        x[:, 0] = 0\n"),
        ("Modes", "class Squash(nn.Module):\n    def forward(self, x: Tensor) -> tuple[Tensor, "),
        (
            "Modes",
            "        return F.dropout(torch.tanh(x), p=0.1, training=self.training), x * 2\n",
        ),
        ("Modes", "            both_0, both_1 = self.squash(self.inner(x))\n"),
        ("MadeInPlace", "        x = self.second(h).sub_(1.0)\n"),
        ("Made", "        return torch.arange(6, device=x.device)\n"),
        ("Made", "torch.arange(6, device=self.inner[0].weight.device)"),
    ],
)
def test_a_line_reads_as_its_source(name: str, expected: str) -> None:
    assert expected in conversion(name).text


T = sympy.Symbol("T", positive=True, integer=True)
B = sympy.Symbol("B", positive=True, integer=True)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (T - 1, "x * (T - 1)"),
        (-T, "x * -T"),
        (4 - T, "x * (4 - T)"),
        (-T - 1, "x * (-T - 1)"),
        (T - B, "x * (T - B)"),
        (T - B * FloorDiv(T, 2), "x * (T - B * (T // 2))"),
        (B * T, "x * (B * T)"),
        (T**2, "x * (T * T)"),
        (FloorDiv(T + 1, 2), "x * ((T + 1) // 2)"),
        (Mod(T, 3), "x * (T % 3)"),
        (FloatPow(ToFloat(T), sympy.Float(0.5)), "x * T**0.5"),
        (sympy.Mul(0.1, cast("sympy.Expr", ToFloat(T))), "x * (0.1 * T)"),
        (FloatPow(ToFloat(B * T), sympy.Float(0.5)), "x * (B * T) ** 0.5"),
        (TruncToInt(FloatPow(ToFloat(B * T), sympy.Float(0.5))), "x * int((B * T) ** 0.5)"),
        (sympy.Eq(TruncToInt(ToFloat(B)), 2), "x * (int(B) == 2)"),
        (sympy.Max(T, 4), "x * max(4, T)"),
        (T > 3, "x * (T > 3)"),
    ],
)
def test_a_size_stands_as_one_operand(size: sympy.Basic, expected: str) -> None:
    text, precedence = size_text(size)

    assert f"x * {text if precedence > TIMES else f'({text})'}" == expected


@every_model
def test_a_file_is_the_same_every_time(name: str) -> None:
    build = getattr(MODELS, name)

    again = mufx.convert(build, lambda b=2: INPUTS[name](b), KNOBS, KNOBS, vary=["width"])

    assert again.text == conversion(name).text


@every_model
def test_a_file_has_no_line_too_long_and_no_unused_import(name: str) -> None:
    tree = ast.parse(conversion(name).text)

    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    imported = {alias.asname or alias.name for n in imports for alias in n.names}
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert imported - used == {"annotations"}
    assert max(len(line) for line in conversion(name).text.splitlines()) <= 100


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.GRU(8, 4, 2, batch_first=True), "nn.GRU(8, 4, num_layers=2, batch_first=True)"),
        (nn.RNN(8, 4, bias=False), "nn.RNN(8, 4, bias=False)"),
        (nn.LSTM(8, 4, proj_size=2), "nn.LSTM(8, 4, proj_size=2)"),
        (nn.RNN(8, 4, nonlinearity="relu"), None),
    ],
)
def test_a_recurrent_module_of_torch_is_constructed_again(
    module: nn.Module, expected: str | None
) -> None:
    text = leaf_expression(module)

    assert (text and filled(text)) == expected
