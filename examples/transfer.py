"""μTransfer from end to end: tune small, convert, train large once, and see what that is worth.

python examples/transfer.py gpt

sweeps the learning rate at every width, takes the optimum of the smallest model, and trains the
largest one with it, once: converted by mufx, and as it is. Beside them, the largest one as it is
with a rate that was tuned for it. The seed of these runs is none of the sweep's. Every batch is new
text, so the training loss is that on text not seen before.

Trials are kept in out/transfer: more workers may be started with the same command, and what was
interrupted goes on. Figures and results go to docs/figures, the tables into docs/transfer.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

import mufx
from mufx.sweep import plot
from mufx.sweep.batches import Loss, batches, load_data
from mufx.sweep.preparing import Request
from mufx.sweep.settings import Parametrization
from mufx.sweep.study import Result
from mufx.sweep.summary import Optimum
from mufx.sweep.sweeping import Sweep, swept
from mufx.sweep.training import Schedule, train
from mufx.sweep.values import shown, written

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
TRIALS = Path("out/transfer")
SEED = 100  # of the large runs
BEGIN, END = "<!-- begin {} -->", "<!-- end {} -->"


@dataclass(frozen=True)
class Experiment:
    """A model, where it is tuned, and where it is trained."""

    model: str
    data: str
    base: Mapping[str, object]
    target: Mapping[str, object]
    over: str
    steps: int
    batch: int
    seeds: int

    def request(self) -> Request:
        return Request(
            spec=str(HERE / self.model),
            over=(self.over,),
            data=f"{HERE / 'text.py'}:{self.data}",
            steps=self.steps,
            batch=self.batch,
            seeds=self.seeds,
            study=str(TRIALS / f"{Path(self.model).stem}.db"),
        )


EXPERIMENTS = {
    "mlp": Experiment(
        model="mlp.py",
        data="bits",
        base={"width": 128},
        target={"width": 4096},
        over="lr=2^-12:2^-5",
        steps=60,
        batch=64,
        seeds=3,
    ),
    "gpt": Experiment(
        model="gpt.py",
        data="windows",
        base={"n_embd": 64, "n_head": 2, "n_layer": 2, "block_size": 32},
        target={"n_embd": 1024, "n_head": 32, "n_layer": 2, "block_size": 32},
        over="lr=2^-13:2^-8",
        steps=80,
        batch=8,
        seeds=2,
    ),
    "encoder": Experiment(
        model="encoder.py",
        data="masked",
        base={"d_model": 64, "nhead": 2, "dim_feedforward": 128},
        target={"d_model": 256, "nhead": 8, "dim_feedforward": 512},
        over="lr=2^-11:2^-6",
        steps=60,
        batch=8,
        seeds=2,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tunes small and trains large.")
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, help="seeds of the sweep, instead of the usual ones")
    parser.add_argument("--sweep-only", action="store_true", help="train no large model after it")
    options = parser.parse_args()
    experiment = EXPERIMENTS[options.experiment]
    if options.seeds is not None:
        experiment = replace(experiment, seeds=options.seeds)
    TRIALS.mkdir(parents=True, exist_ok=True)
    source = mufx.load(str(HERE / experiment.model), experiment.base, experiment.target)
    sweep = swept(experiment.request(), source, progress)
    runs = [] if options.sweep_only else compared(experiment, source, sweep)
    write(options.experiment, sweep, runs)


def progress(result: Result, done: int, total: int) -> None:
    point = result.point
    line = f"{point.parametrization} {point.width} seed {point.seed}, {written(result.values)}"
    print(f"{done}/{total} {line}: {result.loss:.4f}", file=sys.stderr)


# -- the large model ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """The large model, trained in one way: the rate, and the loss, inf where it diverged."""

    what: str
    lr: float
    loss: float


def compared(experiment: Experiment, source: mufx.Source, sweep: Sweep) -> list[Run]:
    """The large model with the rate of the small one, in μP and in SP, and with its own."""
    small = rate(sweep.summary.of(Parametrization.MUP)[0])
    large = rate(sweep.summary.of(Parametrization.SP)[-1])
    conversion = mufx.convert(source.build, source.inputs(2)[0], source.base, source.target)

    def converted(lr: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = conversion.module(seed=SEED)
        groups = mufx.param_groups(model, conversion.manifest, lr=lr)
        return model, torch.optim.AdamW(groups, fused=True)

    def plain(lr: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(SEED)
        model = source.build(**source.target)
        return model, torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0, fused=True)

    ways = [
        ("μP, tuned small", converted, small),
        ("SP, tuned small", plain, small),
        ("SP, tuned large", plain, large),
    ]
    return [Run(what, lr, trained(experiment, *make(lr))) for what, make, lr in ways]


def rate(optimum: Optimum) -> float:
    return float(optimum.values["lr"])


def trained(experiment: Experiment, model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """The loss that the large model ends with."""
    data = load_data(experiment.request().data or "")
    torch.manual_seed(SEED)
    given = batches(data, experiment.batch, experiment.steps, torch.device("cpu"))
    loss_of = Loss(arguments(experiment), data.place)
    return train(model, optimizer, Schedule(experiment.steps), loss_of, given).loss


def arguments(experiment: Experiment) -> int:
    """How many arguments forward takes; a batch of one more ends with the target."""
    return 2 if experiment.data == "windows" else 1


# -- what is written ----------------------------------------------------------------------------


def write(name: str, sweep: Sweep, runs: list[Run]) -> None:
    """The figure and the numbers of one experiment, and its part of docs/transfer.md."""
    plot.draw(sweep.summary, sweep.width_knob, sweep.caption, DOCS / "figures", f"sweep-{name}")
    document = {
        "large": [{"what": run.what, "lr": run.lr, "loss": run.loss} for run in runs],
        "seed of the large runs": SEED,
        "sweep": sweep.document(),
    }
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    (DOCS / "figures" / f"sweep-{name}.json").write_text(text, encoding="utf-8")
    page = DOCS / "transfer.md"
    page.write_text(replaced(page.read_text(encoding="utf-8"), name, table(name, sweep, runs)))


def replaced(page: str, name: str, text: str) -> str:
    """The page with another text between the marks of an experiment."""
    before, begin, rest = page.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    return f"{before}{begin}\n{text}\n{end}{after}"


def table(name: str, sweep: Sweep, runs: list[Run]) -> str:
    """What an experiment found, in Markdown."""
    summary, knob = sweep.summary, sweep.width_knob
    lines = [
        f"![Loss against learning rate](figures/sweep-{name}.png)",
        "",
        f"{sweep.caption}.",
        "",
    ]
    widths = [str(optimum.width) for optimum in summary.of(Parametrization.SP)]
    lines += row(f"best lr at {knob}", *widths), row(*["---"] * (len(widths) + 1))
    for parametrization, shown_name in ((Parametrization.SP, "SP"), (Parametrization.MUP, "μP")):
        lines.append(row(shown_name, *map(best, summary.of(parametrization))))
    shared = summary.shared
    if shared is not None:
        held = (f"{loss:.4f}" for loss in shared.losses.values())
        lines.append(row("μP's loss at the narrowest one's best lr", *held))
    if runs:
        lines += ["", row(f"{knob}={widths[-1]}", "lr", "loss"), row("---", "---", "---")]
    lines += [row(run.what, shown(run.lr), f"{run.loss:.4f}") for run in runs]
    return "\n".join(["", *lines, ""])


def best(optimum: Optimum) -> str:
    return shown(rate(optimum)) + " (end of the grid)" * optimum.edge


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
