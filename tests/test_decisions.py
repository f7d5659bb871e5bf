"""Decisions from sizes that stay free: told with their place, and kept as assertions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.api import Conversion

Body = Callable[[Tensor], Tensor]
RECORDED = (2, 7)


class Net(nn.Module):
    def __init__(self, width: int, body: Body) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.head = nn.Linear(width, 3)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.embed(x)))
        return out


@cache
def convert(body: Body) -> Conversion:
    tokens = torch.randint(20, RECORDED)
    return mufx.convert(
        lambda width: Net(width, body), (tokens,), {"width": 16}, {"width": 16}, vary=["width"]
    )


def added(h: Tensor) -> Tensor:
    total = torch.zeros_like(h[:, 0])
    for t in range(h.shape[1]):
        total = total * 0.9 + h[:, t]
    return total


def rows(h: Tensor) -> Tensor:
    first, *_ = h.unbind(1)
    return first


def limited(h: Tensor) -> Tensor:
    if h.shape[1] > 9:
        raise ValueError("too long")
    return h


def asserted(h: Tensor) -> Tensor:
    assert h.shape[1] < 10
    return h


def windows(h: Tensor) -> Tensor:
    """Attention over windows pads to a whole number of them, in every block."""
    for window in (4, 6, 5, 4, 6):
        h = F.pad(h, (0, 0, 0, (window - h.shape[1] % window) % window))
        h = h.view(h.shape[0], h.shape[1] // window, window, -1).mean(2)
        h = torch.cat([h, h, h], 1)
    return h.mean(1)


# Attention over blocks divides a size by how many parts of it there are, again and again.
def shared_out(h: Tensor) -> Tensor:
    for _ in range(4):
        count = h.shape[1] // 2
        h = h[:, : h.shape[1] // count * count].reshape(h.shape[0], count, -1, h.shape[2])
        h = h.flatten(1, 2)
    return h.mean(1)


class Caught(Net):
    """Takes whatever error there is for a sequence that does not fit."""

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.head(self.embed(x))
        try:
            return self.body(h)
        except RuntimeError:
            return h


DECIDED: dict[str, tuple[Body, str]] = {
    "a branch": (lambda h: h.mean(1) if h.shape[1] > 6 else h.amax(1), "x.shape[1] > 6"),
    "the other branch": (lambda h: h.mean(1) if h.shape[1] > 8 else h, "x.shape[1] <= 8"),
    "a remainder": (lambda h: h[:, 1:] if h.shape[1] % 2 else h, "x.shape[1] % 2 != 0"),
    "a loop": (added, "x.shape[1] == 7"),
    "a root": (lambda h: h / math.sqrt(h.shape[1]), "x.shape[1] == 7"),
    "an integer": (lambda h: h / int(h.shape[1]), "x.shape[1] == 7"),
    "a length": (lambda h: h.sum(1) / len(h[0]), "x.shape[1] == 7"),
    "a part": (lambda h: h[:, : int(h.shape[1] * 0.5)].mean(1), "int(0.5 * x.shape[1]) == 3"),
    "as many results": (rows, "x.shape[1] == 7"),
    "a size padded again and again": (windows, "x.shape[1] == 7"),
    "a size divided by parts of it": (shared_out, "x.shape[1] == 7"),
    "what a factory takes": (
        lambda h: h * torch.linspace(0, 1, h.shape[1])[:, None],
        "x.shape[1] == 7",
    ),
}


@pytest.mark.parametrize(("body", "condition"), DECIDED.values(), ids=DECIDED)
def test_a_decision_is_a_warning_at_its_line_and_an_assertion(body: Body, condition: str) -> None:
    conversion = convert(body)

    (told,) = conversion.program.diagnostics
    assert (told.code, told.severity) == ("MUF108", "warning")
    assert told.message.endswith(f"holds for {condition}")
    assert told.place is not None
    assert told.place.file == __file__
    first = body.__code__.co_firstlineno
    assert 0 <= told.place.line - first <= 4
    assert f"assert {condition}\n" in conversion.text


@pytest.mark.parametrize("body", [body for body, _ in DECIDED.values()], ids=DECIDED)
@pytest.mark.parametrize("shape", [(2, 7), (5, 7), (2, 8), (2, 9), (2, 4), (3, 12)])
def test_the_emitted_model_is_right_or_refuses(body: Body, shape: tuple[int, int]) -> None:
    emitted = convert(body).module(seed=0).eval()
    original = Net(16, body).eval()
    original.load_state_dict(emitted.state_dict())
    tokens = torch.randint(20, shape)

    try:
        got = emitted(tokens)
    except AssertionError:
        assert shape[1] != RECORDED[1]
    else:
        torch.testing.assert_close(got, original(tokens))


def test_an_error_that_the_model_catches_does_not_hide_that_a_size_cannot_stay_free() -> None:
    tokens = torch.randint(20, RECORDED)

    conversion = mufx.convert(
        lambda width: Caught(width, windows),
        (tokens,),
        {"width": 16},
        {"width": 16},
        vary=["width"],
    )

    (told,) = conversion.program.diagnostics
    assert told.message.endswith("holds for x.shape[1] == 7")
    assert told.place is not None
    assert (told.place.file, told.place.cls) == (__file__, "Caught")
    emitted = conversion.module(seed=0).eval()
    original = Caught(16, windows).eval()
    original.load_state_dict(emitted.state_dict())
    torch.testing.assert_close(emitted(tokens), original(tokens))


def chunked(h: Tensor) -> Tensor:
    """In as many chunks as there are sevens; of a size of 1 there are none, and no length."""
    chunks = h.shape[1] // 7
    filled = chunks * (h.shape[1] // chunks)
    moved = h + torch.zeros(filled, 1)  # torch asks whether it is as long
    if filled != h.shape[1]:
        raise ValueError("the chunks do not fill it")
    return moved


def test_a_question_that_divides_by_zero_at_a_size_of_one_is_no_error() -> None:
    conversion = convert(chunked)

    assert conversion.program.diagnostics == ()
    assert conversion.module(seed=0)(torch.randint(20, (3, 14))).shape == (3, 14, 3)


@pytest.mark.parametrize("body", [limited, asserted])
def test_a_check_of_the_model_stays_one_without_a_word(body: Body) -> None:
    conversion = convert(body)

    assert conversion.program.diagnostics == ()
    assert "assert x.shape[1] <" in conversion.text


def test_a_size_of_one_is_a_note() -> None:
    conversion = convert(lambda h: h * 2 if h.shape[0] == 1 else h)

    (told,) = conversion.program.diagnostics
    assert (told.code, told.severity) == ("MUF108", "note")
    assert "whether a size is 1" in told.message
    assert "assert" not in conversion.text


def windowed(h: Tensor) -> Tensor:
    """The mean over windows of 7, the last one left out."""
    count = h.shape[1] // 7
    parts = h[:, : 7 * count].reshape(h.shape[0], -1, 7, h.shape[2]).mean(2)
    return parts.sum(1) / parts.shape[1]


def test_a_computed_size_that_is_one_in_the_example_is_a_note() -> None:
    conversion = convert(windowed)

    (told,) = conversion.program.diagnostics
    assert (told.code, told.severity) == ("MUF108", "note")
    assert told.message.endswith("a size is 1 here: x.shape[1] // 7 == 1")
    assert told.place is not None
    assert (told.place.file, told.place.line) == (__file__, windowed.__code__.co_firstlineno + 3)
    assert "assert" not in conversion.text


FREE: dict[str, Body] = {
    "arange": lambda h: h * torch.arange(h.shape[1])[:, None],
    "a view": lambda h: h.reshape(h.shape[0] * h.shape[1], -1),
    "a division": lambda h: h.sum(1) / h.shape[1],
    "a mask": lambda h: h.masked_fill(torch.ones(h.shape[:2]).tril()[..., None] == 0, 0.0),
    "the last of a table": lambda h: h + torch.ones(12, 1)[max(0, 12 - h.shape[1]) :],
    "no more than there is": lambda h: h[:, : min(5, h.shape[1], 9)].mean(1),
    "halves": lambda h: h[:, : h.shape[1] // 2].mean(1),
}


@pytest.mark.parametrize("body", FREE.values(), ids=FREE)
def test_what_is_computed_from_a_size_decides_nothing(body: Body) -> None:
    conversion = convert(body)
    emitted = conversion.module(seed=0).eval()
    original = Net(16, body).eval()
    original.load_state_dict(emitted.state_dict())

    assert conversion.program.diagnostics == ()
    for shape in ((3, 4), (2, 12)):
        tokens = torch.randint(20, shape)
        torch.testing.assert_close(emitted(tokens), original(tokens))
