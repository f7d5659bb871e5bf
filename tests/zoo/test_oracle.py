"""Roles and fan-ins of the zoo against an oracle that knows nothing of how mufx finds them.

`oracle.py` finds them by changing entries of real weights and looking at what becomes different.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from mufx.api import convert_source
from mufx.manifest import ParameterEntry
from tests.zoo import joined, oracle
from tests.zoo.joined import Knobs, Part, elsewhere, parts
from tests.zoo.oracle import Judged, decided, judged
from tests.zoo.specs import SPECS, Spec

pytestmark = pytest.mark.filterwarnings("ignore::Warning:transformers.*", "ignore::FutureWarning")

FAST = {"gpt2", "llama", "mixtral", "resnet", "t5"}
"""Part of `make test`."""

each = pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=spec.name, marks=[] if spec.name in FAST else [pytest.mark.zoo])
        for spec in SPECS
        if spec.refused is None
    ],
)


@dataclass(frozen=True)
class Reading:
    """How the oracle reads parameters that meet others before an activation does.

    Attributes:
        of: A pattern of those parameters.
        activations: A pattern of what stands for an activation then.
        faint: What part of the largest change is none.
    """

    of: str
    activations: str = "(?!)"
    faint: float = 0.0


READINGS: Mapping[str, Sequence[Reading]] = {
    # The sum of two vectors' products: to each the other is what it weighs.
    "diffllama": [
        Reading(r".*lambda_q\d", r".*lambda_k\d"),
        Reading(r".*lambda_k\d", r".*lambda_q\d"),
    ],
    # Under a norm over all channels every entry changes all results, by little.
    "wav2vec2": [Reading(r".*pos_conv_embed.*original1", faint=0.1)],
    "hubert": [Reading(r".*pos_conv_embed.*original1", faint=0.1)],
}
_TABLE = "deberta.encoder.rel_embeddings.weight"
UNLIKE = {"deberta-v2": [_TABLE]}
"""A table that is projected as tokens are: of a product either may be the weight."""
JOINED = {
    # 16 -> 96 channels that skip a level and 32 -> 128 from below it, read as 48 -> 224.
    "monai_unet": (
        r"model\.1\.submodule\.(0|1\.submodule)\..*(conv|residual)\.(weight|bias)",
        14 / 3,
    ),
}
"""What is joined before it is read, and how many times longer that is: the oracle sees a weight's
axis, and not who reads what it makes. That the gradient follows the reader is measured in
`tests/test_mixed_axes.py`."""
RECURRENT = {"rnn", "lstm", "gru"}
"""After their first step everything depends on everything."""


def by_oracle(spec: Spec) -> dict[str, Judged]:
    source = spec.source()
    torch.manual_seed(0)
    model = spec.build().eval()
    with torch.device("meta"):
        wide = spec.build(at_target=True)
    args, kwargs = source.inputs(2, source.base)
    if spec.name in RECURRENT:
        args = tuple(x[:, :1] for x in args if isinstance(x, torch.Tensor))
    largest = {axis: max(p.growth for p in found) for axis, found in joined_axes(spec).items()}
    found = judged(model, wide, args, kwargs, largest)
    for reading in READINGS.get(spec.name, ()):
        given = [name for name in found if re.fullmatch(reading.activations, name)]
        again = judged(model, wide, args, kwargs, largest, given, reading.faint)
        found |= {name: uses for name, uses in again.items() if re.fullmatch(reading.of, name)}
    read = {name: decided(uses) for name, uses in found.items()}
    pattern, grown = JOINED.get(spec.name, ("(?!)", 1.0))
    return {
        name: own._replace(m_out=grown) if re.fullmatch(pattern, name) else own
        for name, own in read.items()
    }


def joined_axes(spec: Spec) -> dict[tuple[str, int], frozenset[Part]]:
    """The axes of parameters whose parts grow unlike."""
    built = [(knobs, shapes(spec, knobs)) for knobs in elsewhere(spec.base, spec.target)]
    (_, at_base), *_ = built
    found = {
        (name, axis): parts(
            [(knobs, shape[name][axis]) for knobs, shape in built if name in shape],
            spec.base,
            spec.target,
        )
        for name, at in at_base.items()
        for axis in range(len(at))
    }
    return {axis: joined for axis, joined in found.items() if len(joined) > 1}


def shapes(spec: Spec, grown: Knobs) -> Mapping[str, torch.Size]:
    """Of all parameters; of none where these sizes do not fit."""
    try:
        with torch.device("meta"):
            model = spec.source().build(**{**spec.fixed, **grown})
    except (ValueError, RuntimeError, StrictDataclassError):
        return {}
    return {name: p.shape for name, p in model.named_parameters()}


def by_mufx(spec: Spec) -> dict[str, Judged]:
    entries = convert_source(spec.source()).manifest.parameters
    return {name: of_entry(entry) for name, entry in entries.items()}


def of_entry(entry: ParameterEntry) -> Judged:
    return Judged(str(entry.role), entry.m_in, entry.m_out)


def unlike(one: Mapping[str, Judged], other: Mapping[str, Judged]) -> list[str]:
    assert one.keys() == other.keys()
    return [
        name
        for name, found in one.items()
        if found.role != other[name].role or found[1:] != pytest.approx(other[name][1:])
    ]


@each
def test_every_parameter_is_what_its_entries_show(spec: Spec) -> None:
    assert unlike(by_oracle(spec), by_mufx(spec)) == UNLIKE.get(spec.name, [])


def test_the_oracle_sees_two_axes_that_were_exchanged() -> None:
    spec = next(spec for spec in SPECS if spec.name == "gpt2")
    said = by_mufx(spec)
    name = "transformer.h.1.mlp.c_fc.weight"
    role, m_in, m_out = said[name]
    broken = {**said, name: Judged(role, m_out, m_in)}

    assert (m_in, m_out) == (4, 6)
    assert unlike(by_oracle(spec), broken) == [name]


def test_the_number_of_experts_is_an_axis_that_is_kept() -> None:
    """Where each token still has two: they are hidden, and as many times rarer is a gradient."""
    few = next(spec for spec in SPECS if spec.name == "mixtral")
    fixed = {name: value for name, value in few.fixed.items() if name != "num_local_experts"}
    spec = replace(
        few,
        fixed=fixed,
        base={**few.base, "num_local_experts": 4},
        target={**few.target, "num_local_experts": 8},
    )
    said = by_mufx(spec)

    assert said["model.layers.0.mlp.experts.gate_up_proj"] == Judged("hidden", 4, 2 * 6)
    assert said["model.layers.0.mlp.experts.down_proj"] == Judged("hidden", 6, 2 * 4)
    assert said["model.layers.0.mlp.gate.weight"] == Judged("hidden", 4, 2)
    assert unlike(by_oracle(spec), said) == []


def test_a_table_is_projected_by_the_weights_that_project_tokens() -> None:
    """So it stands for activations, of which a projection contracts the features."""
    spec = next(spec for spec in SPECS if spec.name == "deberta-v2")
    source = spec.source()
    with torch.device("meta"):
        wide = spec.build(at_target=True)
    args, kwargs = source.inputs(2, source.base)

    found = judged(spec.build().eval(), wide, args, kwargs, activations=[_TABLE])

    for layer in (0, 1):
        for name in ("query_proj", "key_proj"):
            weight = f"deberta.encoder.layer.{layer}.attention.self.{name}.weight"
            assert found[weight] == {Judged("hidden", 4, 4)}
    assert by_mufx(spec)[_TABLE] == Judged("input", 1, 4)


def test_the_rows_that_stay_are_those_that_no_knob_moves() -> None:
    spec = next(spec for spec in SPECS if spec.name == "mamba")
    name = "backbone.layers.0.mixer.x_proj.weight"

    assert joined_axes(spec)[name, 0] == {Part(8, 1.0), Part(16, 4.0)}
    (rows,) = convert_source(spec.source()).manifest.parameters[name].rows
    assert (rows.start, rows.stop, str(rows.role)) == (16, 24, "output")


@pytest.mark.parametrize("module", [oracle, joined])
def test_the_oracle_imports_nothing_of_mufx(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imported = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    imported += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]

    assert {name.split(".")[0] for name in imported} <= {*sys.stdlib_module_names, "numpy", "torch"}
