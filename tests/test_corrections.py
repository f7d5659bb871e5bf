"""Small models and the exact corrections, labels and refusals that they give."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.utils.parametrizations import weight_norm

import mufx
from mufx.diagnostics import MufxError
from mufx.magnitudes import Magnitude, Value
from mufx.program import Program
from mufx.rules import RULES, Flow, RuleTable
from mufx.source import from_callable

BASE, TARGET = {"d": 16}, {"d": 64}
Init = Callable[[Any, int], object]


class Toy(nn.Module):
    """Tokens, an embedding that grows, and a body that is given."""

    def __init__(self, d: int, body: Callable[[Any, Tensor], object], init: Init | None) -> None:
        super().__init__()
        self.d = d
        self.emb = nn.Embedding(11, d)
        self.lin = nn.Linear(d, d, bias=False)
        self.head = nn.Linear(d, 3, bias=False)
        self.body = body
        if init is not None:
            init(self, d)

    def forward(self, tokens: Tensor) -> object:
        return self.body(self, self.emb(tokens))


def tokens(batch: int = 2) -> Tensor:
    return torch.zeros(batch, 5, dtype=torch.long)


def converted(
    body: Callable[[Any, Tensor], object],
    init: Init | None = None,
    *,
    base: Mapping[str, int] = BASE,
    target: Mapping[str, int] = TARGET,
    rules: RuleTable = RULES,
    **fixed: int,
) -> Program:
    def build(d: int, **knobs: int) -> nn.Module:
        def initialise(m: Any, d: int) -> None:
            for name, value in knobs.items():
                setattr(m, name, value)
            if init is not None:
                init(m, d)

        return Toy(d, body, initialise)

    source = from_callable(build, tokens, {**base, **fixed}, {**target, **fixed})
    return mufx.run(mufx.trace(source, rules=rules))


def changes(program: Program) -> list[str]:
    return [f"{c.before} -> {c.after}" for c in program.changes]


def codes(program: Program) -> set[str]:
    return {d.code for d in program.diagnostics} - {"MUF205"}


def role(program: Program, name: str) -> tuple[str, float, float]:
    label = program.labels[name]
    return str(label.role), label.m_in, label.m_out


def refused(body: Callable[[Any, Tensor], object], text: str, init: Init | None = None) -> str:
    """The message of the one error, which stands at the line that holds `text`."""
    with pytest.raises(MufxError) as caught:
        converted(body, init)
    lines, first = inspect.getsourcelines(body)
    (line,) = (first + i for i, source in enumerate(lines) if text in source)
    found = caught.value.diagnostics
    assert {(d.place.file, d.place.line) for d in found if d.place} == {(__file__, line)}
    assert all(d.hint for d in found)
    return "\n".join(f"{d.code}: {d.message}" for d in found)


# -- attention ----------------------------------------------------------------------------------

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def attention(attend: Attend) -> Callable[[Any, Tensor], object]:
    def body(m: Any, x: Tensor) -> object:
        b, n, d = x.shape
        q, k, v = (
            part.view(b, n, m.heads, d // m.heads).transpose(1, 2)
            for part in m.qkv(F.layer_norm(x, (d,))).chunk(3, -1)
        )
        return m.head(attend(q, k, v).transpose(1, 2).reshape(b, n, d))

    return body


def qkv(m: Any, d: int) -> None:
    m.qkv = nn.Linear(d, 3 * d, bias=False)


def baddbmm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, n, e = q.shape
    logits = torch.baddbmm(
        torch.zeros(b * h, n, n),
        q.reshape(b * h, n, e),
        k.reshape(b * h, n, e).transpose(1, 2),
        beta=0.0,
        alpha=e**-0.5,
    )
    return logits.view(b, h, n, n).softmax(-1) @ v


ATTENTION: dict[str, tuple[Attend, list[str]]] = {
    "default scale": (F.scaled_dot_product_attention, ["1/sqrt(32) -> sqrt(8)/32"]),
    "explicit scale": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5),
        ["1/sqrt(32) -> sqrt(8)/32"],
    ),
    "a scale of its own": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.25),
        ["0.25 -> 0.0625"],
    ),
    "scale 1 and a scaled q": (
        lambda q, k, v: F.scaled_dot_product_attention(q * q.shape[-1] ** -0.5, k, v, scale=1.0),
        ["1 -> 0.5"],
    ),
    "by hand, after the product": (
        lambda q, k, v: (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v,
        ["sqrt(32) -> 32/sqrt(8)"],
    ),
    "by hand, before the product": (
        lambda q, k, v: ((q / math.sqrt(q.shape[-1])) @ k.mT).softmax(-1) @ v,
        ["sqrt(32) -> 32/sqrt(8)"],
    ),
    "by hand, a number that does not grow": (
        lambda q, k, v: ((q * 0.5) @ k.mT).softmax(-1) @ v,
        ["0.5 -> 0.125"],
    ),
    "by hand, no number": (lambda q, k, v: (q @ k.mT).softmax(-1) @ v, ["1 -> 0.25"]),
    "baddbmm's alpha": (baddbmm, ["1/sqrt(32) -> sqrt(8)/32"]),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_corrected_once(name: str) -> None:
    attend, expected = ATTENTION[name]
    program = converted(attention(attend), qkv, heads=2)
    assert changes(program) == expected
    assert role(program, "qkv.weight") == ("hidden", 4, 4)


def test_more_heads_need_nothing() -> None:
    program = converted(
        attention(F.scaled_dot_product_attention),
        qkv,
        base={"d": 16, "heads": 2},
        target={"d": 64, "heads": 8},
    )
    assert changes(program) == []


def test_head_width_counts_not_width() -> None:
    program = converted(
        attention(F.scaled_dot_product_attention),
        qkv,
        base={"d": 16, "heads": 2},
        target={"d": 64, "heads": 4},
    )
    (factor,) = program.corrections[True].values()
    assert factor == pytest.approx(0.7071, abs=1e-4)


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_attention_is_spelled_out_where_its_heads_grow(need_weights: bool) -> None:
    def body(m: Any, x: Tensor) -> object:
        return m.head(m.mha(x, x, x, need_weights=need_weights)[0])

    def init(m: Any, d: int) -> None:
        m.mha = nn.MultiheadAttention(d, 2, batch_first=True)

    program = converted(body, init)
    assert changes(program) == ["1/sqrt(32) -> sqrt(8)/32"]
    assert role(program, "mha.in_proj_weight") == ("hidden", 4, 4)


def test_an_encoder_is_corrected_in_every_layer() -> None:
    def init(m: Any, d: int) -> None:
        layer = nn.TransformerEncoderLayer(d, 2, 4 * d, batch_first=True)
        m.encoder = nn.TransformerEncoder(layer, 2)

    program = converted(lambda m, x: m.head(m.encoder(x)), init)
    assert changes(program) == ["1/sqrt(32) -> sqrt(8)/32"] * 2


# -- literals, norms and buffers ----------------------------------------------------------------

Body = Callable[[Any, Tensor], object]

NEUTRAL: dict[str, Body] = {
    "normalize": lambda m, x: m.head(F.normalize(x, dim=-1) * math.sqrt(m.d)),
    "a mean by hand": lambda m, x: m.head(x - x.sum(-1, keepdim=True) / m.d),
    "rsqrt of a mean": lambda m, x: m.head(
        x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)
    ),
    "norm, then sqrt": lambda m, x: m.head(x / x.norm(dim=-1, keepdim=True) * m.d**0.5),
    "norm of another power": lambda m, x: m.head(
        x / x.norm(p=1, dim=-1, keepdim=True) * m.d
    ),
    "largest entry": lambda m, x: m.head(
        x / torch.linalg.vector_norm(x, float("inf"), dim=-1, keepdim=True)
    ),
    "normalize by another power": lambda m, x: m.head(F.normalize(x, p=1, dim=-1) * m.d),
    "norm with an eps": lambda m, x: m.head(
        x / (x.norm(dim=-1, keepdim=True) * m.d**-0.5 + 1e-6)
    ),
    "sqrt of a sum": lambda m, x: m.head(
        x / torch.sqrt(x.pow(2).sum(-1, keepdim=True) / m.d + 1e-6)
    ),
    "std": lambda m, x: m.head(
        (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)
    ),
    "var": lambda m, x: m.head(
        (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True) + 1e-6)
    ),
    "clamped": lambda m, x: m.head(
        x * (x.square().sum(-1, keepdim=True) / m.d).clamp(min=1e-8).rsqrt()
    ),
    "an output that grows": lambda m, x: m.lin(x) * math.sqrt(m.d),
}  # fmt: skip


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_keeps_its_size_is_left_alone(name: str) -> None:
    program = converted(NEUTRAL[name])
    assert changes(program) == []
    assert codes(program) == set()


def test_the_coefficients_of_equations_keep_their_size() -> None:
    def solved(m: Any, x: Tensor) -> object:
        return m.head(torch.linalg.solve_triangular(x @ x.mT, m.lin(x), upper=True))

    assert changes(converted(solved)) == ["1 -> 0.25"]


def test_an_embedding_times_sqrt_of_width_keeps_its_base_value() -> None:
    program = converted(lambda m, x: m.head(m.lin(x * math.sqrt(m.d))))
    assert changes(program) == ["sqrt(64) -> sqrt(16)"]


def pooled(x: Tensor) -> Tensor:
    values, places = F.max_pool1d(x, 2, return_indices=True)
    out: Tensor = F.max_unpool1d(values, places, [2])
    return out


def broadcast(x: Tensor) -> Tensor:
    call: Callable[..., tuple[Tensor, Tensor]] = torch.broadcast_tensors
    return call(x, x[:, :1])[1]


PASSED: dict[str, Callable[[Tensor], Tensor]] = {
    "fold": lambda x: F.fold(x.mT, (1, 8), (1, 4)),
    "pooling and its way back": pooled,
    "lp_pool1d": lambda x: F.lp_pool1d(x, 2, 2),
    "broadcast_tensors": broadcast,
    "logsigmoid": F.logsigmoid,
    "threshold": lambda x: F.threshold(x, 0.1, 0.2),
}


@pytest.mark.parametrize("passed", PASSED.values(), ids=PASSED)
def test_a_size_is_seen_through_an_operation(passed: Callable[[Tensor], Tensor]) -> None:
    program = converted(lambda m, x: torch.tanh(passed(m.lin(x) * math.sqrt(m.d))))
    assert changes(program) == ["sqrt(64) -> sqrt(16)"]


@pytest.mark.parametrize("step", ["cell", "layer"])
def test_a_first_state_keeps_its_size_as_the_input_does(step: str) -> None:
    def init(m: Any, d: int) -> None:
        m.cell, m.layer = nn.GRUCell(d, d), nn.GRU(d, d, batch_first=True)

    def body(m: Any, x: Tensor) -> object:
        start = m.lin(x[:, 0]) * math.sqrt(m.d)
        if step == "cell":
            return m.head(m.cell(x[:, 1], start))
        return m.head(m.layer(x, start[None])[0])

    assert changes(converted(body, init)) == ["sqrt(64) -> sqrt(16)"]


def test_a_number_of_width_in_a_place_is_left_alone() -> None:
    """Row r of a table of as many rows as width**2: the place of an entry, not its size."""

    def init(m: Any, d: int) -> None:
        m.pairs = nn.Embedding(d * d, d)

    def body(m: Any, x: Tensor) -> object:
        first, second = x.argmax(-1), (-x).argmax(-1)
        return m.head(m.pairs(first * m.d + second + m.d // 2))

    program = converted(body, init)
    assert changes(program) == []
    assert role(program, "pairs.weight") == ("input", 1, 64)


@pytest.mark.parametrize("power", [1, 2])
def test_a_width_in_a_product_with_a_free_size_counts(power: int) -> None:
    """The mean over features and tokens of products is divided by the size of both."""
    program = converted(lambda m, x: (x * x).sum((1, 2)) / (x.shape[1] * x.shape[2]) ** power)
    assert changes(program) == ([] if power == 1 else ["1 -> 4"])


def test_a_position_table_times_a_root_keeps_its_base_value() -> None:
    def init(m: Any, d: int) -> None:
        m.positions = nn.Parameter(torch.randn(9, d) * 0.02)

    program = converted(lambda m, x: m.head(x + m.positions[: x.shape[1]] * m.d**-0.5), init)
    assert changes(program) == ["1/sqrt(64) -> 1/sqrt(16)"]
    assert role(program, "positions") == ("input", 1, 4)


@pytest.mark.parametrize("typed", [torch.Tensor.type_as, torch.Tensor.to])
def test_a_table_in_the_type_of_a_value_is_a_table(
    typed: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """Its frequencies stay what the model computes: they are no activation of another size."""

    def body(m: Any, x: Tensor) -> Tensor:
        steps = typed(torch.arange(m.d // 2), x) * -(math.log(1e4) / (m.d // 2))
        angles = torch.arange(x.shape[1])[:, None] * steps.exp()
        out: Tensor = m.head(x + torch.cat([angles.sin(), angles.cos()], -1))
        return out

    assert changes(converted(body)) == []


def test_a_normalizer_in_a_buffer_is_scaled_where_it_is_filled() -> None:
    def init(m: Any, d: int) -> None:
        m.register_buffer("normalizer", torch.tensor(d**0.5))

    program = converted(lambda m, x: m.head(m.lin(x * m.normalizer)), init)
    assert changes(program) == []
    assert program.buffers == {"normalizer": 0.5}


def test_a_softmax_over_width_is_brought_back() -> None:
    program = converted(lambda m, x: m.head(m.lin(x).softmax(-1)))
    assert changes(program) == ["1 -> 4"]
    assert codes(program) == {"MUF304"}


def scattered(x: Tensor) -> Tensor:
    values, places = x.relu().topk(2, -1)
    return torch.zeros_like(x).scatter(-1, places, values)


SHARES: dict[str, Callable[[Tensor], Tensor]] = {
    "gumbel_softmax": lambda x: F.gumbel_softmax(x),
    "one_hot": lambda x: F.one_hot(x.argmax(-1), x.shape[-1]).transpose(0, 1).float(),
    "scatter": scattered,
}


@pytest.mark.parametrize("name", SHARES)
def test_a_few_rows_that_are_chosen_are_a_table_s(name: str) -> None:
    """However many there are: what comes out is as large as one of them."""

    def init(m: Any, d: int) -> None:
        m.rows = nn.Parameter(torch.randn(2 * d, d))
        m.logits = nn.Linear(d, 2 * d)

    program = converted(lambda m, x: m.head(SHARES[name](m.logits(x)) @ m.rows), init)
    assert role(program, "rows") == ("input", 1, 16)
    assert changes(program) == []


def places(m: Any, x: Tensor) -> Tensor:
    return (torch.arange(m.d) % 3)[None, :, None].expand_as(x.mT)


ADDED: dict[str, tuple[Body, list[str]]] = {
    "index_add": (
        lambda m, x: x.new_zeros(2, 3, 5).index_add(1, torch.arange(m.d) % 3, x.mT),
        ["1 -> 0.25"],
    ),
    "scatter_add": (
        lambda m, x: x.new_zeros(2, 3, 5).scatter_add(1, places(m, x), x.mT),
        ["1 -> 0.25"],
    ),
    "a sum": (
        lambda m, x: x.new_zeros(2, 3, 5).scatter_reduce(1, places(m, x), x.mT, "sum"),
        ["1 -> 0.25"],
    ),
    "a mean": (
        lambda m, x: x.new_zeros(2, 3, 5).scatter_reduce(1, places(m, x), x.mT, "mean"),
        [],
    ),
    "a softmax's shares": (
        lambda m, x: x.new_zeros(2, 3, 5).index_add(
            1, torch.arange(m.d) % 3, x.softmax(-1).mT
        ),
        [],
    ),
    "to others": (
        lambda m, x: m.emb(tokens())[:, :3, :5].index_add(1, torch.arange(m.d) % 3, x.mT),
        ["1 -> 0.25"],
    ),
    "rows of as many": (
        lambda m, x: m.head(torch.zeros_like(x).index_add(1, torch.tensor([0, 0, 1, 1, 1]), x)),
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ADDED)
def test_ever_more_entries_that_are_added_to_each_other_are_a_sum(name: str) -> None:
    body, expected = ADDED[name]
    assert changes(converted(body)) == expected


LOSSES: dict[str, tuple[Body, list[str]]] = {
    "a mean over features": (lambda m, x: F.mse_loss(m.lin(x), x.detach()), []),
    "a sum over features": (
        lambda m, x: F.mse_loss(m.lin(x), x.detach(), reduction="sum"),
        ["1 -> 0.25"],
    ),
    "a divergence from shares": (
        lambda m, x: F.kl_div(
            m.lin(x).log_softmax(-1), x.softmax(-1), reduction="batchmean"
        ),
        [],
    ),
    "a divergence": (
        lambda m, x: F.kl_div(m.lin(x).log_softmax(-1), x.sigmoid(), reduction="batchmean"),
        ["1 -> 0.25"],
    ),
    "a target that grows": (
        lambda m, x: F.l1_loss(m.head(x), (x * x).sum(-1, keepdim=True).expand(2, 5, 3)),
        ["1 -> 0.25"],
    ),
    "a distance": (lambda m, x: F.pairwise_distance(m.lin(x), x), ["1 -> 0.5"]),
    "a distance of another power": (
        lambda m, x: F.pairwise_distance(m.lin(x), x, p=1.0),
        ["1 -> 0.25"],
    ),
    "a margin": (
        lambda m, x: F.triplet_margin_loss(m.lin(x), x, x.flip(1)),
        ["1 -> 0.5"] * 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_over_features_is_corrected_where_it_grows(name: str) -> None:
    body, expected = LOSSES[name]
    assert changes(converted(body)) == expected


def test_weights_of_a_bag_count() -> None:
    def body(m: Any, x: Tensor) -> object:
        shares = (x * x).sum(-1)
        rows = torch.zeros(2, 5, dtype=torch.long)
        return m.head(F.embedding_bag(rows, m.emb.weight, mode="sum", per_sample_weights=shares))

    assert changes(converted(body)) == ["1 -> 0.25"]


def test_the_logarithm_of_a_softmax_over_width_keeps_its_size() -> None:
    assert changes(converted(lambda m, x: m.head(m.lin(x).log_softmax(-1)))) == []


def test_a_block_diagonal_of_parameters_is_refused() -> None:
    block_diag: Any = torch.block_diag

    def body(m: Any, x: Tensor) -> object:
        return torch.cat([x, x], -1) @ block_diag(m.lin.weight, m.w)

    found = refused(body, "block_diag", parameter(grows, grows))
    assert "a weight computed from lin.weight, w" in found


Write = Callable[[Tensor, int, Tensor], object]


def add(buffer: Tensor, t: int, logits: Tensor) -> object:
    return buffer[:, t].add_(logits)


def add_in_place(buffer: Tensor, t: int, logits: Tensor) -> object:
    buffer[:, t] += logits
    return buffer


def fill(buffer: Tensor, t: int, logits: Tensor) -> object:
    buffer[:, t] = logits
    return buffer


def copy(buffer: Tensor, t: int, logits: Tensor) -> object:
    return buffer.transpose(0, 1)[t].copy_(logits)


@pytest.mark.parametrize("write", [add, add_in_place, fill, copy])
@pytest.mark.parametrize("make", [torch.zeros, torch.empty])
def test_what_is_written_into_a_tensor_keeps_its_size(
    write: Write, make: Callable[..., Tensor]
) -> None:
    def body(m: Any, x: Tensor) -> object:
        logits = make(2, 5, 5)
        for t in range(5):
            write(logits, t, (x[:, t : t + 1] * x).sum(-1))
        return m.head(logits.softmax(-1) @ x)

    assert changes(converted(body)) == ["1 -> 0.25"] * 5


@pytest.mark.parametrize(
    "width", [lambda m, x: x.new_zeros(2, m.d, m.d), lambda m, x: torch.zeros(x.shape[0], m.d, m.d)]
)
def test_a_state_is_nothing_before_its_first_step(width: Callable[[Any, Tensor], Tensor]) -> None:
    """What it has of the keys' size it gets with them: k, of unit length, reads what k wrote."""

    def body(m: Any, x: Tensor) -> object:
        keys, state, out = F.normalize(m.lin(x), dim=-1), width(m, x), list[Tensor]()
        for t in range(3):
            out.append(x[:, t] - torch.einsum("bd,bde->be", keys[:, t], state))
            state = state * 0.9 + keys[:, t, :, None] * out[-1][:, None]
        return m.head(torch.stack(out, 1))

    assert changes(converted(body)) == []


def test_a_learned_temperature_is_a_scalar() -> None:
    def init(m: Any, d: int) -> None:
        m.temperature = nn.Parameter(torch.zeros(()))

    def body(m: Any, x: Tensor) -> object:
        keys = F.normalize(m.emb.weight, dim=-1)
        return F.normalize(m.lin(x), dim=-1) @ keys.T * m.temperature.exp()

    program = converted(body, init)
    assert changes(program) == []
    assert role(program, "temperature") == ("scalar", 1, 1)


# -- tied heads ---------------------------------------------------------------------------------


def norm(m: Any, d: int) -> None:
    m.norm = nn.LayerNorm(d)


def gain(m: Any, d: int) -> None:
    m.gain = nn.Parameter(torch.ones(d))


def rms(m: Any, x: Tensor) -> object:
    return m.gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


@pytest.mark.parametrize(
    ("body", "init", "folded"),
    [
        (lambda m, x: m.norm(m.lin(x)) @ m.emb.weight.T, norm, ["norm.weight", "norm.bias"]),
        (lambda m, x: F.linear(rms(m, m.lin(x)), m.emb.weight), gain, ["gain"]),  # type: ignore[arg-type]
    ],
    ids=["LayerNorm", "RMSNorm by hand"],
)
def test_a_tied_head_folds_into_the_final_norm(body: Body, init: Init, folded: list[str]) -> None:
    program = converted(body, init)
    assert changes(program) == []
    assert codes(program) == set()
    assert role(program, "emb.weight") == ("input", 1, 4)
    assert {n: program.plan[n].lr for n in folded} == dict.fromkeys(folded, 0.25)
    assert program.init_corrections[folded[0]] == pytest.approx(0.25)


def test_a_tied_head_without_a_norm_is_one_multiplication() -> None:
    program = converted(lambda m, x: F.linear(m.lin(x), m.emb.weight))
    assert changes(program) == ["1 -> 0.25"]
    assert codes(program) == {"MUF304"}


def test_the_root_before_a_tied_head_takes_its_factor() -> None:
    program = converted(lambda m, x: F.linear(m.norm(m.lin(x)) * m.d**-0.5, m.emb.weight), norm)
    assert changes(program) == ["1/sqrt(64) -> sqrt(16)/64"]


# -- refusals -----------------------------------------------------------------------------------


def low_rank(m: Any, d: int) -> None:
    m.a, m.b = nn.Parameter(torch.randn(4, d)), nn.Parameter(torch.zeros(d, 4))


ORDERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "cumsum": lambda x, dim: x.cumsum(dim),
    "cumprod": lambda x, dim: x.cumprod(dim),
    "logcumsumexp": lambda x, dim: x.logcumsumexp(dim),
    "sort": lambda x, dim: x.sort(dim)[0],
    "sort by name": lambda x, dim: torch.sort(x, dim=dim, descending=True).values,
    "cummax": lambda x, dim: x.cummax(dim)[0],
    "fft": lambda x, dim: torch.fft.fft(x, dim=dim).real,
    "rfft": lambda x, dim: torch.fft.irfft(torch.fft.rfft(x, None, dim), x.shape[dim], dim),
    "fftn": lambda x, dim: torch.fft.fftn(x, dim=(0, dim)).real,
}
UNNAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "sort": lambda x: x.sort()[0],
    "fft": lambda x: torch.fft.fft(x).real,
    "fft2": lambda x: torch.fft.fft2(x).real,
    "fftn": lambda x: torch.fft.fftn(x).real,
}


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_of_positions_is_fine_and_one_of_features_is_refused(name: str) -> None:
    program = converted(lambda m, x: m.head(ORDERS[name](m.lin(x), 1)))

    assert (changes(program), codes(program)) == ([], set())
    assert is_refused_here(lambda m, x: m.head(ORDERS[name](x, 2)))


@pytest.mark.parametrize("name", UNNAMED)
def test_the_last_axis_is_meant_where_none_is_named(name: str) -> None:
    assert is_refused_here(lambda m, x: m.head(UNNAMED[name](x)))


def is_refused_here(body: Body) -> bool:
    with pytest.raises(MufxError, match="an axis that grows with width has no limit") as caught:
        converted(body)
    (found,) = caught.value.diagnostics
    return found.code == "MUF202" and found.place is not None and found.place.file == __file__


def test_a_bilinear_weight_of_three_axes_that_grow_is_refused() -> None:
    def body(m: Any, x: Tensor) -> object:
        return torch.einsum("bnd,bne,ode->bno", x, x, m.w)

    found = refused(body, "einsum", parameter(fixed, grows, grows))
    assert "MUF202: a bilinear weight with two contracted axes that grow" in found


def test_several_weights_in_one_einsum_are_refused() -> None:
    def body(m: Any, x: Tensor) -> object:
        return torch.einsum("bnd,ed,oe->bno", x, m.lin.weight, m.w)

    found = refused(body, "einsum", parameter(fixed, grows))
    assert "MUF202: several parameters are multiplied with each other" in found


def test_a_weight_made_of_several_is_refused() -> None:
    def body(m: Any, x: Tensor) -> object:
        return m.head(F.linear(x, m.lin.weight + m.b @ m.a))

    message = "MUF202: a weight computed from a, b, lin.weight is contracted"
    assert message in refused(body, "m.b @ m.a", low_rank)


def test_two_low_rank_steps_are_fine() -> None:
    program = converted(lambda m, x: m.head(m.lin(x) + F.linear(F.linear(x, m.a), m.b)), low_rank)
    assert role(program, "a") == ("output", 4, 1)
    assert role(program, "b") == ("input", 1, 4)


def test_a_number_of_width_that_is_added_is_refused() -> None:
    def body(m: Any, x: Tensor) -> object:
        return m.head(m.lin(x) + math.sqrt(m.d))

    message = "MUF202: a number that changes with width is added"
    assert refused(body, "math.sqrt") == message


def test_a_number_that_follows_no_power_is_refused() -> None:
    def body(m: Any, x: Tensor) -> object:
        return m.head(m.lin(x) / (m.d + 1))

    assert refused(body, "m.d + 1").startswith("MUF107: the number 65 is 17 at base width")


# -- labels -------------------------------------------------------------------------------------


def parameter(*shape: Callable[[int], int]) -> Init:
    def init(m: Any, d: int) -> None:
        m.w = nn.Parameter(torch.randn(*(size(d) for size in shape)) * 0.02)

    return init


def grows(d: int) -> int:
    return d


def fixed(d: int) -> int:
    return 6


def double(d: int) -> int:
    return 2 * d


def channels(m: Any, x: Tensor, dims: int) -> Tensor:
    """(batch, d, 2, ..), as a convolution takes it."""
    b, d = x.shape[0], x.shape[2]
    return (
        x[:, :4]
        .transpose(1, 2)
        .reshape(b, d, *[2] * 2)[:, :, 0]
        .reshape(b, d, *[1] * (dims - 1), 2)
    )


def test_falcon_s_product_with_a_transposed_weight() -> None:
    program = converted(lambda m, x: m.head(x @ m.w.T), parameter(grows, grows))
    assert role(program, "w") == ("hidden", 4, 4)


@pytest.mark.parametrize(
    ("body", "shape", "expected"),
    [
        (lambda m, x: x @ m.w.mT[:, :3], (fixed, grows), ("output", 4, 1)),
        (lambda m, x: F.linear(x, m.w.double().float()[: m.d]), (double, grows), ("hidden", 4, 4)),
        (lambda m, x: torch.einsum("bnd,od->bno", x, m.w), (fixed, grows), ("output", 4, 1)),
        (lambda m, x: torch.einsum("...d,de->...e", x, m.w), (grows, grows), ("hidden", 4, 4)),
        (lambda m, x: torch.einsum("bnd,od->bno", [x, m.w]), (fixed, grows), ("output", 4, 1)),
        (lambda m, x: torch.einsum("bnd,bne,ode->bno", x, x[..., :6].detach(), m.w),
         (fixed, grows, fixed), ("output", 4, 1)),
        (lambda m, x: torch.einsum("ode,bnd,bne->bno", m.w, x, x[..., :6].detach()),
         (double, grows, fixed), ("hidden", 4, 4)),
        (lambda m, x: F.linear(x, torch.einsum("io->oi", m.w)), (grows, fixed), ("output", 4, 1)),
        (lambda m, x: torch.tensordot(x, m.w, 1), (grows, fixed), ("output", 4, 1)),
        (lambda m, x: torch.bmm(x.mT[:1].expand(6, m.d, 5).mT, m.w), (fixed, grows, grows),
         ("hidden", 4, 4)),
        (lambda m, x: x * m.w, (grows,), ("input", 1, 4)),
        (lambda m, x: F.embedding(torch.zeros(2, 3, dtype=torch.long), m.w) + x[:, :3],
         (fixed, grows), ("input", 1, 4)),
        (lambda m, x: F.embedding_bag(torch.zeros(2, 3, dtype=torch.long), m.w) + x[:, 0],
         (fixed, grows), ("input", 1, 4)),
        (lambda m, x: F.bilinear(x, x[..., :2].contiguous(), m.w), (fixed, grows, lambda d: 2),
         ("output", 4, 1)),
        (lambda m, x: F.conv1d(channels(m, x, 1), m.w), (grows, grows, lambda d: 1),
         ("hidden", 4, 4)),
        (lambda m, x: F.conv2d(channels(m, x, 2), m.w), (grows, grows, lambda d: 1, lambda d: 1),
         ("hidden", 4, 4)),
        (lambda m, x: F.conv3d(channels(m, x, 3), m.w), (fixed, grows, *[lambda d: 1] * 3),
         ("output", 4, 1)),
        (lambda m, x: F.conv1d(channels(m, x, 1), m.w, groups=2),
         (grows, lambda d: d // 2, lambda d: 1), ("hidden", 4, 4)),
        (lambda m, x: F.conv1d(channels(m, x, 1), m.w, groups=m.d),
         (grows, lambda d: 1, lambda d: 1), ("input", 1, 4)),
        (lambda m, x: F.conv_transpose1d(channels(m, x, 1), m.w), (grows, double, lambda d: 1),
         ("hidden", 4, 4)),
        (lambda m, x: F.layer_norm(m.w, (m.d,)) + x[:, :1], (fixed, grows), ("input", 1, 4)),
        (lambda m, x: F.normalize(x, dim=-1) @ F.normalize(m.w, dim=-1).T, (fixed, grows),
         ("output", 4, 1)),
    ],
    ids="slice cast einsum ellipsis list joint-readout joint view tensordot bmm gain lookup bag "
    "bilinear conv1d conv2d conv3d grouped depthwise transposed normed prototypes".split(),
)  # fmt: skip
def test_labels(
    body: Body, shape: tuple[Callable[[int], int], ...], expected: tuple[str, float, float]
) -> None:
    program = converted(body, parameter(*shape))
    assert role(program, "w") == expected
    assert changes(program) == []


@pytest.mark.parametrize("form", ["table3", "table8", "table9"])
def test_activations_that_meet_are_brought_back_before_a_weight_meets_them(form: str) -> None:
    """`e` is summed over as in a matrix product, `d` is the weight's."""
    body: Body = lambda m, x: torch.einsum("bnd,bke,bne,od->bno", x, x, x, m.w)  # noqa: E731
    build = lambda d: Toy(d, body, parameter(fixed, grows))  # noqa: E731

    conversion = mufx.convert(build, tokens, BASE, TARGET, form=form)

    entries = conversion.manifest.parameters
    assert (entries["w"].role, entries["w"].m_in, entries["w"].m_out) == ("output", 4, 1)
    factors = [float(c.after) for c in conversion.manifest.changes]
    multipliers = entries["w"].multiplier * entries["emb.weight"].multiplier
    assert math.prod(factors) == 0.25 * multipliers


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
def test_recurrent_layers(cls: type[nn.Module]) -> None:
    def init(m: Any, d: int) -> None:
        m.rnn = cls(d, d, batch_first=True)

    program = converted(lambda m, x: m.head(m.rnn(x)[0]), init)
    assert role(program, "rnn.weight_ih_l0") == ("hidden", 4, 4)
    assert role(program, "rnn.weight_hh_l0") == ("hidden", 4, 4)
    assert role(program, "rnn.bias_ih_l0") == ("input", 1, 4)


def test_weight_norm_s_direction_learns_like_the_weight() -> None:
    def init(m: Any, d: int) -> None:
        m.normed = weight_norm(nn.Linear(d, d, bias=False))

    program = converted(lambda m, x: m.head(m.normed(x)), init)
    gain, direction = (f"normed.parametrizations.weight.original{i}" for i in (0, 1))
    assert role(program, direction)[0] == "hidden"
    assert role(program, gain)[0] == "input"


def test_several_equal_uses_are_one_label() -> None:
    program = converted(lambda m, x: m.head(m.lin(torch.tanh(m.lin(x)))))
    assert len(program.uses["lin.weight"]) == 2
    assert role(program, "lin.weight") == ("hidden", 4, 4)
    assert codes(program) == set()


def test_uses_that_exclude_each_other_are_reported() -> None:
    def body(m: Any, x: Tensor) -> object:
        return F.linear(x, m.w), F.linear(x, m.w[:3])

    program = converted(body, parameter(grows, grows))
    (found,) = [d for d in program.diagnostics if d.code == "MUF203"]
    assert found.message.startswith("w is used as output (linear) and as hidden (linear, ")
    assert (program.plan["w"].init, program.plan["w"].lr) == (0.25, 0.25)


def test_fused_projections_of_which_only_some_grow_have_rows_that_read_out() -> None:
    """Mamba's x_proj: the rank of dt grows, the state's B and C do not."""

    def body(m: Any, x: Tensor) -> object:
        dt, b, c = m.x_proj(x).split((m.d // 4, 3, 3), -1)
        return m.up(dt) * b.sum(-1, keepdim=True) * c.sum(-1, keepdim=True)

    def init(m: Any, d: int) -> None:
        m.x_proj, m.up = nn.Linear(d, d // 4 + 6, bias=False), nn.Linear(d // 4, d)

    program = converted(body, init)
    assert [d.code for d in program.diagnostics if d.code == "MUF206"] == []
    assert program.row_blocks["x_proj.weight"].rows == ((16, 22),)


def test_fused_projections_that_all_grow_are_fine() -> None:
    def body(m: Any, x: Tensor) -> object:
        gate, value = m.both(x).split((m.d, m.d // 2), -1)
        return m.head(gate) * value[:, :2].sum()

    def init(m: Any, d: int) -> None:
        m.both = nn.Linear(d, d + d // 2, bias=False)

    program = converted(body, init)
    assert role(program, "both.weight") == ("hidden", 4, 4)


SECOND: dict[str, Body] = {
    "lerp": lambda m, x: torch.lerp(x, x.flip(1), m.w),
    "clamp": lambda m, x: x.clamp(min=m.w, max=m.w + 1),
    "atan2": lambda m, x: torch.atan2(x, m.w),
    "maximum": lambda m, x: torch.maximum(x, m.w),
    "mse_loss": lambda m, x: F.mse_loss(x, m.w.expand_as(x), reduction="none"),
}  # fmt: skip


@pytest.mark.parametrize("name", SECOND)
def test_a_parameter_that_is_not_the_first_operand_is_used(name: str) -> None:
    program = converted(lambda m, x: m.head(SECOND[name](m, x)), parameter(grows))
    assert role(program, "w") == ("input", 1, 4)


def test_unused_parameters_stay_as_they_are() -> None:
    program = converted(lambda m, x: m.head(x))
    (found,) = [d for d in program.diagnostics if d.code == "MUF205"]
    assert "lin.weight" in found.message
    assert program.plan["lin.weight"].lr == 1


# -- operations without a rule ------------------------------------------------------------------


def test_an_operation_without_a_rule_names_what_it_uses_and_how_to_register_one() -> None:
    def body(m: Any, x: Tensor) -> object:
        return m.head(torch.cdist(x, m.w))

    with pytest.raises(MufxError) as caught:
        converted(body, parameter(grows, grows))
    found = caught.value.diagnostics[0]
    assert (found.code, found.message) == ("MUF202", "cdist uses w, and has no rule")
    assert '@table.rule("cdist")' in found.hint


def test_an_operation_without_a_rule_on_activations() -> None:
    def body(m: Any, x: Tensor) -> object:
        return m.head(torch.renorm(x, 2, 0, 1.0))

    message = refused(body, "renorm")
    assert message == "MUF201: renorm works on an axis that grows, and has no rule"


def test_a_rule_of_one_s_own() -> None:
    table = RuleTable()

    @table.rule("renorm")
    def renorm(flow: Flow, node: fx.Node) -> Value:
        return Magnitude()

    program = converted(lambda m, x: m.head(torch.renorm(x, 2, 0, 1.0)), rules=RULES | table)
    assert changes(program) == []


def test_a_rule_that_forgets_a_parameter_is_an_error_where_it_is_called() -> None:
    table = RuleTable()

    @table.rule("renorm")
    def renorm(flow: Flow, node: fx.Node) -> Value:
        return Magnitude()

    def body(m: Any, x: Tensor) -> object:
        return m.head(x + torch.renorm(m.lin.weight, 2, 0, 1.0)[0])

    with pytest.raises(MufxError) as caught:
        converted(body, rules=RULES | table)

    (problem,) = caught.value.diagnostics
    assert problem.code == "MUF202"
    assert problem.message == "renorm uses lin.weight in a place that its rule does not know"
