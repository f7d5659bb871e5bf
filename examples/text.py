"""Batches of real text, the sources of Python's standard library, for the models beside.

mufx sweep examples/gpt.py --data examples/text.py:windows

Each function yields batches for ever. They draw from torch's global generator.
"""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

MEGABYTES = 4
LENGTH = 32
MASKED = 0.15  # of the tokens
MASK = 0  # a byte that no source holds
IGNORED = -100  # what F.cross_entropy ignores
CONTEXT = 4  # bytes that the classifier sees: 32 bits
CLASSES = 10


@functools.cache
def standard_library() -> Tensor:
    """The sources of the standard library, one after the other, as bytes in 0..255."""
    folder = Path(sysconfig.get_path("stdlib"))
    sources = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    return torch.frombuffer(bytearray(sources[: MEGABYTES * 10**6]), dtype=torch.uint8).long()


def pieces(batch: int, length: int) -> Iterator[Tensor]:
    """Random pieces of the text, (batch, length)."""
    text = standard_library()
    while True:
        starts = torch.randint(len(text) - length, (batch, 1))
        yield text[starts + torch.arange(length)]


def windows(batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For a language model: bytes, and the bytes that follow."""
    for piece in pieces(batch, LENGTH + 1):
        yield piece[:, :-1].contiguous(), piece[:, 1:].contiguous()


def masked(batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For an encoder: bytes of which some are masked, and those, where they are."""
    for piece in pieces(batch, LENGTH):
        hidden = torch.rand(piece.shape) < MASKED
        yield piece.masked_fill(hidden, MASK), piece.masked_fill(~hidden, IGNORED)


def bits(batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For a classifier: the bits of four bytes as -1 and 1, and the class of the byte after."""
    classes = _classes()
    for piece in pieces(batch, CONTEXT + 1):
        shifted = piece[:, :-1, None] >> torch.arange(8)
        yield (shifted & 1).flatten(1).float() * 2 - 1, classes[piece[:, -1]]


def _classes() -> Tensor:
    """By byte, its class: the common kinds of character in a program's source."""
    kinds = (b" ", b"\n", b"aeiou", b"rstln", b"bcdfghjkmpqvwxyz", b"_", b"(){}[]", b".,:;", b"'\"")
    classes = torch.full((256,), CLASSES - 1)
    for number, kind in enumerate(kinds):
        classes[list(kind)] = number
    return classes
