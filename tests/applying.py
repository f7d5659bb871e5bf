"""A small language model in several spellings, for the tests of `mufx.apply`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mufx
from mufx.api import Conversion
from mufx.manifest import Manifest

VOCABULARY, LENGTH, STEPS = 13, 6, 5


class RMSNorm(nn.Module):
    """As language models spell it; `offset` is Gemma's gain of 1 + weight."""

    def __init__(self, width: int, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return x * (self.offset + self.weight) if self.offset else x * self.weight


class Block(nn.Module):
    """Attention in one of the ways that people write it, and a gated feed-forward."""

    def __init__(self, width: int, heads: int, attention: str) -> None:
        super().__init__()
        self.heads, self.attention = heads, attention
        self.norm = nn.LayerNorm(width)
        if attention == "fused":
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        if attention == "normed":
            self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)
        self.out = nn.Linear(width, width)
        self.up, self.gate = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.qkv(x).chunk(3, -1) if self.attention == "fused" else ()
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in parts or (self.q(x), self.k(x), self.v(x))
        )
        if self.attention == "normed":
            q, k = self.q_norm(q), self.k_norm(k)
        if self.attention == "cosine":
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return turned(q), turned(k), v

    def mixed(self, x: Tensor) -> Tensor:
        q, k, v = self.heads_of(x)
        if self.attention != "spelled":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        q = q * q.size(-1) ** -0.5
        scores = q @ k.transpose(-1, -2)
        mask = torch.ones_like(scores, dtype=torch.bool).tril().logical_not()
        out: Tensor = scores.masked_fill(mask, -torch.inf).softmax(-1) @ v
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self.mixed(self.norm(x)).transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(F.silu(self.gate(x)) * self.up(x))
        return out


def turned(x: Tensor) -> Tensor:
    """A rotary embedding of one angle."""
    first, second = x.chunk(2, -1)
    return x * 0.8 + torch.cat((-second, first), -1) * 0.6


class Model(nn.Module):
    """A language model whose embedding may be the readout, too."""

    def __init__(
        self, width: int, heads: int, attention: str, tied: bool = True, offset: float = 0.0
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList([Block(width, heads, attention)])
        self.norm = RMSNorm(width, offset)
        self.readout = nn.Linear(width, VOCABULARY, bias=False)
        self.init_weights()
        if tied:
            self.readout.weight = self.embedding.weight

    def init_weights(self) -> None:
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.0)
        for module in self.modules():
            if isinstance(module, (nn.LayerNorm, RMSNorm)):
                nn.init.constant_(module.weight, 1.0 - getattr(module, "offset", 0.0))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.readout(self.norm(x))
        return out


Make = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, tuple[Make, dict[str, Any]]] = {
    "sgd": (lambda g: torch.optim.SGD(g, momentum=0.9), {"lr": 0.05, "weight_decay": 0.1}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "eps": 1e-4}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "eps": 1e-4, "weight_decay": 0.1}),
}
BASE, TARGET = {"width": 16, "heads": 2}, {"width": 64, "heads": 4}


def build(options: Mapping[str, Any]) -> Callable[..., Model]:
    return lambda width, heads: Model(width, heads, **options)


@cache
def _converted(
    options: tuple[tuple[str, Any], ...], optimizer: str, form: str, wide: bool
) -> Conversion:
    tokens = torch.zeros(2, LENGTH, dtype=torch.long)
    target = TARGET if wide else BASE
    vary = () if wide else tuple(BASE)
    return mufx.convert(
        build(dict(options)), (tokens,), BASE, target, optimizer=optimizer, form=form, vary=vary
    )


def converted(
    optimizer: str = "adamw", form: str = "table3", wide: bool = True, **options: Any
) -> Conversion:
    options = {"attention": "separate", **options}
    return _converted(tuple(options.items()), optimizer, form, wide)


def own(seed: int = 0, sizes: Mapping[str, int] = TARGET, **options: Any) -> Model:
    torch.manual_seed(seed)
    return build({"attention": "separate", **options})(**sizes)


def factors(manifest: Manifest) -> dict[str, float]:
    """The factors that parameters take over, but for those of 1."""
    return {n: e.absorbed for n, e in manifest.parameters.items() if e.absorbed != 1.0}


def train(
    model: nn.Module,
    plan: Manifest,
    optimizer: str = "adamw",
    loss: Callable[[Tensor], Tensor] | None = None,
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
) -> None:
    """A few clipped steps on fixed data."""
    make, values = OPTIMIZERS[optimizer]
    opt = make(mufx.param_groups(model, plan, **values))
    scheduler = schedule(opt) if schedule else None
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        tokens = torch.randint(VOCABULARY, (3, LENGTH + 1), generator=generator)
        logits = model(tokens[:, :-1]) if loss is None else loss(tokens[:, :-1])
        opt.zero_grad()
        torch.autograd.backward(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))
        mufx.clip_grad_norm_(model, plan, 0.5)
        opt.step()
        if scheduler is not None:
            scheduler.step()


def apart(model: nn.Module, emitted: nn.Module, manifest: Manifest) -> float:
    """How far the parameters are from the emitted module's, times what they have absorbed."""
    taken = factors(manifest)
    return max(
        float((p - q * taken.get(name, 1.0)).detach().abs().max())
        for (name, p), q in zip(model.named_parameters(), emitted.parameters(), strict=True)
    )


def pair(conversion: Conversion, **options: Any) -> tuple[Model, nn.Module, Manifest]:
    """The user's model after `apply` and the emitted one, of the same draws, in float64."""
    model = own(3, **options).double()
    plan = mufx.apply(model, conversion.manifest)
    emitted = conversion.module(seed=3).double()
    assert apart(model, emitted, conversion.manifest) < 1e-7  # one is scaled in float32
    taken = factors(conversion.manifest)
    with torch.no_grad():
        for (name, p), q in zip(model.named_parameters(), emitted.parameters(), strict=True):
            p.copy_(q * taken.get(name, 1.0))
    return model, emitted, plan
