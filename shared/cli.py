"""The command `diptych`: the same verbs for every panel.

Exit codes: 0 done, 2 usage or configuration, 3 bad data or checkpoint, 4 non-finite training,
75 preempted and saved (the same command goes on).
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from shared.configs import load_config, packaged_configs
from shared.edits import EditRequest
from shared.errors import ConfigError, DiptychError
from shared.files import write_text
from shared.ranks import on_rank_zero, refuse_many, together
from shared.requests import (
    ControlRequest,
    EvaluateRequest,
    ExportRequest,
    PairRequest,
    SampleRequest,
    WriteRequest,
)
from shared.runs import find_panel, open_run, panel_names, panel_of
from shared.schedule import SCHEDULES
from shared.schema import one_of
from shared.telling import tell
from shared.train import checkpoint
from shared.train.progress import read_log

Config = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG")]
Assignments = Annotated[
    tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[KEY=VALUE ...]")
]
RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
RunFolders = Annotated[
    tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")
]
Json = Annotated[bool, tyro.conf.arg(help="Print the result as one JSON object on stdout.")]


def train(
    config: Config, assignments: Assignments = (), /, quiet: bool = False, json: Json = False
) -> None:
    """Train CONFIG, or go on with it where it stopped.

    Args:
        config: A packaged configuration such as image/digits, or a YAML file.
        assignments: key=value overrides such as train.steps=200; run=FOLDER says where (default
            runs/NAME). `diptych data` lists configurations and data sets.
        quiet: No progress.
    """
    from shared.train.loop import train as run_training

    name, panel, values, run = load_config(config, assignments)
    result = run_training(values, run or Path("runs") / name, panel, quiet=quiet)
    tell(result, json, f"{result['run']}: step {result['step']}, loss {result['loss']:.4f}")


def sample(
    run: RunFolder,
    /,
    request: tyro.conf.OmitArgPrefixes[SampleRequest],
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Sample from RUN; files go to RUN/samples or --out.

    Args:
        run: The folder that `diptych train` wrote, or a pipeline of diffusers saved to a folder.
        out: Where to write instead.
    """
    result = together(lambda: panel_of(run).sample(run, request, out or run / "samples"))
    tell(result, json)


def edit(
    run: RunFolder,
    /,
    request: tyro.conf.OmitArgPrefixes[EditRequest],
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Draw with RUN from a given picture; files go to RUN/edited or --out.

    Args:
        run: The folder that `diptych train` wrote, or a pipeline of diffusers saved to a folder.
        out: Where to write instead.
    """
    refuse_many("edit")
    tell(panel_of(run).edit(run, request, out or run / "edited"), json)


def export(
    run: RunFolder,
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
    /,
    request: tyro.conf.OmitArgPrefixes[ExportRequest],
    json: Json = False,
) -> None:
    """Write RUN as a folder DIR that `diffusers.DiffusionPipeline.from_pretrained` loads.

    Args:
        run: The folder that `diptych train` wrote, or a pipeline of diffusers saved to a folder.
        out: The folder to make.
    """
    refuse_many("export")
    result = panel_of(run).export(run, request, out)
    tell(result, json, f"{out}: a {result['pipeline']}")


def control(
    run: RunFolder,
    controls: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=VALUE ...]")
    ] = (),
    /,
    *,
    request: tyro.conf.OmitArgPrefixes[ControlRequest],
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Sample from RUN what satisfies all of these controls; files go to RUN/controlled or --out.

    Args:
        run: The folder that `diptych train` wrote.
        controls: What must hold, all of it, by the names that RUN's panel has for it (docs/text.md
            lists those of text; an unknown name is answered with all that there are).
        out: Where to write instead.
    """
    refuse_many("control")
    found = open_run(run)
    result = found.panel.control(run, controls, request, out or run / "controlled")
    tell(result, json)


def write(
    run: RunFolder,
    /,
    request: tyro.conf.OmitArgPrefixes[WriteRequest],
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Write with RUN what a message, a tone and an audience ask for; files go to RUN/written or
    --out.

    Args:
        run: The folder that `diptych train` wrote.
        out: Where to write instead.
    """
    refuse_many("write")
    found = open_run(run)
    result = found.panel.write(run, request, out or run / "written")
    tell(result, json)


def evaluate(
    run: RunFolder,
    /,
    request: tyro.conf.OmitArgPrefixes[EvaluateRequest],
    json: Json = False,
) -> None:
    """Measure RUN and write RUN/evaluation.json, or with --frontier RUN/frontier.json and .png.

    Args:
        run: The folder that `diptych train` wrote.
    """
    if request.frontier is not None:
        result = together(lambda: open_run(run).panel.frontier(run, request))
        return tell(result, json, f"{run / 'frontier.json'}, {run / 'frontier.png'}")
    result = together(lambda: _evaluation(run, request))
    tell(result, json)


def _evaluation(run: Path, request: EvaluateRequest) -> dict[str, Any]:
    """What is measured, written too."""
    result = open_run(run).panel.evaluate(run, request)
    on_rank_zero(lambda: write_text(run / "evaluation.json", json.dumps(result, indent=2)))
    return result


def status(run: RunFolder, /, json: Json = False) -> None:
    """How far RUN is and whether its checkpoints are intact."""
    found = open_run(run)
    rows = read_log(run / "log.jsonl")
    newest = checkpoint.newest(run)
    result: dict[str, Any] = {
        "run": str(run),
        "panel": found.panel.name,
        "steps": found.config.train.steps,
        "checkpoint": newest[1] if newest else None,
        "logged": rows[-1] if rows else None,
    }
    tell(result, json)


def report(
    runs: RunFolders,
    /,
    out: Path = Path("report.html"),
    title: str = "Diptych report",
    json: Json = False,
) -> None:
    """Write one page about RUNs: curves, samples, measures, all in a single HTML file.

    Args:
        runs: Folders that `diptych train` wrote.
        out: The page to write.
        title: Its heading.
    """
    from shared.report import write_report

    result = write_report(runs, out, title)
    tell(result, json, f"{out}: {len(runs)} run{'' if len(runs) == 1 else 's'}")


def schedule(
    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME ...]")
    ] = (),
    /,
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Draw noise schedules over time: logsnr, alpha and sigma, on one figure.

    Args:
        names: Schedules as `diffusion.schedule` names them, such as cosine or edm, each with the
            numbers of its paper (default: all there are).
        out: The figure to write (default schedules.png; with --json none unless given).
    """
    from shared.schedule_plot import plot_schedules, schedule_table

    try:
        for name in names:
            one_of("schedule", name, list(SCHEDULES))
        table = schedule_table(names or list(SCHEDULES))
        path = out or (None if json else Path("schedules.png"))
        if path is not None:
            plot_schedules(table, path)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    tell(table, json, f"{path}: {', '.join(table)}")


def data(
    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[scene")] = None,
    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="DIR]")] = None,
    /,
    *,
    request: tyro.conf.OmitArgPrefixes[PairRequest],
    json: Json = False,
) -> None:
    """List the embedded data sets and the packaged configurations; or write the scene world into a
    new folder DIR, as pictures and the sentences that tell them.

    Args:
        name: The data set to write: scene.
        folder: Where to write it.
    """
    if name is not None:
        if name != "scene" or folder is None:
            raise ConfigError(f"data {name}: expected diptych data scene DIR, which writes scenes")
        from shared.pairs import write_pairs

        result = write_pairs(folder, request)
        return tell(result, json, f"{folder}: {request.n:,} scenes, {', '.join(result['columns'])}")
    result: dict[str, dict[str, Any]] = {
        name: {"datasets": find_panel(name).datasets(), "configs": packaged_configs(name)}
        for name in panel_names()
    }
    if json:
        return tell(result, json)
    for name, parts in result.items():
        table = Table("data set", "what it holds", title=f"{name} panel", title_justify="left")
        for row in parts["datasets"].items():
            table.add_row(*row)
        Console().print(table)
        Console().print(f"configurations: {', '.join(parts['configs'])}\n")


VERBS = {
    "train": train,
    "sample": sample,
    "edit": edit,
    "control": control,
    "write": write,
    "evaluate": evaluate,
    "export": export,
    "report": report,
    "status": status,
    "schedule": schedule,
    "data": data,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    return run_verbs(VERBS, "diptych", __doc__ or "", arguments)


def run_verbs(
    verbs: dict[str, Callable[..., None]],
    prog: str,
    description: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """Run one of these verbs, as the arguments (default: the process's own) say; returns the exit
    code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    given = [a for a in given if not a.startswith("--local_rank")]  # deepspeed's launcher adds it
    run = partial(
        tyro.extras.subcommand_cli_from_dict,
        verbs,
        prog=prog,
        description=description,
        args=given,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return exit_code(prog, run)


def exit_code(prog: str, run: Callable[[], int | None]) -> int:
    """The exit code that `run` gives, 0 where it gives none; its errors are told on stderr, in one
    line, and have their own."""
    try:
        return run() or 0
    except DiptychError as error:
        who = os.environ.get("RANK", "0")
        print(f"{prog}{'' if who == '0' else f' (rank {who})'}: {error}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
