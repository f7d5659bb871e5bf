"""Looking a call up gives what carrying it out gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mufx.recall import Recall

CALLS: dict[str, Callable[[Callable[..., Tensor], Tensor], Tensor]] = {
    "a product": lambda do, x: do(torch.matmul, x, x.mT),
    "a view with other strides": lambda do, x: do(torch.transpose, x, 0, 1),
    "a slice": lambda do, x: do(torch.Tensor.__getitem__, x, (slice(None), slice(1, 3))),
    "a reduction to another type": lambda do, x: do(torch.argmax, x, dim=-1),
    "a mask": lambda do, x: do(torch.Tensor.gt, x, 0.5),
    "a fused call": lambda do, x: do(F.scaled_dot_product_attention, x, x, x, is_causal=True),
}


def make(shape: tuple[int, ...], *, grad: bool = True) -> Tensor:
    return torch.empty(shape, requires_grad=grad)


def facts(tensor: Tensor) -> tuple[object, ...]:
    return (
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
        tensor.device,
        tensor.requires_grad,
        tensor.is_leaf,
        tensor.storage_offset(),
    )


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_a_recalled_result_has_the_metadata_of_the_first(name: str, grad: bool) -> None:
    with FakeTensorMode() as mode:
        recall = Recall(mode)

        def do(func: Callable[..., object], *args: object, **kwargs: object) -> Tensor:
            result = recall.perform(func, args, kwargs)
            assert isinstance(result, Tensor)
            return result

        first = CALLS[name](do, make((4, 4), grad=grad))
        again = CALLS[name](do, make((4, 4), grad=grad))
        assert again is not first
        assert isinstance(again, FakeTensor)
        assert facts(again) == facts(first)


class Counted:
    """A function that counts how often it was carried out."""

    def __init__(self, func: Callable[..., Tensor]) -> None:
        self.func, self.count = func, 0

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        self.count += 1
        return self.func(*args, **kwargs)


def counted(func: Callable[..., Tensor], *calls: tuple[object, ...]) -> int:
    """How many of the calls were carried out."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        recall, counting = Recall(mode), Counted(func)
        for args in calls:
            recall.perform(counting, args, {})
        return counting.count


def test_a_call_is_carried_out_once() -> None:
    x = FakeTensorMode().from_tensor(torch.empty(4))
    assert counted(torch.add, (x, 1), (x, 1), (x, 1)) == 1


def test_equal_numbers_of_other_types_are_other_calls() -> None:
    whole = FakeTensorMode().from_tensor(torch.empty(4, dtype=torch.long))
    assert counted(torch.add, (whole, 1), (whole, 1.0), (whole, True)) == 3


def test_another_shape_stride_type_or_need_of_gradients_is_another_call() -> None:
    mode = FakeTensorMode()
    x = mode.from_tensor(torch.empty(4, 4))
    with mode:
        others = [x[:2], x.mT, x.double(), torch.empty(4, 4, requires_grad=True)]
    assert counted(torch.relu, (x,), *((o,) for o in others)) == 5


def test_what_is_computed_from_constants_keeps_its_value() -> None:
    with FakeTensorMode() as mode:
        recall = Recall(mode)
        for number in (2, 2, 3):
            more = recall.perform(torch.add, (torch.tensor(number), 1), {})
            assert isinstance(more, Tensor)
            assert more.item() == number + 1


def test_a_change_in_place_is_carried_out_on_the_tensor_itself() -> None:
    with FakeTensorMode() as mode:
        recall = Recall(mode)
        for _ in range(2):
            x = make((4,), grad=False)
            assert recall.perform(torch.Tensor.add_, (x, 1), {}) is x


def test_a_recalled_result_can_be_changed_in_place() -> None:
    with FakeTensorMode() as mode:
        recall = Recall(mode)
        for _ in range(2):
            hidden = recall.perform(torch.relu, (make((4,)),), {})
            assert isinstance(hidden, Tensor)
            hidden += 1
            assert not hidden.is_leaf


def test_a_region_without_gradients_is_always_carried_out() -> None:
    with FakeTensorMode() as mode, torch.no_grad():
        recall, counting = Recall(mode), Counted(torch.relu)
        x = make((4,))
        recall.perform(counting, (x,), {})
        recall.perform(counting, (x,), {})
        assert counting.count == 2
