"""Folding of statements into loops: input lines, expected lines."""

from __future__ import annotations

import textwrap

import pytest

from mufx.emit.loops import fold_loops

CASES = {
    "a chain of blocks": (
        """
        x = self.h[0](x, cos, sin)
        x = self.h[1](x, cos, sin)
        x = self.h[2](x, cos, sin)
        """,
        {"self.h": 3},
        """
        for block in self.h:
            x = block(x, cos, sin)
        """,
    ),
    "several lines a block": (
        """
        nn.init.normal_(self.wte.weight)
        nn.init.normal_(self.model.layers[0].fc.weight, std=0.02)
        nn.init.zeros_(self.model.layers[0].fc.bias)
        nn.init.normal_(self.model.layers[1].fc.weight, std=0.02)
        nn.init.zeros_(self.model.layers[1].fc.bias)
        nn.init.ones_(self.norm.weight)
        """,
        {"self.model.layers": 2},
        """
        nn.init.normal_(self.wte.weight)
        for layer in self.model.layers:
            nn.init.normal_(layer.fc.weight, std=0.02)
            nn.init.zeros_(layer.fc.bias)
        nn.init.ones_(self.norm.weight)
        """,
    ),
    "one block stays as it is": (
        """
        x = self.h[0](x)
        """,
        {"self.h": 1},
        """
        x = self.h[0](x)
        """,
    ),
    "a first block that differs": (
        """
        x, bias = self.blocks[0](x)
        x = self.blocks[1](x, bias)
        x = self.blocks[2](x, bias)
        """,
        {"self.blocks": 3},
        """
        x, bias = self.blocks[0](x)
        for block in self.blocks[1:]:
            x = block(x, bias)
        """,
    ),
    "a middle part": (
        """
        x = self.blocks[1](x)
        x = self.blocks[2](x)
        """,
        {"self.blocks": 4},
        """
        for block in self.blocks[1:3]:
            x = block(x)
        """,
    ),
    "a first value that nothing else reads": (
        """
        e = self.embed(ids)
        y = self.h[0](e)
        y = self.h[1](y)
        return self.out(y)
        """,
        {"self.h": 2},
        """
        y = self.embed(ids)
        for block in self.h:
            y = block(y)
        return self.out(y)
        """,
    ),
    "a first value that is read again": (
        """
        e = self.embed(ids)
        y = self.h[0](e)
        y = self.h[1](y)
        return self.out(y + e)
        """,
        {"self.h": 2},
        """
        e = self.embed(ids)
        y = e
        for block in self.h:
            y = block(y)
        return self.out(y + e)
        """,
    ),
    "every other block": (
        """
        x = self.h[0](x)
        x = self.h[2](x)
        """,
        {"self.h": 3},
        """
        x = self.h[0](x)
        x = self.h[2](x)
        """,
    ),
    "two lists in step": (
        """
        x = self.blocks[0](self.norms[0](x))
        x = self.blocks[1](self.norms[1](x))
        """,
        {"self.blocks": 2, "self.norms": 3},
        """
        for block, norm in zip(self.blocks, self.norms[:2]):
            x = block(norm(x))
        """,
    ),
    "one block that all others refer to": (
        """
        self.h[1].w.copy_(self.h[0].w)
        self.h[2].w.copy_(self.h[0].w)
        """,
        {"self.h": 3},
        """
        for block in self.h[1:]:
            block.w.copy_(self.h[0].w)
        """,
    ),
    "a number that differs": (
        """
        nn.init.normal_(self.h[0].w, std=0.02)
        nn.init.normal_(self.h[1].w, std=0.01)
        """,
        {"self.h": 2},
        """
        for block, std in zip(self.h, (0.02, 0.01)):
            nn.init.normal_(block.w, std=std)
        """,
    ),
    "bounds that differ": (
        """
        nn.init.uniform_(self.h[0].w, -0.5, 0.5)
        nn.init.uniform_(self.h[1].w, -0.25, 0.25)
        """,
        {"self.h": 2},
        """
        for block, value in zip(self.h, (0.5, 0.25)):
            nn.init.uniform_(block.w, -value, value)
        """,
    ),
    "a hole that differs": (
        """
        x = F.dropout(self.h[0](x), ⟦p=0.1⟧)
        x = F.dropout(self.h[1](x), ⟦p=0.2⟧)
        """,
        {"self.h": 2},
        """
        for block, p in zip(self.h, (⟦p=0.1⟧, ⟦p=0.2⟧)):
            x = F.dropout(block(x), p)
        """,
    ),
    "comments that differ": (
        """
        self.h[0].w.mul_(0.5)  # std 0.02 -> 0.01
        self.h[1].w.mul_(0.5)  # std 0.04 -> 0.02
        """,
        {"self.h": 2},
        """
        self.h[0].w.mul_(0.5)  # std 0.02 -> 0.01
        self.h[1].w.mul_(0.5)  # std 0.04 -> 0.02
        """,
    ),
    "lists in lists of different lengths": (
        """
        x = self.stages[0].blocks[0](x)
        x = self.stages[0].blocks[1](x)
        x = self.stages[0].down(x)
        x = self.stages[1].blocks[0](x)
        x = self.stages[1].blocks[1](x)
        x = self.stages[1].blocks[2](x)
        x = self.stages[1].down(x)
        """,
        {"self.stages": 2, "self.stages[0].blocks": 2, "self.stages[1].blocks": 3},
        """
        for stage in self.stages:
            for block in stage.blocks:
                x = block(x)
            x = stage.down(x)
        """,
    ),
    "a list of lists": (
        """
        f(self.h[0][0].w)
        f(self.h[0][1].w)
        f(self.h[1][0].w)
        f(self.h[1][1].w)
        """,
        {"self.h": 2, "self.h[0]": 2, "self.h[1]": 2},
        """
        for block_2 in self.h:
            for block in block_2:
                f(block.w)
        """,
    ),
    "a name that is taken": (
        """
        x = self.blocks[0](x, block)
        x = self.blocks[1](x, block)
        """,
        {"self.blocks": 2},
        """
        for block_2 in self.blocks:
            x = block_2(x, block)
        """,
    ),
    "a name that is taken further down": (
        """
        block = x[0]
        x = self.blocks[0](x)
        x = self.blocks[1](x)
        x = x + block
        """,
        {"self.blocks": 2},
        """
        block = x[0]
        for block_2 in self.blocks:
            x = block_2(x)
        x = x + block
        """,
    ),
    "a value that is not carried on": (
        """
        a = self.h[0](x)
        b = self.h[1](x)
        """,
        {"self.h": 2},
        """
        a = self.h[0](x)
        b = self.h[1](x)
        """,
    ),
    "all draws of one kind, then all of another": (
        """
        draw(self.h[0].w)
        draw(self.h[1].w)
        zero(self.h[0].b)
        zero(self.h[1].b)
        """,
        {"self.h": 2},
        """
        for block in self.h:
            draw(block.w)
        for block in self.h:
            zero(block.b)
        """,
    ),
    "the same statement twice in a block": (
        """
        draw(self.h[0].w)
        draw(self.h[0].w)
        draw(self.h[1].w)
        draw(self.h[1].w)
        """,
        {"self.h": 2},
        """
        for block in self.h:
            draw(block.w)
            draw(block.w)
        """,
    ),
    "parameters of a list are no numbers": (
        """
        x = self.h[0](x) * self.gains.get_parameter("0")
        x = self.h[1](x) * self.gains.get_parameter("1")
        """,
        {"self.h": 2},
        """
        x = self.h[0](x) * self.gains.get_parameter("0")
        x = self.h[1](x) * self.gains.get_parameter("1")
        """,
    ),
    "a name that the rounds share": (
        """
        x = self.h[0](x, 3) * self.gains.get_parameter("0")
        x = self.h[1](x, 5) * self.gains.get_parameter("0")
        """,
        {"self.h": 2},
        """
        for block, value in zip(self.h, (3, 5)):
            x = block(x, value) * self.gains.get_parameter("0")
        """,
    ),
}


def lines(text: str) -> list[str]:
    return textwrap.dedent(text).strip().splitlines()


@pytest.mark.parametrize("case", CASES)
def test_folds(case: str) -> None:
    given, lists, expected = CASES[case]
    assert fold_loops(lines(given), lists) == lines(expected)


def test_the_text_does_not_grow_with_depth() -> None:
    def folded(depth: int) -> list[str]:
        statements = [f"init(self.h[{i}].m{j}.weight)" for i in range(depth) for j in range(30)]
        return fold_loops(statements, {"self.h": depth})

    assert folded(2) == folded(100)
    assert len(folded(100)) == 31


def test_a_chain_that_starts_under_another_name_is_one_loop() -> None:
    lines = ["y = self.h[0](x, m)", "y = self.h[1](y, m)", "y = self.h[2](y, m)", "return y"]

    folded = fold_loops(lines, {"self.h": 3})

    assert folded == ["y = x", "for block in self.h:", "    y = block(y, m)", "return y"]


def test_a_first_round_that_reads_the_carried_name_stands_alone() -> None:
    lines = ["y = self.h[0](x, y)", "y = self.h[1](y, y)"]

    assert fold_loops(lines, {"self.h": 2}) == lines


def test_a_returned_last_round_belongs_to_the_loop() -> None:
    lines = ["x = self.h[0](x)", "x = self.h[1](x)", "return self.h[2](x)"]

    folded = fold_loops(lines, {"self.h": 3})

    assert folded == ["for block in self.h:", "    x = block(x)", "return x"]
