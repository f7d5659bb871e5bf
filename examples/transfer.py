"""μTransfer from end to end: tune small, convert, train large once, and see what that is worth.

python examples/transfer.py gpt

sweeps the learning rate at every width, takes the optimum of the smallest model, and trains the
largest one with it: converted by mufx, and as it is. Beside them, the largest one as it is with a
rate that was tuned for it. The seeds of these runs are none of the sweep's. Every batch is new
text, so the training loss is that on text not seen before.

Where more than the rate is tuned, that is done at the two narrowest widths first, in μP, and the
sweep takes what came out best at the narrowest.

Trials are kept in out/transfer: more workers may be started with the same command, and what was
interrupted goes on. Figures and results go to docs/figures, the tables into docs/transfer.md;
--redraw makes them again from the results that are there, and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mufx
from mufx.factory import place_of
from mufx.sweep import plot, text
from mufx.sweep.preparing import Request
from mufx.sweep.reading import read
from mufx.sweep.settings import Parametrization
from mufx.sweep.study import Result
from mufx.sweep.summary import Optimum
from mufx.sweep.sweeping import Sweep, Worker
from mufx.sweep.values import shown, written
from mufx.sweep.widths import widths_of

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
TRIALS = Path("out/transfer")
SEEDS = (100, 101, 102)  # of the large runs
END_OF_GRID = " (end of the grid)"
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
    confirm: int  # seeds at the rate that μP's widths share: they decide whether wider is worse
    tune: str = ""  # what is tuned with the rate before
    parametrizations: tuple[Parametrization, ...] = tuple(Parametrization)

    def request(self, name: str) -> Request:
        return Request(
            spec=str(HERE / self.model),
            over=(self.over,),
            data=f"{HERE / 'text.py'}:{self.data}",
            steps=self.steps,
            batch=self.batch,
            seeds=self.seeds,
            confirm=self.confirm,
            study=str(TRIALS / f"{name}.db"),
            parametrizations=self.parametrizations,
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
        confirm=5,
    ),
    "gpt": Experiment(
        model="gpt.py",
        data="windows",
        base={"n_embd": 64, "n_head": 2, "n_layer": 2, "block_size": 32},
        target={"n_embd": 1024, "n_head": 32, "n_layer": 2, "block_size": 32},
        over="lr=2^-15:2^-8",
        steps=80,
        batch=8,
        seeds=2,
        confirm=5,
    ),
    "gpt-init": Experiment(
        model="gpt.py",
        data="windows",
        base={"n_embd": 64, "n_head": 2, "n_layer": 2, "block_size": 32},
        target={"n_embd": 1024, "n_head": 32, "n_layer": 2, "block_size": 32},
        over="lr=2^-15:2^-7",
        steps=80,
        batch=8,
        seeds=2,
        confirm=20,
        tune="init_std=0.02,0.04,0.08,0.16",
    ),
    "encoder": Experiment(
        model="encoder.py",
        data="masked",
        base={"d_model": 64, "nhead": 2, "dim_feedforward": 128},
        target={"d_model": 256, "nhead": 8, "dim_feedforward": 512},
        over="lr=2^-13:2^-6",
        steps=60,
        batch=8,
        seeds=2,
        confirm=5,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Tunes small and trains large.")
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, help="seeds of the sweep, instead of the usual ones")
    parser.add_argument("--sweep-only", action="store_true", help="train no large model after it")
    parser.add_argument("--redraw", action="store_true", help="only draw what was found before")
    options = parser.parse_args()
    if options.redraw:
        redraw(options.experiment)
        return
    experiment = EXPERIMENTS[options.experiment]
    if options.seeds is not None:
        experiment = replace(experiment, seeds=options.seeds)
    TRIALS.mkdir(parents=True, exist_ok=True)
    source = mufx.load(str(HERE / experiment.model), experiment.base, experiment.target)
    request = experiment.request(options.experiment)
    tuning = tuned(options.experiment, experiment, source) if experiment.tune else None
    if tuning is not None:
        request = replace(request, fixed=beside_the_rate(tuning))
    worker = Worker.of(request, source)
    sweep = worker.sweep(progress)
    runs = [] if options.sweep_only else compared(worker, sweep)
    write(options.experiment, sweep, runs, tuning)


def progress(result: Result, done: int, total: int) -> None:
    point = result.point
    line = f"{point.parametrization} {point.width} seed {point.seed}, {written(result.values)}"
    print(f"{done}/{total} {line}: {result.loss:.4f}", file=sys.stderr)


# -- more than the rate -------------------------------------------------------------------------


def tuned(name: str, experiment: Experiment, source: mufx.Source) -> Sweep:
    """The rate and something else, in μP, at the base and one width more."""
    base = min(widths_of(source, None, place_of(source.build)))
    narrow = replace(
        experiment.request(f"{name}-tune"),
        over=(experiment.over, experiment.tune),
        widths=f"{base},{2 * base}",
        confirm=0,
        parametrizations=(Parametrization.MUP,),
    )
    return Worker.of(narrow, source).sweep(progress)


def beside_the_rate(tuning: Sweep) -> str:
    """What the narrowest width wants, as an option: `init_std=0.08`."""
    values = tuning.summary.of(Parametrization.MUP)[0].values
    return ",".join(f"{name}={value}" for name, value in values.items() if name != "lr")


def tuning_table(tuning: Sweep) -> list[str]:
    """The lowest loss at every value of what was tuned beside the rate."""
    (other,) = (h for h in tuning.plan.over if h.name != "lr")
    curves = [samples for _, samples in tuning.summary.curves.items()]
    widths = [f"{tuning.width_knob}={width}" for _, width in tuning.summary.curves]
    lines = [row(f"lowest loss with {other.name}", *widths), row(*["---"] * (len(widths) + 1))]
    for value in other.values:
        held = [[s for s in samples if s.values[other.name] == value] for samples in curves]
        lowest = [min(samples, key=lambda sample: sample.mean) for samples in held]
        cells = (f"{s.mean:.4f} at lr {shown(float(s.values['lr']))}" for s in lowest)
        lines.append(row(str(value), *cells))
    return [*lines, ""]


# -- the large model ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """The large model, trained in one way: the rate, and a loss for each seed, inf if diverged."""

    what: str
    lr: float
    losses: tuple[float, ...]


def compared(worker: Worker, sweep: Sweep) -> list[Run]:
    """The large model with the rate of the small one, in μP and in SP, and with its own.

    The runs are points of the same study.
    """
    small = sweep.summary.of(Parametrization.MUP)[0]
    ways = [("μP, tuned small", Parametrization.MUP, small)]
    for large in sweep.summary.of(Parametrization.SP)[-1:]:
        ways.append(("SP, tuned small", Parametrization.SP, small))
        ways.append(("SP, tuned large", Parametrization.SP, large))
    return [
        Run(what, rate(tuned), trained(worker, parametrization, tuned))
        for what, parametrization, tuned in ways
    ]


def rate(optimum: Optimum) -> float:
    return float(optimum.values["lr"])


def trained(worker: Worker, parametrization: Parametrization, tuned: Optimum) -> tuple[float, ...]:
    """The losses that the large model ends with, one for each seed."""
    plan = replace(worker.plan, widths=worker.plan.widths[-1:])
    runs = worker.work(plan.at(tuned.values, SEEDS, parametrization), progress)
    return tuple(run.loss for run in runs)


# -- what is written ----------------------------------------------------------------------------


def write(name: str, sweep: Sweep, runs: list[Run], tuning: Sweep | None) -> None:
    """The figure and the numbers of one experiment, and its part of docs/transfer.md."""
    plot.draw(sweep.summary, sweep.width_knob, sweep.caption, DOCS / "figures", f"sweep-{name}")
    document = {
        "large": [asdict(run) for run in runs],
        "seeds of the large runs": list(SEEDS),
        "sweep": sweep.document(),
    }
    if tuning is not None:
        document["tuning"] = tuning.document()
    found = json.dumps(document, indent=1, sort_keys=True) + "\n"
    results(name).write_text(found, encoding="utf-8")
    page = DOCS / "transfer.md"
    part = replaced(page.read_text(encoding="utf-8"), name, table(name, sweep, runs, tuning))
    page.write_text(part, encoding="utf-8")


def redraw(name: str) -> None:
    """Writes an experiment again, from its results."""
    document = json.loads(results(name).read_text(encoding="utf-8"))
    runs = [Run(run["what"], run["lr"], tuple(run["losses"])) for run in document["large"]]
    tuning = read(document["tuning"]) if "tuning" in document else None
    write(name, read(document["sweep"]), runs, tuning)


def results(name: str) -> Path:
    return DOCS / "figures" / f"sweep-{name}.json"


def replaced(page: str, name: str, part: str) -> str:
    """The page with another text between the marks of an experiment."""
    before, begin, rest = page.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    return f"{before}{begin}\n{part}\n{end}{after}"


def table(name: str, sweep: Sweep, runs: list[Run], tuning: Sweep | None) -> str:
    """What an experiment found, in Markdown."""
    summary, knob = sweep.summary, sweep.width_knob
    lines = [
        *(tuning_table(tuning) if tuning is not None else ()),
        f"![Loss against learning rate](figures/sweep-{name}.png)",
        "",
        f"{sweep.caption}.",
        "",
    ]
    widths = [str(optimum.width) for optimum in summary.of(Parametrization.MUP)]
    lines += row(f"best lr at {knob}", *widths), row(*["---"] * (len(widths) + 1))
    for parametrization, shown_name in ((Parametrization.SP, "SP"), (Parametrization.MUP, "μP")):
        optima = summary.of(parametrization)
        lines += [row(shown_name, *map(best, optima))] if optima else []
    shared = summary.shared
    if shared is not None:
        held = (f"{loss:.4f}" for loss in shared.losses.values())
        lines.append(row("μP's loss at the narrowest one's best lr", *held))
        lines += [
            "",
            f"At that rate, {text.counted(shared.seeds)}: {'; '.join(text.compared(shared))}.",
        ]
    if runs:
        lines += [
            "",
            row(f"{knob}={widths[-1]}", "lr", f"loss ({text.counted(len(runs[0].losses))})"),
        ]
        lines.append(row("---", "---", "---"))
    ends = {"SP, tuned large": any(o.edge for o in summary.of(Parametrization.SP)[-1:])}
    for run in runs:
        lr = shown(run.lr) + END_OF_GRID * ends.get(run.what, False)
        lines.append(row(run.what, lr, text.averaged(run.losses)))
    return "\n".join(["", *lines, ""])


def best(optimum: Optimum) -> str:
    return shown(rate(optimum)) + END_OF_GRID * optimum.edge


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
