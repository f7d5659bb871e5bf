"""The recorder: every way in which a recording could quietly differ from the model."""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import checkpoint as checkpointing

from mufx.diagnostics import MufxError
from mufx.forward import record_forward
from mufx.recording import Recording, Size

HERE = __file__


class Model(nn.Module):
    """A linear layer, and a forward that is given."""

    def __init__(self, body: Callable[[Any, Tensor], object], **children: nn.Module) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("table", torch.ones(4))
        for name, child in children.items():
            self.add_module(name, child)
        self.body = body

    def forward(self, x: Tensor) -> object:
        return self.body(self, x)


def x(batch: int = 2, length: int = 3) -> Tensor:
    return torch.ones(batch, length, 4)


def recorded(
    model: nn.Module | Callable[[Any, Tensor], object],
    *,
    given: Tensor | None = None,
    training: bool = True,
    free: bool = True,
    **children: nn.Module,
) -> Recording:
    if not isinstance(model, nn.Module):
        model = Model(model, **children)
    inputs = ((x() if given is None else given,), dict[str, object]())
    return record_forward(model, inputs, training=training, free_sizes=free)


def names(recording: Recording) -> list[str]:
    """The operations in order, by the names of their targets."""
    return [
        n.target if isinstance(n.target, str) else n.target.__name__
        for n in recording.graph.nodes
        if n.op.startswith("call_")
    ]


def wiring(recording: Recording) -> list[str]:
    return [f"{n.name}({', '.join(map(str, n.args))})" for n in recording.graph.nodes if n.args]


def line_of(function: Callable[..., object], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    (found,) = (first + i for i, line in enumerate(lines) if text in line)
    return found


def refused(
    body: Callable[[Any, Tensor], object], text: str, *, training: bool = True
) -> tuple[str, str]:
    """Code and message of the one diagnostic, which stands at the line that holds `text`."""
    with pytest.raises(MufxError) as caught:
        recorded(body, training=training)
    (found,) = caught.value.diagnostics
    assert found.place is not None
    assert (found.place.file, found.place.line) == (HERE, line_of(body, text))
    assert found.hint
    return found.code, found.message


# -- 1: sizes stay free -------------------------------------------------------------------------


def test_batch_and_length_stay_free_where_models_reshape() -> None:
    def body(m: Any, t: Tensor) -> Any:
        b, n, w = t.shape
        heads = m.lin(t).view(b, n, 2, w // 2).transpose(1, 2)
        bias = torch.zeros(b * 2, n, n)
        scores = torch.baddbmm(bias, heads.reshape(b * 2, n, 2), heads.reshape(b * 2, 2, n))
        padded = F.pad(scores, (0, n))
        return padded[:, :, :n].reshape(b, 2, n, n) @ heads

    recording = recorded(body)

    value = recording.values["matmul"]
    assert value is not None
    assert [isinstance(d, Size) for d in value.shape] == [True, False, True, False]
    assert sorted(recording.symbols.values()) == [("x", 0), ("x", 1), ("x", 2)]
    assert recording.diagnostics == ()


def test_a_batch_that_the_model_fixes_is_said() -> None:
    def body(m: Any, t: Tensor) -> Any:
        return m.lin(t) if t.shape[0] == 2 else t

    (found,) = recorded(body).diagnostics
    assert found.code == "MUF108"
    assert "x.shape[0] == 2" in found.message


def test_a_batch_that_an_operation_fixes_is_said() -> None:
    def body(m: Any, t: Tensor) -> Any:
        return m.lin(t) + torch.ones(2, 1, 1)

    (found,) = recorded(body).diagnostics
    assert found.code == "MUF108"
    assert "size 2 of dimension 0" in found.message


# -- 2: no-ops keep their own identity ----------------------------------------------------------


@pytest.mark.parametrize(
    "no_op",
    [
        lambda t: t.to(torch.float32),
        lambda t: t.contiguous(),
        lambda t: F.dropout(t, 0.5, training=False),
        lambda t: t.float(),
        lambda t: t.expand(t.shape),
    ],
    ids=["to", "contiguous", "dropout", "float", "expand"],
)
def test_a_no_op_does_not_take_over_what_it_was_given(no_op: Callable[[Tensor], Tensor]) -> None:
    def body(m: Any, t: Tensor) -> Any:
        h = m.lin(t)
        return h * no_op(h) + h

    recording = recorded(body)

    product, total = list(recording.graph.nodes)[-3:-1]
    before, after = product.args
    assert before.name == "linear"
    assert after.args[0] is before
    assert total.args == (product, before)


def test_in_place_operations_stay_the_tensor_that_they_change() -> None:
    def body(m: Any, t: Tensor) -> Any:
        h = m.lin(t)
        h.mul_(2.0)
        h[:, 0] = 0.0
        return h

    recording = recorded(body)

    assert names(recording) == ["linear", "imul", "setitem"]
    assert wiring(recording)[-3:] == [
        "imul(linear, 2.0)",
        "setitem(imul, (slice(None, None, None), 0), 0.0)",
        "output(imul)",
    ]


# -- 3: dtype literals --------------------------------------------------------------------------


def test_a_dtype_is_a_literal_of_the_recording_it_was_made_in() -> None:
    def body(m: Any, t: Tensor) -> Any:
        h = m.lin(t)
        return h.double().to(h.dtype)

    for dtype in (torch.float32, torch.bfloat16):
        recording = record_forward(
            Model(body).to(dtype), ((x().to(dtype),), {}), training=True, free_sizes=True
        )
        (cast,) = (n for n in recording.graph.nodes if n.target == "to")
        assert cast.args[1] is dtype
        assert cast.args[0].target == "double"


# -- 4: what a recording would flatten is refused -------------------------------------------------


def test_autocast_is_refused() -> None:
    def body(m: Any, t: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return m.lin(t)

    code, message = refused(body, "torch.autocast")
    assert code == "MUF102"
    assert "autocast" in message


def test_autocast_that_switches_off_what_is_off_is_nothing() -> None:
    def body(m: Any, t: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return m.lin(t)

    assert names(recorded(body)) == ["linear"]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_are_refused(reentrant: bool) -> None:
    def body(m: Any, t: Tensor) -> Any:
        return checkpointing.checkpoint(m.lin, t, use_reentrant=reentrant)

    assert refused(body, "checkpoint(")[0] == "MUF102"


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t * 2

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0]


def test_autograd_functions_are_refused() -> None:
    def body(m: Any, t: Tensor) -> Any:
        return Doubled.apply(m.lin(t))  # type: ignore[no-untyped-call]

    code, message = refused(body, "Doubled.apply")
    assert (code, "Doubled" in message) == ("MUF102", True)


class Squashed(torch.autograd.Function):
    """tanh, with a backward that saves its result."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, factor: float) -> Tensor:
        result = torch.tanh(t * factor)
        ctx.save_for_backward(result)
        ctx.factor = factor
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (result,) = ctx.saved_tensors
        return grads[0] * (1 - result**2) * ctx.factor, None


class SetUp(torch.autograd.Function):
    """The same in the newer style."""

    @staticmethod
    def forward(t: Tensor) -> Tensor:
        return t.sin()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * ctx.saved_tensors[0].cos()


def test_autograd_functions_that_restate_the_derivative_become_their_forward() -> None:
    def body(m: Any, t: Tensor) -> Any:
        h = Squashed.apply(m.lin(t), 0.5)  # type: ignore[no-untyped-call]
        return SetUp.apply(Squashed.apply(h, 2.0))  # type: ignore[no-untyped-call]

    recording = recorded(body)

    assert names(recording) == ["linear", "mul", "tanh", "mul", "tanh", "sin"]
    told = [(d.code, d.severity.value, d.message.split()[3]) for d in recording.diagnostics]
    assert told == [("MUF112", "note", "Squashed"), ("MUF112", "note", "SetUp")]
    place = recording.diagnostics[0].place
    assert place is not None
    assert (place.file, place.line) == (HERE, line_of(body, "0.5"))


class Through(torch.autograd.Function):
    """A straight-through estimator: the gradient of a rounding is that of its operand."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.round()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0]


class Half(torch.autograd.Function):
    """Right for small values only."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0]


class Written(torch.autograd.Function):
    """Writes into its operand."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        ctx.mark_dirty(t)
        return t.mul_(2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * 2


@pytest.mark.parametrize("function", [Through, Half, Written])
def test_other_autograd_functions_are_refused(function: Any) -> None:
    def body(m: Any, t: Tensor) -> Any:
        return function.apply(m.lin(t))

    assert refused(body, "function.apply")[0] == "MUF102"


def test_torchscript_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted: nn.Module = torch.jit.script(nn.Linear(4, 4))

    def body(m: Any, t: Tensor) -> Any:
        return m.inner(t)

    with pytest.raises(MufxError, match="MUF102: the code of the TorchScript module inner") as e:
        recorded(body, inner=scripted)
    place = e.value.diagnostics[0].place
    assert place is not None
    assert (place.file, place.line) == (HERE, line_of(body, "m.inner"))


def softclamp(t: Tensor, value: float = 5.0) -> Tensor:
    return (t / value).tanh() * value


def test_of_a_scripted_function_the_python_one_is_recorded() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted: Any = torch.jit.script(softclamp)

    recording = recorded(lambda m, t: scripted(t, 3.0))

    assert wiring(recording) == wiring(recorded(lambda m, t: softclamp(t, 3.0)))


def test_a_scripted_function_without_a_python_one_is_refused() -> None:
    unit: Any = torch.jit.CompilationUnit("def double(t: Tensor):\n    return t * 2\n")

    def body(m: Any, t: Tensor) -> Any:
        return unit.double(t)

    code, message = refused(body, "unit.double")

    assert code == "MUF102"
    assert message == "the code of the TorchScript function double would be lost"


@pytest.mark.parametrize("region", [torch.no_grad, torch.inference_mode])
def test_regions_that_cut_a_gradient_are_refused(region: Callable[[], Any]) -> None:
    def body(m: Any, t: Tensor) -> Any:
        with region():
            h = m.lin(t)
        return m.lin(h)

    code, message = refused(body, "h = m.lin")
    assert (code, "no_grad" in message) == ("MUF102", True)


def test_a_region_of_torch_s_own_is_not_the_user_s_to_change() -> None:
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))

    with pytest.raises(MufxError, match="MUF102: a region without gradients") as caught:
        record_forward(normed, ((torch.randn(2, 4),), {}), training=True)

    (found,) = caught.value.diagnostics
    assert found.hint == "the region is torch's own: convert the model without SpectralNorm"


def test_a_module_of_torch_in_a_region_of_the_user_is_not_the_region() -> None:
    def body(m: Any, t: Tensor) -> Any:
        with torch.no_grad():
            return m.lin(t)

    with pytest.raises(MufxError, match="MUF102: a region without gradients") as caught:
        recorded(body)

    (found,) = caught.value.diagnostics
    assert found.hint.startswith("call detach() on what should get no gradient")


def test_regions_without_a_gradient_to_cut_are_recorded() -> None:
    def body(m: Any, t: Tensor) -> Any:
        with torch.no_grad():
            angles = t * m.table
            best = t.argmax(-1)
        return m.lin(angles) * best[..., None]

    assert names(recorded(body)) == ["mul", "argmax", "linear", "getitem", "mul"]


def test_the_type_and_the_shape_of_a_value_have_no_gradient() -> None:
    def body(m: Any, t: Tensor) -> Any:
        h = m.lin(t)
        with torch.no_grad():
            places = torch.arange(4).type_as(h) + torch.zeros_like(h)
        return h + places

    assert names(recorded(body)) == ["linear", "arange", "type_as", "zeros_like", "add", "add"]


@pytest.mark.parametrize("region", [torch.no_grad, torch.inference_mode])
def test_a_write_into_a_parameter_is_a_lost_region_as_well(region: Callable[[], Any]) -> None:
    def body(m: Any, t: Tensor) -> Any:
        with region():
            m.lin.weight.mul_(2)
        return m.lin(t)

    assert refused(body, "m.lin.weight.mul_")[0] == "MUF102"


def test_detach_without_gradients_and_choices_are_recorded() -> None:
    def body(m: Any, t: Tensor) -> Any:
        h = m.lin(t)
        with torch.no_grad():
            h2 = h.detach()
            chosen = h > 0
        return torch.where(chosen, h, h2)

    assert names(recorded(body)) == ["linear", "detach", "gt", "where"]


# -- 5: Python indices --------------------------------------------------------------------------


def test_lists_of_python_numbers_index() -> None:
    def body(m: Any, t: Tensor) -> Any:
        return m.lin(t)[..., [-2]] + m.lin(t)[:, :, [0, 3]].sum(-1, keepdim=True)

    recording = recorded(body)
    indices = [n.args[1] for n in recording.graph.nodes if n.name.startswith("getitem")]
    assert indices[0] == (Ellipsis, [-2])
    assert indices[1][2] == [0, 3]


# -- 6: no fused encoder path -------------------------------------------------------------------


@pytest.mark.parametrize("grad", [True, False])
def test_the_encoder_s_fast_path_is_not_taken(grad: bool) -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    with torch.set_grad_enabled(grad):
        recording = recorded(encoder, training=False)

    assert names(recording).count("multi_head_attention_forward") == 2
    assert names(recording).count("layer_norm") == 4
    assert torch.backends.mha.get_fastpath_enabled()


# -- 7: data-dependent control flow -------------------------------------------------------------


@pytest.mark.parametrize(
    "decide",
    [
        lambda t: bool(t.sum() > 0),
        lambda t: int(t.argmax()),
        lambda t: t.sum().item(),
        lambda t: t.nonzero().shape[0] > 3,
        lambda t: t[t > 0].shape[0] > 3,
    ],
    ids=["bool", "int", "item", "nonzero", "mask"],
)
def test_decisions_from_data_are_refused(decide: Callable[[Tensor], object]) -> None:
    def body(m: Any, t: Tensor) -> Any:
        h: Tensor = m.lin(t)
        return h if decide(h) else t

    with pytest.raises(MufxError, match="MUF101: the forward pass takes a decision") as caught:
        recorded(body)
    place = caught.value.diagnostics[0].place
    assert place is not None
    assert (place.file, place.line) in {
        (HERE, line_of(decide, "lambda")),
        (HERE, line_of(body, "decide(h)")),
    }


def test_a_check_of_the_data_is_refused_with_another_hint() -> None:
    def body(m: Any, t: Tensor) -> Any:
        assert t.max().item() < 3
        return m.lin(t)

    with pytest.raises(MufxError, match="MUF101") as caught:
        recorded(body)

    (problem,) = caught.value.diagnostics
    assert problem.hint.startswith("leave this check out of the forward pass")
    assert problem.place is not None
    assert problem.place.line == line_of(body, "assert")


def test_an_error_inside_of_numpy_is_at_the_line_that_called_it() -> None:
    def body(m: Any, t: Tensor) -> Any:
        return m.lin(t) * np.take(np.arange(2), 5)

    with pytest.raises(MufxError, match="MUF105") as caught:
        recorded(body)

    (problem,) = caught.value.diagnostics
    assert problem.place is not None
    assert (problem.place.file, problem.place.line) == (HERE, line_of(body, "np.take"))


# -- 8: loops over the sequence -----------------------------------------------------------------


def test_loops_over_the_sequence_unroll_and_fix_its_length() -> None:
    def body(m: Any, t: Tensor) -> Any:
        state = torch.zeros_like(t[:, 0])
        for i in range(t.shape[1]):
            state = torch.tanh(m.lin(t[:, i]) + state)
        return state

    recording = recorded(body)
    assert names(recording).count("tanh") == 3
    (told,) = recording.diagnostics
    assert (told.code, "x.shape[1] == 3" in told.message) == ("MUF108", True)


# -- 9: unused and tied parameters --------------------------------------------------------------


def test_unused_parameters_have_no_node_and_tied_ones_have_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4, bias=False)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight
            self.mask_token = nn.Parameter(torch.zeros(4))

        def forward(self, x: Tensor) -> Any:
            return self.second(self.first(x))

    recording = recorded(Tied())
    assert [n.target for n in recording.graph.nodes if n.op == "get_attr"] == ["first.weight"]


class Frozen(dict[str, int]):
    """As the configurations of diffusers: neither emptied nor filled."""

    def clear(self) -> None:
        raise TypeError


class Remembering(nn.Module):
    """Puts tensors by for its next call, in every way that a module can."""

    held: Tensor | None
    bias: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.config = Frozen(n=3)
        self.held = None
        self.table: dict[int, Tensor] = {}
        self.register_buffer("bias", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[-1]
        if self.held is None or self.bias is None or n not in self.table:
            self.held = torch.arange(n, dtype=x.dtype)
            self.table[n] = self.held * 2
            self.register_buffer("bias", self.held + 1, persistent=False)
        assert self.bias is not None
        return x + self.held + self.table[n] + self.bias


def test_what_a_model_puts_by_is_made_in_every_recording() -> None:
    model = Remembering()

    first = record_forward(model, ((x(),), {}), training=True)
    second = record_forward(model, ((x(),), {}), training=True)

    assert wiring(first) == wiring(second)
    assert model.held is None
    assert model.bias is None
    assert not model.table


# -- 10: training and evaluation ----------------------------------------------------------------


class Swapping(nn.Module):
    """Puts another module into its tree while it runs, as BigBird does for short sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.drop: nn.Module = nn.Sequential(nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.drop, nn.Sequential):
            self.drop = nn.Dropout(0.25)
        dropped: Tensor = self.drop(x)
        return dropped


def test_a_model_may_replace_its_modules_while_it_runs() -> None:
    model = Swapping()
    before = list(model.modules())

    recording = record_forward(model, ((x(),), {}), training=False)

    assert names(recording) == ["dropout"]
    assert all(module.training for module in before)


def test_training_and_evaluation_are_recorded_as_they_run() -> None:
    class DropPath(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                return x
            return x * torch.empty(x.shape[0], 1, 1).bernoulli_(0.9)

    def body(m: Any, t: Tensor) -> Any:
        return m.drop(m.norm(m.lin(t).transpose(1, 2)).transpose(1, 2))

    model = Model(body, norm=nn.BatchNorm1d(4), drop=DropPath())
    train, evaluate = (recorded(model, training=mode) for mode in (True, False))

    counted = {"iadd", "bernoulli_"}
    assert counted <= set(names(train))
    assert not counted & set(names(evaluate))
    flags = [
        next(n for n in r.graph.nodes if n.name == "batch_norm").kwargs["training"]
        for r in (train, evaluate)
    ]
    assert flags == [True, False]


# -- where things are ---------------------------------------------------------------------------


def test_every_operation_has_its_line_module_and_class() -> None:
    def body(m: Any, t: Tensor) -> Any:
        h = m.stack(t)
        return h.tanh()

    recording = recorded(body, stack=nn.Sequential(nn.Linear(4, 4), nn.GELU()))

    places = {n.name: recording.origins[n.name].place for n in recording.graph.nodes
              if n.op.startswith("call_")}  # fmt: skip
    assert {k: (p.module, p.cls) for k, p in places.items()} == {
        "linear": ("stack.0", "Linear"),
        "gelu": ("stack.1", "GELU"),
        "tanh": ("", "Model"),
    }
    assert [p.line for p in places.values()] == [
        line_of(body, "m.stack"),
        line_of(body, "m.stack"),
        line_of(body, "tanh"),
    ]
    assert {p.file for p in places.values()} == {HERE}


def test_a_failing_forward_says_where() -> None:
    def body(m: Any, t: Tensor) -> Any:
        return m.lin(t[..., :2])

    code, message = refused(body, "m.lin(")
    assert (code, "forward failed: RuntimeError" in message) == ("MUF105", True)


def test_a_tensor_from_nowhere_is_named() -> None:
    hidden = torch.ones(4)

    def body(m: Any, t: Tensor) -> Any:
        return m.lin(t) + hidden

    code, message = refused(body, "+ hidden")
    assert (code, "shape (4,)" in message) == ("MUF103", True)


# -- nothing is changed -------------------------------------------------------------------------


def raising(m: Any, t: Tensor) -> Any:
    m.lin(t)
    raise ValueError("no")


def flattening(m: Any, t: Tensor) -> object:
    return checkpointing.checkpoint(m.lin, t, use_reentrant=False)


def plain(m: Any, t: Tensor) -> Any:
    return m.lin(t) * m.table + torch.randn(4)


@pytest.mark.parametrize("body", [plain, raising, flattening])
def test_recording_leaves_the_world_as_it_was(body: Callable[[Any, Tensor], object]) -> None:
    model = Model(body)
    model.lin.eval()
    tensors = {k: (id(v), v.clone()) for k, v in model.state_dict(keep_vars=True).items()}
    patched: list[tuple[Any, str]] = [
        (nn.Module, "__call__"),
        (torch.autograd.Function, "apply"),
        (checkpointing, "_checkpoint_without_reentrant_generator"),
        (torch.autocast, "__enter__"),
        (torch.autocast, "__exit__"),
    ]
    before = [getattr(owner, name) for owner, name in patched]
    rng = torch.get_rng_state(), random.getstate()

    try:
        recorded(model)
    except MufxError:
        assert body is not plain

    after = model.state_dict(keep_vars=True)
    assert {k: id(v) for k, v in after.items()} == {k: i for k, (i, _) in tensors.items()}
    assert all(bool((after[k] == v).all()) for k, (_, v) in tensors.items())
    assert (model.training, model.lin.training) == (True, False)
    assert [getattr(owner, name) for owner, name in patched] == before
    assert bool((torch.get_rng_state() == rng[0]).all())
    assert random.getstate() == rng[1]
    assert torch.is_grad_enabled()
    assert type(model.lin(x())) is Tensor
