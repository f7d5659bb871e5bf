"""Specifications, discovery, knobs and example inputs: what is found, and what is refused."""

from __future__ import annotations

import inspect
import pickle
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from mufx.diagnostics import Diagnostic, MufxError, Place
from mufx.inputs import parse_input
from mufx.knobs import parse_knobs
from mufx.source import ExampleInputs, Source, from_callable, load

MODELS = Path(__file__).parent / "models"
GPT = str(MODELS / "gpt.py")
MLP = str(MODELS / "mlp.py")
IDX = [parse_input("idx:int64[batch,16]<97")]
SMALL = {"n_embd": 64, "n_head": 2}
LARGE = {"n_embd": 256, "n_head": 8}


def refused(call: Callable[[], object]) -> tuple[Diagnostic, ...]:
    """The diagnostics of a call that has to be refused."""
    with pytest.raises(MufxError) as caught:
        call()
    return caught.value.diagnostics


def codes(diagnostics: tuple[Diagnostic, ...]) -> list[str]:
    return [d.code for d in diagnostics]


def written(folder: Path, text: str, name: str = "model.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


HEADER = "import torch\nfrom torch import nn\n"
NET = """
class Net(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.a = nn.Linear(4, width)
        self.b = nn.Linear(width, 2)
    def forward(self, x):
        return self.b(self.a(x))
"""
INPUTS = """
base = {"width": 8}
target = {"width": 32}
def example_inputs(batch=2):
    return torch.zeros(batch, 4)
"""


# -- what is found ------------------------------------------------------------------------------


def test_a_file_that_says_everything() -> None:
    source = load(MLP)
    assert (source.name, source.spec) == ("MLP", MLP)
    assert (source.base, source.target) == ({"width": 64}, {"width": 256})
    args, kwargs = source.inputs(3, source.base)
    assert [a.shape for a in args if isinstance(a, torch.Tensor)] == [(3, 10)]
    assert kwargs == {}
    assert source.build(**source.target).get_parameter("into.weight").shape == (256, 10)


def test_the_root_is_the_module_that_no_other_module_constructs_even_through_a_function() -> None:
    source = load(GPT, SMALL, LARGE, IDX)
    assert source.name == "GPT"
    model = source.build(**source.target)
    assert model.get_parameter("blocks.0.attn.qkv.weight").shape == (768, 256)


def test_described_inputs_go_by_the_names_of_forwards_parameters() -> None:
    args, kwargs = load(GPT, SMALL, LARGE, IDX).inputs(5, SMALL)
    idx = kwargs["idx"]
    assert args == ()
    assert isinstance(idx, torch.Tensor)
    assert (idx.dtype, idx.shape) == (torch.int64, (5, 16))
    assert 0 <= int(idx.min()) <= int(idx.max()) < 97


def test_a_named_class_is_preferred_to_the_factory_of_the_file() -> None:
    source = load(f"{MLP}:MLP", {"width": 64, "depth": 3}, {"width": 128, "depth": 3})
    assert source.build(**source.base).get_parameter("hidden.1.weight").shape == (64, 64)


def test_sizes_given_replace_those_of_the_file() -> None:
    assert load(MLP, target={"width": 512}).target == {"width": 512}


def test_an_annotated_configuration_may_be_optional(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        HEADER
        + """
class Config:
    def __init__(self, width: int = 8):
        self.width = width
class Net(nn.Module):
    def __init__(self, setup: "Config | None" = None):
        super().__init__()
        self.a = nn.Linear(4, (setup or Config()).width)
    def forward(self, x):
        return self.a(x)
"""
        + INPUTS,
    )
    model = load(path).build(width=16)
    assert model.get_parameter("a.weight").shape == (16, 4)


def test_a_default_configuration_gives_the_defaults(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        HEADER
        + """
from dataclasses import dataclass
@dataclass(frozen=True)
class Config:
    width: int
    out: int = 2
class Net(nn.Module):
    def __init__(self, config=Config(8, out=5)):
        super().__init__()
        self.a = nn.Linear(4, config.width)
        self.b = nn.Linear(config.width, config.out)
    def forward(self, x):
        return self.b(self.a(x))
"""
        + INPUTS,
    )
    assert load(path).build(width=16).get_parameter("b.weight").shape == (5, 16)


def test_a_configuration_of_class_attributes(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        HEADER
        + """
class Config:
    width = 8
class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.a = nn.Linear(4, config.width)
    def forward(self, x):
        return self.a(x)
"""
        + INPUTS,
    )
    source = load(path)
    assert source.build(width=16).get_parameter("a.weight").shape == (16, 4)
    assert source.build().get_parameter("a.weight").shape == (8, 4)


KEYS = (
    NET.replace("width: int = 8", "cfg").replace("width", 'cfg["width"]')
    + """
class Part(nn.Linear):
    def __init__(self, cfg):
        super().__init__(cfg["width"], cfg["depth"])
"""
)
VALUES = '{"width": 8, "depth": 2, "rate": 0.1}'


@pytest.mark.parametrize("annotation", ["", ": dict", ": dict[str, int]"])
def test_the_keys_of_a_dictionary_are_knobs(tmp_path: Path, annotation: str) -> None:
    text = HEADER + f"CONFIG = {VALUES}" + KEYS.replace("self, cfg", f"self, cfg{annotation}")

    source = load(written(tmp_path, text + INPUTS) + ":Part")

    assert source.build(width=16, depth=3).get_parameter("weight").shape == (3, 16)
    assert source.build(width=16).get_parameter("weight").shape == (2, 16)


def test_the_keys_of_a_dictionary_that_is_not_in_the_file_are_required(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + KEYS)

    assert "--base width=64 --target width=256" in refused(lambda: load(f"{path}:Net"))[0].hint
    assert load(f"{path}:Net", {"width": 8}, {"width": 32}, [parse_input("x:float32[2,4]")])


def test_several_dictionaries_that_fit_are_told(tmp_path: Path) -> None:
    text = HEADER + f"SMALL = {VALUES}\nLARGE = {VALUES}" + KEYS

    (problem,) = refused(lambda: load(written(tmp_path, text) + ":Part"))

    assert problem.code == "MUF005"
    assert problem.message.startswith("SMALL, LARGE of the file have the keys that Part reads of")
    assert problem.place is not None


def test_a_transformers_class_is_built_from_its_configuration() -> None:
    sizes = {"n_layer": 1, "n_head": 2, "vocab_size": 50}
    tokens = [parse_input("input_ids:int64[2,8]<50")]
    source = load(
        "transformers:GPT2LMHeadModel", {**sizes, "n_embd": 32}, {**sizes, "n_embd": 64}, tokens
    )
    assert source.name == "GPT2LMHeadModel"
    assert source.build(**source.base).get_parameter("transformer.wte.weight").shape == (50, 32)


def test_a_dotted_module_is_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo_of_ours").mkdir()
    written(tmp_path, HEADER + NET + INPUTS, "zoo_of_ours/nets.py")
    monkeypatch.chdir(tmp_path)
    assert load("zoo_of_ours.nets:Net").target == {"width": 32}


def test_a_factory_function_with_open_keywords(tmp_path: Path) -> None:
    text = HEADER + NET + INPUTS + "\ndef make(**sizes):\n    return Net(**sizes)\n"
    assert load(written(tmp_path, text) + ":make").name == "Net"


def test_equal_sizes_with_a_knob_to_vary() -> None:
    source = load(MLP, {"width": 64}, {"width": 64}, vary=["width"])
    assert source.vary == ("width",)


def test_a_knob_that_changes_no_parameter_but_the_forward_pass_has_an_effect() -> None:
    assert load(GPT, {"n_embd": 64, "n_head": 2}, {"n_embd": 768, "n_head": 12}, IDX).name == "GPT"


def test_the_digest_is_of_the_file(tmp_path: Path) -> None:
    one = load(written(tmp_path, HEADER + NET + INPUTS))
    other = load(written(tmp_path, HEADER + NET + INPUTS + "\n"))
    assert len(one.digest) == 64
    assert one.digest != other.digest


# -- importing ----------------------------------------------------------------------------------


def test_classes_of_the_file_can_be_pickled_and_inspected() -> None:
    cls = type(load(MLP).build())
    assert pickle.loads(pickle.dumps(cls)) is cls
    assert inspect.getsource(cls).startswith("class MLP")


def test_importing_and_building_leave_no_traces(tmp_path: Path) -> None:
    noisy = "import random\nrandom.random(); torch.rand(1)\nimport side_of_ours\n"
    written(tmp_path, "size = 2\n", "side_of_ours.py")
    path = written(tmp_path, HEADER + noisy + NET + INPUTS)
    state, python_state = torch.get_rng_state(), random.getstate()
    folders = list(sys.path)
    load(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python_state
    assert sys.path == folders
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.py", "side_of_ours.py"]


def test_neighbours_of_the_same_name_do_not_mix(tmp_path: Path) -> None:
    sizes: list[int] = []
    for out in (3, 5):
        folder = tmp_path / str(out)
        folder.mkdir()
        written(folder, f"OUT = {out}\n", "neighbour_of_ours.py")
        text = HEADER + NET.replace("nn.Linear(width, 2)", "nn.Linear(width, OUT)") + INPUTS
        path = written(folder, "from neighbour_of_ours import OUT\n" + text)
        sizes.append(load(path).build().get_parameter("b.weight").shape[0])
    assert sizes == [3, 5]


def test_a_neighbour_may_be_imported_when_the_model_is_built(tmp_path: Path) -> None:
    written(tmp_path, "OUT = 7\n", "late_neighbour_of_ours.py")
    late = "        from late_neighbour_of_ours import OUT\n        super()"
    path = written(tmp_path, HEADER + NET.replace("        super()", late) + INPUTS)
    assert load(path).name == "Net"


# -- what is refused ----------------------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    (problem,) = refused(lambda: load(str(tmp_path / "none.py")))
    assert problem.code == "MUF001"
    assert "none.py" in problem.message


@pytest.mark.parametrize("spec", ["no_package_of_ours.nets:Net", "transformers", "gpt"])
def test_no_such_module(spec: str) -> None:
    assert codes(refused(lambda: load(spec))) == ["MUF001"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n\nraise ValueError('boom')\n", 3, "ValueError: boom"),
        ("x = 1\nx.y\n", 2, "AttributeError: 'int' object has no attribute 'y'"),
        ("def f(:\n", 1, "SyntaxError"),
        ("import sys\n\n\nsys.exit(3)\n", 4, "SystemExit: 3"),
        ("import no_package_of_ours\n", 1, "No module named 'no_package_of_ours'"),
    ],
)
def test_a_file_that_raises_is_shown_at_its_own_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    path = written(tmp_path, text)
    before = set(sys.modules)
    (problem,) = refused(lambda: load(path))
    assert problem.code == "MUF002"
    assert str(problem.place) == f"{path}:{line}"
    assert message in problem.message
    assert not {name for name in set(sys.modules) - before if name.startswith("_mufx")}


def test_no_module_in_the_file(tmp_path: Path) -> None:
    assert codes(refused(lambda: load(written(tmp_path, "x = 1\n")))) == ["MUF003"]


def test_several_candidates_are_listed_with_their_commands(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + NET + NET.replace("Net", "Other"))
    (problem,) = refused(lambda: load(path))
    assert problem.code == "MUF004"
    assert "Net (line 4), Other (line 12)" in problem.message
    assert f"mufx convert {path}:Other" in problem.hint


def test_an_unannotated_configuration_that_two_classes_fit(tmp_path: Path) -> None:
    two = "".join(f"class {name}:\n    width = 8\n" for name in ("Small", "Large"))
    path = written(
        tmp_path,
        HEADER
        + two
        + NET.replace("width: int = 8", "c")
        .replace("width)", "c.width)")
        .replace("(width", "(c.width")
        + INPUTS,
    )
    (problem,) = refused(lambda: load(path))
    assert problem.code == "MUF005"
    assert "Small, Large" in problem.message


@pytest.mark.parametrize("name", ["nets", "example_inputs_of", "size", "Config"])
def test_an_attribute_that_is_no_factory(tmp_path: Path, name: str) -> None:
    text = HEADER + NET + "size = 3\nclass Config:\n    width = 8\nnets = Net()\n"
    assert codes(refused(lambda: load(written(tmp_path, text) + f":{name}"))) == ["MUF003"]


def test_missing_sizes_are_answered_with_the_knobs_and_a_command_that_works() -> None:
    (problem,) = refused(lambda: load(GPT))
    assert problem.code == "MUF006"
    assert "n_embd=256 (29 parameters)" in problem.hint
    assert "dropout" not in problem.hint
    inputs = "--input 'idx:int64[2,16]<97'"
    assert f"mufx convert {GPT} --base n_embd=64 --target n_embd=256 {inputs}" in problem.hint
    assert load(GPT, {"n_embd": 64}, {"n_embd": 256}, IDX).name == "GPT"


FORWARD = "    def forward(self, x):\n        return self.b(self.a(x))\n"
OPTIONAL = """    def forward(self, first, second, target=None):
        return self.b(self.a(first["x"] + second["x"]))
"""


@pytest.mark.parametrize("sizes", [(), ({"width": 8}, {"width": 32})])
def test_inputs_that_cannot_be_found_are_named_in_the_command(
    tmp_path: Path, sizes: tuple[dict[str, int], ...]
) -> None:
    path = written(tmp_path, HEADER + NET.replace(FORWARD, OPTIONAL))

    base, target = sizes or (None, None)
    (problem,) = refused(lambda: load(path, base, target))

    assert "--input 'first:DTYPE[SIZES]' --input 'second:DTYPE[SIZES]'" in problem.hint
    assert "target" not in problem.hint.partition("--input")[2].partition("\n")[0]


def test_an_input_that_may_be_left_out_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + NET.replace("(self, x)", "(self, x, target=None)"))

    (problem,) = refused(lambda: load(path, {"width": 8}, {"width": 32}))

    assert "--input 'x:float32[2,4]'\n" in problem.hint
    assert problem.hint.endswith("without an input of its own None is recorded for target")


def test_the_command_keeps_what_was_given() -> None:
    (problem,) = refused(lambda: load(GPT, {"n_embd": 32, "n_head": 2}, inputs=IDX))
    assert "no target for GPT" in problem.message
    sizes = "--base n_embd=32,n_head=2 --target n_embd=128,n_head=2"
    assert f"{sizes} --input 'idx:int64[batch,16]<97'" in problem.hint


def test_what_was_given_is_checked_though_more_is_missing() -> None:
    assert codes(refused(lambda: load(GPT, {"n_emd": 32}))) == ["MUF007", "MUF006"]


def test_knobs_without_a_default_are_tried_too(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + NET.replace("width: int = 8", "out, width"))
    (problem,) = refused(lambda: load(path))
    assert "--base out=64,width=64 --target out=64,width=256" in problem.hint


def test_a_required_knob_that_is_not_set(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + NET.replace("width: int = 8", "out, width") + INPUTS)
    assert codes(refused(lambda: load(path))) == ["MUF006", "MUF006"]


def test_problems_with_knobs_are_collected() -> None:
    wrong = {"n_emd": 64, "bias": 1, "n_head": 2.0, "block_size": 8}
    problems = refused(lambda: load(GPT, wrong, {"bias": True, "n_head": 2}, IDX))
    assert codes(problems) == ["MUF007", "MUF008", "MUF008", "MUF009"]
    assert "did you mean n_embd?" in problems[0].hint
    assert "bias=1 is of type int" in problems[1].message
    assert "block_size is set at base and not at target" in problems[3].message
    assert all(p.place is not None and p.place.cls == "GPT" for p in problems)


@pytest.mark.parametrize("knob", ["bias: bool = None", "bias=None", "bias=True"])
def test_none_is_a_value_of_a_knob_that_does_not_exclude_it(tmp_path: Path, knob: str) -> None:
    net = NET.replace("width: int = 8", f"width: int = 8, {knob}").replace("width)", "width, bias)")
    path = written(tmp_path, HEADER + net + INPUTS)

    source = load(path, {"width": 8, "bias": None}, {"width": 32, "bias": None})

    assert "a.bias" not in source.build(**source.base).state_dict()


def test_a_default_of_0_takes_a_number_between(tmp_path: Path) -> None:
    net = NET.replace("width: int = 8", "width: int = 8, dropout=0")
    path = written(tmp_path, HEADER + net + INPUTS)

    source = load(path, {"width": 8, "dropout": 0.1}, {"width": 32, "dropout": 0.1})

    assert source.base["dropout"] == 0.1


def test_none_is_refused_where_the_annotation_and_the_default_exclude_it(tmp_path: Path) -> None:
    net = NET.replace("width: int = 8", "width: int = 8, bias: bool = True")
    path = written(tmp_path, HEADER + net + INPUTS)

    sizes = {"width": 8, "bias": None}, {"width": 32, "bias": None}
    assert codes(refused(lambda: load(path, *sizes))) == ["MUF008", "MUF008"]


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_tuple_and_a_list_serve_where_either_is_annotated(
    kind: Callable[[list[int]], object],
) -> None:
    def listed(widths: list[int]) -> nn.Module:
        return nn.Sequential(nn.Linear(4, widths[0]), nn.Linear(widths[0], widths[1]))

    def paired(widths: tuple[int, int]) -> nn.Module:
        return listed(list(widths))

    base, target = {"widths": kind([8, 4])}, {"widths": kind([32, 4])}
    for build in (listed, paired):
        assert from_callable(build, TENSOR, base, target).base == base


def test_a_size_that_the_model_does_not_accept_is_shown_where_it_says_so() -> None:
    (problem,) = refused(lambda: load(GPT, SMALL, {"n_embd": 255, "n_head": 8}, IDX))
    assert problem.code == "MUF011"
    assert "n_embd=255,n_head=8" in problem.message
    assert "assert config.n_embd % config.n_head == 0" in problem.message
    assert problem.place is not None
    assert (Path(problem.place.file).name, problem.place.line) == ("gpt.py", 24)


@pytest.mark.parametrize(
    ("layer", "named", "instead"),
    [
        ("nn.LazyLinear(width)", "layer.weight", "Linear"),
        ("nn.LazyBatchNorm1d(affine=False)", "layer.running_mean", "BatchNorm1d"),
    ],
)
def test_a_layer_without_a_size_is_named(
    tmp_path: Path, layer: str, named: str, instead: str
) -> None:
    text = HEADER + NET.replace("nn.Linear(4, width)", layer)
    file = written(tmp_path, text.replace("self.a", "self.layer"))

    (found,) = refused(lambda: load(file, {"width": 8}, {"width": 32}))

    assert (found.code, found.place) == ("MUF018", Place(file, 4, "layer", f"Lazy{instead}"))
    assert found.message == f"{named} has no size before the first input"
    assert found.hint == f"write {instead}, with the number of features that come in"


def test_a_knob_without_effect_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + NET.replace("= 8", "= 8, spare: int = 1") + INPUTS)
    sizes = ({"width": 8, "spare": 1}, {"width": 16, "spare": 2})
    (problem,) = refused(lambda: load(path, *sizes))
    assert problem.code == "MUF010"
    assert problem.message.startswith("spare changes nothing")


def test_knobs_that_together_widen_nothing_are_named() -> None:
    problems = refused(lambda: load(GPT, {"dropout": 0.1}, {"dropout": 0.2}, IDX))
    assert codes(problems) == ["MUF010"]


def test_missing_inputs_are_answered_with_forwards_signature_and_a_command_that_works() -> None:
    (problem,) = refused(lambda: load(GPT, SMALL, LARGE))
    assert problem.code == "MUF012"
    assert "forward(self, idx, targets=None)" in problem.message
    assert "--input 'idx:int64[2,16]<97'" in problem.hint


def test_inputs_that_do_not_fit_forward() -> None:
    assert codes(refused(lambda: load(GPT, SMALL, LARGE, ()))) == ["MUF013"]
    ids = [parse_input("ids:int64[2,16]<97")]
    (problem,) = refused(lambda: load(GPT, SMALL, LARGE, ids))
    assert "did you mean idx?" in problem.hint


@pytest.mark.parametrize(
    "definition",
    ["example_inputs = 3", "def example_inputs(batch=2): return 3", "def example_inputs(): 1 / 0"],
)
def test_example_inputs_that_cannot_be_used(tmp_path: Path, definition: str) -> None:
    path = written(tmp_path, HEADER + NET + INPUTS + definition + "\n")
    (problem,) = refused(lambda: load(path))
    assert problem.code == "MUF013"
    assert problem.place is not None
    assert problem.place.file == path


def test_equal_sizes_say_nothing_about_widths() -> None:
    (problem,) = refused(lambda: load(MLP, {"width": 64}, {"width": 64}))
    assert problem.code == "MUF014"
    assert "--vary width" in problem.hint


def test_a_knob_to_vary_has_to_be_set() -> None:
    problems = refused(lambda: load(MLP, {"width": 64}, {"width": 64}, vary=["depth"]))
    assert codes(problems) == ["MUF014"]


def test_a_constructor_that_needs_data_is_left_to_the_recording(tmp_path: Path) -> None:
    rates = "        self.rates = [r.item() for r in torch.linspace(0, 1, 3)]\n"
    anchor = "        self.b = nn"
    path = written(tmp_path, HEADER + NET.replace(anchor, rates + anchor) + INPUTS)
    assert load(path).name == "Net"


# -- the command line's texts -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("width=64,n_head=2", {"width": 64, "n_head": 2}),
        ("act=gelu, p=0.5,on=True,none=None", {"act": "gelu", "p": 0.5, "on": True, "none": None}),
        ("dims=[1,2],shape=(3,4),name='a,b'", {"dims": [1, 2], "shape": (3, 4), "name": "a,b"}),
    ],
)
def test_knobs_are_python_literals_or_words(text: str, expected: dict[str, object]) -> None:
    assert parse_knobs(text) == expected


@pytest.mark.parametrize("text", ["", "width", "width=", "=64", "a=1,a=2", "1a=2"])
def test_malformed_knobs(text: str) -> None:
    assert codes(refused(lambda: parse_knobs(text))) == ["MUF008"]


@pytest.mark.parametrize(
    "text",
    [
        "idx",
        "idx:int64",
        "idx:int64[2,16]",
        "x:float[2]",
        "x:float32[2,-1]",
        "x:float32[2]<3",
        "x:int64[2]<0",
        "a b:int64[2]<3",
    ],
)
def test_malformed_inputs(text: str) -> None:
    assert codes(refused(lambda: parse_input(text))) == ["MUF013"]


def test_inputs_of_every_kind() -> None:
    mask, tokens = (
        parse_input("m:bool[2]").tensor(9, {}),
        parse_input("int32[batch]<1").tensor(3, {}),
    )
    assert torch.equal(mask, torch.tensor([True, True]))
    assert torch.equal(tokens, torch.zeros(3, dtype=torch.int32))
    assert parse_input("x:bfloat16[]").tensor(3, {}).shape == ()


# -- from Python --------------------------------------------------------------------------------


class Net(nn.Module):
    """A two-layer net."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.a = nn.Linear(4, width)
        self.b = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.b(self.a(x))
        return output


@dataclass
class NetConfig:
    width: int = 8


def from_config(config: NetConfig) -> nn.Module:
    return Net(config.width)


TENSOR = torch.zeros(2, 4)


def called(build: Callable[..., nn.Module], inputs: ExampleInputs = TENSOR) -> Source:
    return from_callable(build, inputs, {"width": 8}, {"width": 32})


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = h + self.down(self.up(h).relu())
        return output


def hidden(batch: int = 2, width: int = 3) -> torch.Tensor:
    return torch.zeros(batch, 5, width)


def hidden_by_keyword(*, width: int) -> dict[str, torch.Tensor]:
    return {"h": torch.zeros(2, 5, width)}


@pytest.mark.parametrize("inputs", [hidden, hidden_by_keyword])
def test_inputs_are_given_the_knobs_that_they_name(inputs: ExampleInputs) -> None:
    source = called(Block, inputs)

    for knobs in (source.base, source.target):
        args, kwargs = source.inputs(2, knobs)
        (h,) = (*args, *kwargs.values())
        assert isinstance(h, torch.Tensor)
        assert h.shape == (2, 5, knobs["width"])


def test_a_described_size_may_be_a_knob() -> None:
    source = load(
        f"{__file__}:Block", {"width": 8}, {"width": 32}, [parse_input("h:float32[batch,5,width]")]
    )

    (h,) = source.inputs(3, source.target)[1].values()

    assert isinstance(h, torch.Tensor)
    assert h.shape == (3, 5, 32)


def test_a_described_size_that_is_no_knob() -> None:
    (problem,) = refused(
        lambda: load(
            f"{__file__}:Block",
            {"width": 8},
            {"width": 32},
            [parse_input("h:float32[batch,5,wdth]")],
        )
    )

    assert problem.code == "MUF013"
    assert problem.message == (
        "--input 'h:float32[batch,5,wdth]' has a size wdth, which is none of width, batch"
    )


def from_open_keywords(**knobs: int) -> nn.Module:
    return Net(**knobs)


@pytest.mark.parametrize("build", [Net, from_config, from_open_keywords])
def test_any_callable_is_a_factory(build: Callable[..., nn.Module]) -> None:
    source = called(build)
    assert (source.name, source.spec) == ("Net", "")
    assert source.build(width=16).get_parameter("a.weight").shape == (16, 4)


@pytest.mark.parametrize(
    "inputs",
    [
        TENSOR,
        (TENSOR,),
        {"x": TENSOR},
        lambda batch=2: torch.zeros(batch, 4),
        lambda: {"x": torch.zeros(2, 4)},
    ],
)
def test_inputs_are_args_kwargs_or_a_tensor(inputs: ExampleInputs) -> None:
    args, kwargs = called(Net, inputs).inputs(2, {})
    (x,) = (*args, *kwargs.values())
    assert isinstance(x, torch.Tensor)
    assert x.shape == (2, 4)


def test_the_same_refusals_as_on_the_command_line() -> None:
    problems = refused(lambda: from_callable(Net, (torch.zeros(2, 4),), {"widht": 8}, {}))
    assert codes(problems) == ["MUF007"]


def test_an_instance_is_no_factory() -> None:
    assert codes(refused(lambda: called(Net()))) == ["MUF003"]


def test_postponed_annotations_of_a_configuration_are_read() -> None:
    (problem,) = refused(lambda: from_callable(from_config, TENSOR, {"width": 8}, {"width": 32.0}))
    assert (problem.code, "but from_config takes int" in problem.message) == ("MUF008", True)
