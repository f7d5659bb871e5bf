"""The op rules: how operations consume weights, and how magnitudes pass through them.

One file a family; `RULES` is all of them. A rule of your own is one entry more:

    >>> from mufx.magnitudes import Magnitude
    >>> from mufx.rules import RULES, RuleTable
    >>> mine = RuleTable()
    >>> @mine.rule("mylib::norm")
    ... def norm(flow, node):
    ...     return Magnitude()
    >>> len(RULES | mine) - len(RULES)
    1
"""

from __future__ import annotations

from mufx.rules.attention import FUSED
from mufx.rules.contractions import CONTRACTIONS
from mufx.rules.creation import CREATION
from mufx.rules.elementwise import ELEMENTWISE
from mufx.rules.reductions import REDUCTIONS
from mufx.rules.table import Flow, Rule, RuleTable, operation
from mufx.rules.views import VIEWS

RULES = VIEWS | ELEMENTWISE | REDUCTIONS | CONTRACTIONS | FUSED | CREATION

__all__ = ["RULES", "Flow", "Rule", "RuleTable", "operation"]
