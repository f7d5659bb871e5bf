"""An axis of which only a part grows is named, never scaled in silence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import mufx
from mufx.program import Role, RowBlocks
from mufx.source import from_callable


class Conditioned(nn.Module):
    """A hidden layer that sees its input beside 16 features of fixed size."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.second = nn.Linear(width + condition, width)
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        logits: Tensor = self.last(self.second(torch.cat([hidden, condition], -1)).relu())
        return logits


def codes(condition: int) -> list[str]:
    source = from_callable(
        lambda width: Conditioned(width, condition),
        (torch.randn(2, 20), torch.randn(2, condition)),
        {"width": 64},
        {"width": 256},
    )
    return [d.code for d in mufx.run(mufx.trace(source)).diagnostics]


def test_a_part_of_fixed_size_beside_one_that_grows_is_a_warning() -> None:
    assert codes(condition=16) == ["MUF206"]


def test_what_rounding_adds_is_not() -> None:
    assert codes(condition=1) == []


class Timed(nn.Module):
    """The time is one number beside the features, and as many rows as they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.second = nn.Linear(width, width)
        self.time = nn.Linear(1, width)
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        time = self.time(torch.full_like(hidden[..., :1], 0.5))
        logits: Tensor = self.last((self.second(hidden) + time).relu())
        return logits


def test_a_part_of_which_only_the_shape_is_taken_reads_nothing_out() -> None:
    source = from_callable(Timed, (torch.randn(2, 20),), {"width": 64}, {"width": 256})
    assert mufx.run(mufx.trace(source)).diagnostics == ()


class Dense(nn.Module):
    """Every layer sees what all layers before it made, as in a DenseNet."""

    def __init__(self, width: int, first: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, first)
        self.layers = nn.ModuleList(nn.Linear(first + i * width, width) for i in range(3))
        self.last = nn.Linear(first + 3 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x).relu()], -1)
        logits: Tensor = self.last(x)
        return logits


@pytest.mark.parametrize(("first", "warned"), [((8, 8), 3), ((8, 16), 0), ((8, 32), 0)])
def test_a_part_of_fixed_size_stays_one_in_every_sum_of_parts(
    first: tuple[int, int], warned: int
) -> None:
    base, target = ({"width": w, "first": f} for w, f in zip((4, 16), first, strict=True))
    source = from_callable(Dense, (torch.randn(2, 20),), base, target)

    found = mufx.run(mufx.trace(source)).diagnostics

    assert [d.code for d in found] == ["MUF206"] * warned


class Sliced(nn.Module):
    """Three of a layer's outputs are the model's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.second = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x).relu())[..., :3]
        return out


class Fused(nn.Module):
    """As Mamba's x_proj: the rank of the step size grows, the state's two maps do not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rank = width // 4
        self.first = nn.Linear(20, width)
        self.x_proj = nn.Linear(width, self.rank + 6, bias=False)
        self.dt_proj = nn.Linear(self.rank, width)
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        step, b, c = self.x_proj(self.first(x).relu()).split((self.rank, 3, 3), -1)
        hidden = self.dt_proj(step) * (b * c).sum(-1, keepdim=True)
        logits: Tensor = self.last(hidden.relu())
        return logits


def fused(optimizer: str = "adamw", form: str = "table3") -> mufx.Program:
    source = from_callable(Fused, (torch.randn(2, 20),), {"width": 64}, {"width": 256})
    return mufx.run(mufx.trace(source, optimizer=optimizer, form=form))


def sliced(optimizer: str = "adamw") -> mufx.Program:
    source = from_callable(Sliced, (torch.randn(2, 20),), {"width": 64}, {"width": 256})
    return mufx.run(mufx.trace(source, optimizer=optimizer))


def test_rows_that_read_out_are_found() -> None:
    program = fused()
    assert program.row_blocks == {"x_proj.weight": RowBlocks(0, ((64, 70),))}
    label = program.labels["x_proj.weight"]
    assert (label.role, label.m_in, label.m_out) == ("hidden", 4.0, 4.0)
    assert program.diagnostics == ()


def test_a_slice_reads_out() -> None:
    assert sliced().row_blocks == {"second.weight": RowBlocks(0, ((0, 3),))}


@pytest.mark.parametrize("form", ["table3", "table8", "table9"])
def test_they_start_as_a_readout_and_the_others_as_a_hidden_weight(form: str) -> None:
    """PyTorch's own init is 1/sqrt(fan-in): 1/2 as large at 4 times the width."""
    torch.manual_seed(0)
    program = fused(form=form)
    assert program.init_corrections["x_proj.weight"] == pytest.approx(1)
    assert program.row_corrections == {"x_proj.weight": pytest.approx(0.5)}


def test_what_is_written() -> None:
    conversion = mufx.convert(
        Fused, (torch.randn(2, 20),), base={"width": 64}, target={"width": 256}
    )
    assert "self.x_proj.weight[64:70].mul_(0.5)  # these rows read out: -> 0.01804" in (
        conversion.text
    )
    torch.manual_seed(0)
    drawn = Fused(256).x_proj.weight
    emitted = conversion.module(seed=0).get_parameter("x_proj.weight")
    assert torch.equal(emitted[:64], drawn[:64])
    assert torch.equal(emitted[64:], drawn[64:] * 0.5)
    entry = conversion.manifest.parameters["x_proj.weight"]
    assert [(r.start, r.stop, str(r.role)) for r in entry.rows] == [(64, 70, "output")]
    assert [r.init_correction for r in entry.rows] == pytest.approx([0.5])
    torch.manual_seed(0)
    own = Fused(256)
    mufx.apply(own, conversion.manifest)
    assert torch.equal(own.x_proj.weight, emitted)


def test_one_learning_rate_of_sgd_does_not_serve_both() -> None:
    """SGD's is m_out/m_in: 1 for the hidden rows, 1/4 for those that read out."""
    (found,) = sliced("sgd").diagnostics
    assert (found.code, "3 of 64 features at base" in found.message) == ("MUF206", True)
    assert found.place is not None
    assert found.place.file == __file__
    assert {d.code for d in fused("sgd").diagnostics} == {"MUF206"}


class Turned(nn.Module):
    """Queries of two parts, of which one is turned; they are read together or each by itself."""

    def __init__(self, width: int, turned: int, rest: int, together: bool) -> None:
        super().__init__()
        self.together = together
        self.first = nn.Linear(20, width)
        self.sizes = [turned, rest]
        self.query = nn.Linear(width, turned + rest)
        self.angle = nn.Linear(20, turned)
        self.wholes = nn.Linear(turned + rest, 10)
        self.parts = nn.ModuleList(nn.Linear(size, 10) for size in self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        turned, rest = self.query(self.first(x).relu()).split(self.sizes, -1)
        angle = self.angle(x)
        turned = turned * angle.cos() + turned.flip(-1) * angle.sin()
        if self.together:
            out: Tensor = self.wholes(torch.cat([turned, rest], -1))
            return out
        first, second = self.parts
        apart: Tensor = first(turned) + second(rest)
        return apart


@pytest.mark.parametrize(
    ("together", "m_out"),
    [
        pytest.param(True, 160 / 48, id="read as one vector: it is as much longer"),
        pytest.param(False, 4.0, id="read apart: the part that grows most"),
    ],
)
def test_the_gradient_of_parts_follows_the_vector_they_are_read_in(
    together: bool, m_out: float
) -> None:
    source = from_callable(
        lambda width, turned, rest: Turned(width, turned, rest, together),
        (torch.randn(2, 20),),
        {"width": 64, "turned": 16, "rest": 32},
        {"width": 256, "turned": 32, "rest": 128},
    )
    label = mufx.run(mufx.trace(source)).labels["query.weight"]

    assert (label.role, label.m_in) == (Role.HIDDEN, 4.0)
    assert label.m_out == pytest.approx(m_out)


class Projected(nn.Module):
    """A recurrent layer whose states are projected to a fixed size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.recurrent = nn.LSTM(width, width, proj_size=8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.recurrent(self.first(x))[0]
        return out


def test_a_result_that_is_no_part_of_the_operand_is_none_of_fixed_size() -> None:
    source = from_callable(Projected, (torch.randn(2, 5, 20),), {"width": 32}, {"width": 128})
    assert "MUF206" not in {d.code for d in mufx.run(mufx.trace(source)).diagnostics}


class Joined(nn.Module):
    """Two layers of unlike growth, joined before a norm and a weight read them."""

    def __init__(self, width: int, long: int, short: int) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.long = nn.Linear(width, long)
        self.short = nn.Linear(width, short)
        self.norm = nn.LayerNorm(long + short)
        self.second = nn.Linear(long + short, width)
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        joined = torch.cat([self.long(hidden).relu(), self.short(hidden).relu()], -1)
        logits: Tensor = self.last(self.second(self.norm(joined)).relu())
        return logits


JOINED = ({"width": 32, "long": 32, "short": 32}, {"width": 512, "long": 1024, "short": 128})


def gradients(model: nn.Module) -> dict[str, float]:
    """The root mean square of every gradient of one loss."""
    x = torch.randn(64, 20, generator=torch.Generator().manual_seed(0))
    model(x).sin().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    return {name: float(g.square().mean().sqrt()) for name, g in found.items() if g is not None}


def test_what_is_joined_has_the_gradient_of_the_vector_that_is_read() -> None:
    """18 times as long at target: 1024 + 128 of 32 + 32."""
    base, target = JOINED
    conversion = mufx.convert(Joined, (torch.randn(2, 20),), base=base, target=target)
    torch.manual_seed(0)
    small = [gradients(Joined(**base)) for _ in range(6)]
    large = [gradients(conversion.module(seed=seed)) for seed in range(6)]

    for name in ("long.weight", "short.weight", "norm.weight"):
        falls = sum(s[name] for s in small) / sum(s[name] for s in large)
        assert falls == pytest.approx(18, rel=0.3)
        assert conversion.manifest.parameters[name].eps_scale == pytest.approx(1 / 18)


class Cached(Joined):
    """What comes first is joined with a cache that holds nothing yet, as transformers has it."""

    def forward(self, x: Tensor) -> Tensor:
        first = torch.cat([torch.tensor([], device=x.device), self.first(x)], dim=-2)
        hidden = first.relu()
        joined = torch.cat([self.long(hidden).relu(), self.short(hidden).relu()], -1)
        logits: Tensor = self.last(self.second(self.norm(joined)).relu())
        return logits


def test_an_empty_cache_has_no_size_to_join() -> None:
    source = from_callable(Cached, (torch.randn(2, 5, 20),), *JOINED)
    program = mufx.run(mufx.trace(source))
    assert [d for d in program.diagnostics if d.code == "MUF206"] == []
    assert program.labels["long.weight"].m_out == pytest.approx(18)


def test_one_learning_rate_of_sgd_serves_what_is_joined() -> None:
    source = from_callable(Joined, (torch.randn(2, 20),), *JOINED)
    assert mufx.run(mufx.trace(source, optimizer="sgd")).diagnostics == ()


class Behind(Sliced):
    """What maps every feature by itself stands between."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x).relu()).tanh()[..., :3]
        return out


class Beside(Sliced):
    """What is taken is the sum of what two weights make."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        out: Tensor = (hidden + self.second(hidden))[..., :3]
        return out


class Twice(Sliced):
    """The rows make a part of fixed size, and the whole is used as well."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.first(x).relu())
        out: Tensor = hidden[..., :3] + hidden.mean(-1, keepdim=True)
        return out


def program_of(model: type[nn.Module]) -> mufx.Program:
    source = from_callable(model, (torch.randn(2, 20),), {"width": 64}, {"width": 256})
    return mufx.run(mufx.trace(source))


def test_rows_are_followed_through_what_maps_each_by_itself() -> None:
    assert program_of(Behind).row_blocks == {"second.weight": RowBlocks(0, ((0, 3),))}


@pytest.mark.parametrize("model", [Beside, Twice])
def test_rows_that_cannot_be_told_apart_are_a_warning(model: type[nn.Module]) -> None:
    program = program_of(model)

    assert [d.code for d in program.diagnostics] == ["MUF206"]
    assert program.row_blocks == {}


# -- what an audit says of them -----------------------------------------------------------------


class Transposed(Fused):
    """The fused weight stands the other way round, as in GPT-2: its rows are columns."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.columns = nn.Parameter(torch.randn(width, self.rank + 6) * width**-0.5)
        del self.x_proj

    def forward(self, x: Tensor) -> Tensor:
        fused = self.first(x).relu() @ self.columns
        step, b, c = fused.split((self.rank, 3, 3), -1)
        logits: Tensor = self.last((self.dt_proj(step) * (b * c).sum(-1, keepdim=True)).relu())
        return logits


@pytest.mark.parametrize(
    ("model", "name", "axis"), [(Fused, "x_proj.weight", 0), (Transposed, "columns", 1)]
)
@pytest.mark.parametrize("smaller", [True, False])
def test_an_audit_judges_the_rows_that_read_out(
    model: type[nn.Module], name: str, axis: int, smaller: bool
) -> None:
    """PyTorch's own init is right for the hidden rows, the others should be half as large."""

    def build(width: int) -> nn.Module:
        made = model(width)
        if smaller and width == 256:
            with torch.no_grad():
                made.get_parameter(name).narrow(axis, 64, 6).mul_(0.5)
        return made

    report = mufx.audit(build, (torch.randn(2, 20),), {"width": 64}, {"width": 256})

    found = [f for f in report.findings if f.parameter == name and f.quantity.value == "init"]
    # Where memory holds the rows apart they are judged to 1 %, where not by the size of the whole.
    assert len(found) == (0 if smaller or axis else 1)
    for finding in found:
        assert "the rows 64:70" in finding.message
        assert (finding.expected, finding.found) == pytest.approx((0.25, 0.5))
