"""The demo: train both panels on small data, sample, fill in, evaluate, and write a report.

    python -m examples.demo --out runs/demo [--procs 2] [--size tiny]

Every step is the command `diptych` in a process of its own, and none is done twice: an interrupted
demo goes on where it stopped. The size `tiny` takes every step in a minute and claims no goal.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.exhibit import write_numbers, write_picture
from examples.goals import Measured, goals
from examples.steps import StepFailed, Steps, Task
from shared.drawing import draw
from shared.errors import DiptychError
from shared.exhibits import read_json
from shared.learner import DiffusionLearner
from shared.provenance import provenance
from shared.report import Check, summary, write_report
from shared.runs import load_learner
from shared.sampling import Sampling

GIVEN = "there is a small red [MASK] on the [MASK] side ."


@dataclass(frozen=True)
class Job:
    """One run of the demo: what it trains, and how it is sampled and measured."""

    config: str
    title: str
    about: str
    how: Sampling
    sample: tuple[str, ...]

    @property
    def panel(self) -> str:
        """The panel it belongs to."""
        return self.config.split("/")[0]


@dataclass(frozen=True)
class Size:
    """Overrides of all runs, further ones by panel, solver steps if not the job's own, and how
    many samples are measured."""

    train: tuple[str, ...] = ()
    panel: tuple[tuple[str, str], ...] = ()
    steps: int | None = None
    measured: int = 256


CLASSES = ("-n", "50", "--class", "all", "--trajectory")
JOBS = {
    "digits": Job(
        "image/digits",
        "digits in pixels",
        "A transformer learns to remove noise from 8 x 8 scans of handwritten digits.",
        Sampling(solver="dpmpp_2m", steps=20, guidance=1.25),
        CLASSES,
    ),
    "digits_bits": Job(
        "image/digits_bits",
        "digits in bits",
        "The same digits with each grey level written in bits: the bits are denoised.",
        Sampling(solver="dpmpp_2m", steps=20, guidance=1.5),
        CLASSES,
    ),
    "scene": Job(
        "text/scene",
        "sentences about scenes",
        "The same core on words: each is a learned vector, and noise is removed from vectors.",
        # without td one sentence in ten has two words where one belongs
        Sampling(solver="ancestral", steps=128, td=1.25),
        ("-n", "64", "--trajectory"),
    ),
}
SIZES = {
    "small": Size(),
    "tiny": Size(
        train=(
            *("train.steps=20", "train.batch=16", "train.log_every=2"),
            *("net.dim=32", "net.depth=1"),
            *("judge.train.steps=20", "judge.train.batch=16"),
        ),
        panel=(("text", "data.limit=500"),),
        steps=6,
        measured=24,
    ),
}
INTRO = (
    "One diffusion core, two panels. A diffusion model learns to remove noise from data; to draw a "
    "sample, it starts from noise alone and removes a little at a time. The runs below share "
    "schedules, solvers, network and trainer, and differ only in how data become numbers and back.",
    "Sample i has a seed of its own, so it is the same alone or in a batch. Measures of samples "
    "stand beside the same measures of real data that no model has seen in training.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns its exit code, which is that of a step that failed."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=description)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where all of it goes")
    parser.add_argument("--procs", type=int, default=1, help="processes that train together")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    options = parser.parse_args(arguments)
    if options.procs < 1:
        parser.error(f"--procs {options.procs}: expected 1 or more")
    try:
        Demo(options.out, options.procs, options.size).run()
    except StepFailed as failed:
        print(f"demo: {failed}", file=sys.stderr)
        return failed.code
    except DiptychError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("demo: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


class Demo:
    """Four phases. The runs lie in OUT/SIZE, or OUT/SIZE-N on N processes; the page in OUT."""

    def __init__(self, out: Path, procs: int, size: str) -> None:
        self.out, self.procs, self.size, self.settings = out, procs, size, SIZES[size]
        self.folder = out / (size if procs == 1 else f"{size}-{procs}")
        self.console = Console(highlight=False)
        self.steps = Steps(self.folder, self.console)

    def run(self) -> None:
        """StepFailed when a step does not end well."""
        self._phase(1, "training", "\n".join(f"{job.title}: {job.about}" for job in JOBS.values()))
        self._in_lanes(self._train)
        self._phase(2, "samples", f"Digits of every class, sentences, and one to fill in: {GIVEN}")
        self._in_lanes(self._sample)
        seconds = self.steps.seconds()
        judges = "Judges trained on the real data measure new samples; they are kept for next time."
        self._phase(3, "evaluation", judges)
        self._in_lanes(self._evaluate)
        self._phase(4, "goals and report", "What was measured, beside what was aimed at.")
        checks = goals(self._measured(seconds), claimed=self.size == "small")
        self._show(checks)
        runs = [self.folder / name for name in JOBS]
        write_report(runs, self.out / "report.html", "Diptych", INTRO, checks)
        samples = {name: self.folder / name / "samples" for name in JOBS}
        write_picture(samples["digits"], samples["scene"], self.out / "demo.png")
        write_numbers(checks, self._about(), self._command, self.out / "demo.md")
        self._close(checks, seconds)

    def _in_lanes(self, tasks: Callable[[str, Job], list[Task]]) -> None:
        """The tasks of all jobs, on one process the two panels side by side."""
        by_panel: dict[str, list[Task]] = {}
        for name, job in JOBS.items():
            by_panel.setdefault(job.panel, []).extend(tasks(name, job))
        lanes = list(by_panel.values())
        if self.procs > 1:  # the processes of one run take the cores
            lanes = [list(chain(*lanes))]
        self.steps.run(*lanes)

    def _train(self, name: str, job: Job) -> list[Task]:
        own = [value for panel, value in self.settings.panel if panel == job.panel]
        words = ["train", job.config, f"run={self.folder / name}", *self.settings.train, *own]
        return [Task(f"train {name}", words, self.folder / name / "checkpoints", self.procs)]

    def _sample(self, name: str, job: Job) -> list[Task]:
        words = ["sample", str(self.folder / name), *self._sampler(job)]
        makes = self.folder / name / "samples" / "samples.json"
        tasks = [Task(f"sample {name}", [*words, *job.sample], makes)]
        if job.panel == "text":
            given = ["-n", "8", "--given", GIVEN, "--out", str(self._infilled.parent)]
            tasks.append(Task(f"fill in {name}", [*words, *given], self._infilled))
        return tasks

    def _evaluate(self, name: str, job: Job) -> list[Task]:
        words = ["evaluate", str(self.folder / name), "-n", str(self.settings.measured)]
        makes = self.folder / name / "evaluation.json"
        return [Task(f"evaluate {name}", [*words, *self._sampler(job)], makes)]

    def _sampler(self, job: Job) -> list[str]:
        how = self._how(job)
        words = [("solver", how.solver), ("steps", how.steps), ("td", how.td)]
        words += [("guidance", how.guidance)]
        return [word for name, value in words for word in (f"--{name}", str(value))]

    def _how(self, job: Job) -> Sampling:
        return replace(job.how, steps=self.settings.steps or job.how.steps)

    @property
    def _command(self) -> str:
        """What makes the same files."""
        return f"make demo SIZE={self.size} PROCS={self.procs}"

    def _about(self) -> dict[str, str]:
        """What the numbers hold for. A classifier of ours gives the features: this is no FID."""
        return {
            "samples of each run": f"{self.settings.measured}, seeds from 0; training seed 0",
            "features and judges": "networks of the suite, trained on the training split",
            "processes": "one a panel, side by side, of one thread each"
            if self.procs == 1
            else f"{self.procs} a run",
        } | provenance()

    @property
    def _infilled(self) -> Path:
        return self.folder / "scene" / "samples" / "filled-in" / "samples.json"

    def _measured(self, seconds: float) -> Measured:
        of = {name: read_json(self.folder / name / "evaluation.json") for name in JOBS}
        learners = {name: load_learner(self.folder / name) for name in JOBS}
        return Measured(
            images={job.title: of[name] for name, job in JOBS.items() if job.panel == "image"},
            texts={job.title: of[name] for name, job in JOBS.items() if job.panel == "text"},
            given=GIVEN,
            infilled=read_json(self._infilled)["texts"],
            text_parameters=sum(p.numel() for p in learners["scene"].parameters()),
            difference=max(
                batch_difference(learners[name], self._how(job)) for name, job in JOBS.items()
            ),
            seconds=seconds,
            peak_bytes=self.steps.peak_bytes,
        )

    def _phase(self, number: int, title: str, about: str) -> None:
        self.console.print()
        self.console.rule(f"[bold]{number}/4[/bold]  {title}", align="left", style="dim")
        self.console.print(about, style="dim", markup=False)

    def _show(self, checks: Sequence[Check]) -> None:
        table = Table("", "value", "goal", "", box=None, pad_edge=False)
        marks = {True: "[green]met", False: "[bold red]not met", None: ""}
        for subject, group in groupby(checks, lambda check: check.subject):
            table.add_row(f"[bold]{subject}")
            for check in group:
                table.add_row(f"  {check.what}", check.value, check.goal, marks[check.met])
        self.console.print(table)

    def _close(self, checks: Sequence[Check], seconds: float) -> None:
        missed = sum(check.met is False for check in checks)
        told = f"Goals: {summary(checks)}"
        if self.size != "small":
            told += f"; size {self.size} is too short to learn and claims no other"
        peak = self.steps.peak_bytes / 2**30
        self.console.print(f"\n{told}.", style="bold red" if missed else "green")
        self.console.print(
            f"Training and sampling took {seconds:.0f} s, with evaluation "
            f"{self.steps.seconds():.0f} s; the largest process had {peak:.2f} GiB."
        )
        self.console.print(f"Report: {(self.out / 'report.html').resolve()}", soft_wrap=True)


def batch_difference(learner: object, how: Sampling) -> float:
    """The largest difference of a latent drawn alone from the same drawn among 64, in float32."""
    assert isinstance(learner, DiffusionLearner)
    learner.denoiser.autocast = None  # products in bfloat16 depend on the shape of a batch
    seeds = range(64)
    together = draw(learner, seeds, how, progress=False)
    alone = [draw(learner, [seed], how, progress=False)[0] for seed in (0, 37)]
    return max(float((together[i] - x).abs().max()) for i, x in zip((0, 37), alone, strict=True))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
