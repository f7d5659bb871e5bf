"""Roles and fan-ins of the zoo against an oracle that knows nothing of how mufx finds them.

`oracle.py` finds them by changing entries of real weights and looking at what becomes different.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from mufx.api import convert_source
from mufx.manifest import ParameterEntry
from tests.zoo import oracle
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
class Open:
    """What the oracle cannot judge, by parameter, with how many blocks have it.

    `parts` lack their fan-out alone: the axis is joined of parts that grow unlike, of which the
    oracle sees the sum and the manifest names the part that grows most. `others` are seen as what
    they are not, for the reason beside them.
    """

    parts: Mapping[str, int] = field(default_factory=dict[str, int])
    others: Mapping[str, int] = field(default_factory=dict[str, int])


_LAMBDAS = ("q1", "k1", "q2", "k2")
_NORMED = "encoder.pos_conv_embed.conv.parametrizations.weight.original1"
OPEN: Mapping[str, Open] = {
    "falcon": Open({"transformer.h.*.self_attention.query_key_value.weight": 2}),
    "gpt_bigcode": Open(
        {"transformer.h.*.attn.c_attn.weight": 2, "transformer.h.*.attn.c_attn.bias": 2}
    ),
    "deepseek_v3": Open({"model.layers.*.self_attn.kv_a_proj_with_mqa.weight": 2}),
    "mamba": Open({"backbone.layers.*.mixer.x_proj.weight": 2}),
    "mamba2": Open(
        {
            "backbone.layers.*.mixer.in_proj.weight": 2,
            "backbone.layers.*.mixer.conv1d.weight": 2,
            "backbone.layers.*.mixer.conv1d.bias": 2,
        }
    ),
    # Two vectors are multiplied with each other and summed before an activation meets them.
    "diffllama": Open(others={f"model.layers.*.self_attn.lambda_{k}": 2 for k in _LAMBDAS}),
    # The table goes through a norm and a projection before it meets a query: it is data there.
    "deberta-v2": Open(others={"deberta.encoder.rel_embeddings.weight": 1}),
    # Under a norm over all channels every entry changes all results.
    "wav2vec2": Open(others={f"wav2vec2.{_NORMED}": 1}),
    "hubert": Open(others={f"hubert.{_NORMED}": 1}),
}
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
    return {name: decided(uses) for name, uses in judged(model, wide, args, kwargs).items()}


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


def counted(names: Iterable[str]) -> dict[str, int]:
    """How many blocks have a parameter."""
    return dict(Counter(re.sub(r"\b\d+\b", "*", name) for name in names))


@each
def test_every_parameter_is_what_its_entries_show(spec: Spec) -> None:
    seen, said = by_oracle(spec), by_mufx(spec)

    differ = unlike(seen, said)
    parts = [name for name in differ if seen[name][:2] == said[name][:2]]
    expected = OPEN.get(spec.name, Open())
    assert counted(set(differ) - set(parts)) == expected.others
    assert counted(parts) == expected.parts


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


def test_what_is_open_is_little() -> None:
    """Of more than two thousand parameters."""
    assert sum(sum(known.parts.values()) for known in OPEN.values()) == 16
    assert sum(sum(known.others.values()) for known in OPEN.values()) == 11


def test_the_oracle_imports_nothing_of_mufx() -> None:
    tree = ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))
    imported = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    imported += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]

    assert {name.split(".")[0] for name in imported} == {
        "__future__",
        "collections",
        "dataclasses",
        "torch",
        "typing",
    }
