"""Numbers that no torch function computed: they lie in a file beside the emitted one.

A few are written into the text. More, such as a table of positions that was made with numpy, are
loaded by `init_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from mufx.construction import Construction
from mufx.emit.init_facts import InitFacts

TABLES_FILE = "tables_mup.pt"
LONGEST = 64  # numbers that are written out one by one
_TABLES = "tables["
LOADING = f'tables = torch.load(Path(__file__).with_name("{TABLES_FILE}"), map_location=device)'


def table_names(facts: InitFacts) -> dict[str, str]:
    """By node: the name of its table, that of the first tensor which its numbers flow into."""
    found: dict[str, str] = {}
    for node in facts.kept:
        if node.op != "get_attr" or not _is_long(facts.construction.constants[str(node.target)]):
            continue
        owner = facts.owners[node.name]
        taken = sum(name.partition("#")[0] == owner for name in found.values())
        found[node.name] = f"{owner}#{taken + 1}" if taken else owner
    return found


def table_nodes(construction: Construction) -> Mapping[str, fx.Node]:
    """By name: the nodes of the tables of a model."""
    if not any(map(_is_long, construction.constants.values())):
        return {}
    names = table_names(InitFacts(construction))
    return {name: construction.nodes[node] for node, name in names.items()}


def tables_of(construction: Construction) -> Mapping[str, torch.Tensor]:
    """The tables themselves."""
    nodes = table_nodes(construction)
    return {name: construction.constants[str(node.target)] for name, node in nodes.items()}


def _is_long(constant: torch.Tensor) -> bool:
    return constant.numel() > LONGEST


def table(name: str) -> str:
    """A table in a statement."""
    return f'{_TABLES}"{name}"]'


def loads_tables(text: str) -> bool:
    """Whether statements use one."""
    return _TABLES in text
