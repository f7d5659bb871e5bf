"""Models that know nothing of mufx, from the command line to a training step without mufx."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mufx import cli

NANOGPT = Path(__file__).parent / "models" / "nanogpt.py"
LLAMA = "hidden_size={},intermediate_size={},num_attention_heads={},num_key_value_heads={}"
FILES = ["manifest.json", "model_mup.py", "optim_mup.py"]


@dataclass(frozen=True)
class Command:
    """`mufx convert SPEC --base BASE --target TARGET`.

    Attributes:
        tokens: The name of the model's first input and how large its tokens are.
        targets: The name of the input that makes the forward pass give a loss.
        wide: A weight, and its learning rate at target for AdamW.
    """

    spec: str
    base: str
    target: str
    tokens: tuple[str, int]
    targets: str
    wide: tuple[str, float]

    @property
    def words(self) -> list[str]:
        return ["convert", self.spec, "--base", self.base, "--target", self.target]

    @property
    def inputs(self) -> list[str]:
        name, below = self.tokens
        return [f"--input={given}:int64[2,16]<{below}" for given in (name, self.targets)]


COMMANDS = {
    "nanoGPT": Command(
        str(NANOGPT),
        "n_embd=128,n_head=2",
        "n_embd=768,n_head=12",
        ("idx", 50304),
        "targets",
        ("transformer.h.11.attn.c_attn.weight", 1 / 6),
    ),
    "GPT-2 of transformers": Command(
        "transformers:GPT2LMHeadModel",
        "n_embd=32,n_head=2,n_layer=2,vocab_size=97",
        "n_embd=128,n_head=8,n_layer=2,vocab_size=97",
        ("input_ids", 97),
        "labels",
        ("transformer.h.1.attn.c_attn.weight", 1 / 4),
    ),
    "Llama of transformers": Command(
        "transformers:LlamaForCausalLM",
        LLAMA.format(32, 48, 4, 2) + ",num_hidden_layers=2,vocab_size=97",
        LLAMA.format(128, 288, 8, 4) + ",num_hidden_layers=2,vocab_size=97",
        ("input_ids", 97),
        "labels",
        ("model.layers.1.mlp.down_proj.weight", 1 / 6),
    ),
}

STEP = """
import sys
sys.modules["mufx"] = None
import torch, model_mup, optim_mup

first, targets, below = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.manual_seed(0)
model = getattr(model_mup, model_mup.__all__[0])(device="cpu")
groups = optim_mup.param_groups(model, lr=1e-3, weight_decay=0.1)
optimizer = torch.optim.AdamW(groups)
tokens = torch.randint(0, below, (2, 16))

def loss_of():
    outputs = model(**{first: tokens, targets: tokens})
    (loss,) = (x for x in outputs if x is not None and x.dim() == 0)
    return loss

before = loss_of()
before.backward()
optim_mup.clip_grad_norm_(model, 1.0)
optimizer.step()
with torch.no_grad():
    print(loss_of().item() < before.item() < 1.1 * torch.tensor(below).log().item())
"""


def ran(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_written_and_trains_without_mufx(name: str, tmp_path: Path) -> None:
    command, out = COMMANDS[name], tmp_path / "out"

    result = ran(*command.words, *command.inputs, "-o", out)
    assert (result.exit_code, result.exception) == (0, None)
    assert sorted(p.name for p in out.iterdir()) == FILES
    weight, rate = command.wide
    found = json.loads((out / "manifest.json").read_text())["parameters"][weight]
    assert (found["role"], found["lr_scale"]) == ("hidden", pytest.approx(rate, rel=1e-12))

    tokens, below = command.tokens
    step = [sys.executable, "-W", "error", "-c", STEP, tokens, command.targets, str(below)]
    run = subprocess.run(step, cwd=out, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("True\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_without_inputs_it_is_told_the_command_that_works(name: str, tmp_path: Path) -> None:
    command, out = COMMANDS[name], tmp_path / "out"

    refused = ran(*command.words, "-o", out)
    assert refused.exit_code == 2
    assert "error MUF012: no example inputs" in refused.stderr
    assert not out.exists()

    (told,) = re.findall(r"^ +mufx (.*)$", refused.stderr, re.MULTILINE)
    words = shlex.split(told)
    result = ran(*words, "-o", out)
    assert (result.exit_code, result.exception) == (0, None)
    assert sorted(p.name for p in out.iterdir()) == FILES
