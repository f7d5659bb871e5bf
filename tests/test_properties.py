"""What must hold of any model, on random residual networks of MLPs and attention."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mufx
from mufx.api import Conversion, convert
from mufx.passes.prove import findings
from tests.models.random_nets import NORMS, Branch, Mixed, Net, expected_roles, tokens

BASE = 8
BRANCHES = st.builds(
    Branch,
    st.sampled_from(["mlp", "gated", "attention", "heads"]),
    st.sampled_from(sorted(NORMS)),
    st.booleans(),
)
NETS = st.builds(Net, st.lists(BRANCHES, min_size=1, max_size=3).map(tuple), st.booleans())
WIDER = st.sampled_from([16, 24, 32, 64])
few = settings(max_examples=12, deadline=None)


def converted(
    net: Net, width: int, names: dict[int, str] | None = None, form: str = "table3"
) -> Conversion:
    def build(width: int) -> nn.Module:
        return Mixed(net, width, names)

    return convert(build, tokens, {"width": BASE}, {"width": width}, form=form)


def roles(conversion: Conversion) -> dict[str, str]:
    return {name: entry.role.value for name, entry in conversion.manifest.parameters.items()}


@few
@given(NETS, WIDER)
def test_every_weight_has_the_role_that_its_axes_give_it(net: Net, width: int) -> None:
    conversion = converted(net, width)
    wanted = expected_roles(net, [f"branch{i}" for i in range(len(net.branches))])

    found = roles(conversion)

    assert {name: found[name] for name in wanted} == wanted
    assert {found[name] for name in found.keys() - wanted.keys()} == {"input"}  # gains and biases
    assert findings(conversion.program) == []


@few
@given(NETS, WIDER, WIDER)
def test_roles_do_not_depend_on_the_target_width(net: Net, width: int, other: int) -> None:
    assert roles(converted(net, width)) == roles(converted(net, other))


@few
@given(NETS, WIDER, st.data())
def test_renaming_permutes_the_result(net: Net, width: int, data: st.DataObject) -> None:
    """Names that other frameworks give to other things: nothing may be read off them."""
    taken = ["lm_head", "embed_tokens", "router", "classifier"]
    names = dict(enumerate(data.draw(st.permutations(taken))[: len(net.branches)]))
    plain, renamed = converted(net, width), converted(net, width, names)

    def new(name: str) -> str:
        first, _, rest = name.partition(".")
        number = first.removeprefix("branch")
        return f"{names[int(number)]}.{rest}" if number.isdecimal() else name

    skipped = {"group", "because", "tied"}
    found, wanted = (
        {
            rename(name): entry.model_dump(exclude=skipped)
            for name, entry in c.manifest.parameters.items()
        }
        for c, rename in ((renamed, str), (plain, new))
    )
    assert found == wanted
    assert [(c.before, c.after) for c in renamed.manifest.changes] == [
        (c.before, c.after) for c in plain.manifest.changes
    ]


@few
@given(NETS, st.booleans())
def test_at_base_width_nothing_changes(net: Net, training: bool) -> None:
    torch.manual_seed(1)
    original = Mixed(net, BASE).train(training)
    conversion = convert(
        lambda width: Mixed(net, width), tokens, {"width": BASE}, {"width": BASE}, vary=["width"]
    )
    emitted = conversion.module(seed=1).train(training)

    (group,) = mufx.param_groups(emitted, conversion.manifest, lr=0.1, weight_decay=0.2)
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.1, 0.2, 1e-8)
    for name, value in original.state_dict().items():
        assert torch.equal(emitted.state_dict()[name], value)
    assert torch.equal(emitted(*tokens(3)), original(*tokens(3)))


@few
@given(NETS, WIDER, st.sampled_from(["table3", "table8", "table9"]))
def test_what_is_given_is_not_changed(net: Net, width: int, form: str) -> None:
    base, target = {"width": BASE}, {"width": width}
    inputs = tokens()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    before = copy.deepcopy((net, base, target, inputs))

    convert(lambda width: Mixed(net, width), inputs, base, target, form=form)

    assert (net, base, target) == before[:3]
    assert torch.equal(inputs[0], before[3][0])
    assert torch.equal(torch.get_rng_state(), state)


def trained(conversion: Conversion, init: dict[str, Tensor]) -> Tensor:
    """The logits after three steps of AdamW from a given init, in float64."""
    model = conversion.module().double()
    entries = conversion.manifest.parameters
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(init[name] / entries[name].multiplier)
    groups = mufx.param_groups(model, conversion.manifest, lr=0.02, weight_decay=0.1, eps=1e-3)
    optimizer = torch.optim.AdamW(groups)
    (batch,) = tokens(4)
    for _ in range(3):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch).flatten(0, 1), batch.roll(1, 1).flatten())
        torch.autograd.backward(loss)
        optimizer.step()
    logits: Tensor = model(batch)
    return logits.detach()


@settings(max_examples=6, deadline=None)
@given(NETS.filter(lambda net: not net.tied), WIDER)
def test_all_forms_train_alike(net: Net, width: int) -> None:
    forms = {form: converted(net, width, form=form) for form in ("table3", "table8", "table9")}
    plain = forms["table3"].module(seed=0).double()
    init = {name: parameter.detach() for name, parameter in plain.named_parameters()}

    wanted = trained(forms["table3"], init)

    for conversion in forms.values():
        torch.testing.assert_close(trained(conversion, init), wanted, rtol=0, atol=1e-12)
