"""The command `experiments`: `list`, `run`, `report`, `compare` and `check`.

Owns flags, progress and exit codes. Exit codes: 0 when everything held, 1 when a
run failed or a promise was broken, 2 for what the user has to change first, 130
after Ctrl-C (finished replicates are kept; `--resume` goes on).
"""

from __future__ import annotations

import argparse
import datetime
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from experiments import chaos, manifest, presets, summary
from experiments.errors import BadRun, BadScenario, ExperimentError, Unlike
from experiments.folder import Kept, RunFolder
from experiments.publish import publish
from experiments.runner import Runner, Step
from experiments.scenario_file import points, quick
from netem.errors import NetemError

EXIT_FAILED: Final = 1
EXIT_USER: Final = 2
HOURS_MAX: Final = 24 * 30


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; `docs/commands.md` is held against it."""
    parser = argparse.ArgumentParser(
        prog="experiments",
        description="Measure what loss, delay and failures do to the service.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="show the presets and how long each takes")
    listing.set_defaults(run=_list)
    _add_run(commands.add_parser("run", help="run a preset or a scenario file"))
    _add_report(commands.add_parser("report", help="write summary, plots and report again"))
    _add_compare(commands.add_parser("compare", help="the ratio of two runs, with a verdict"))
    _add_check(commands.add_parser("check", help="random faults, and the history checker"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    options = build_parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    # So that a polite end takes the cluster along as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command: Callable[[argparse.Namespace], int] = options.run
    try:
        return command(options)
    except (BadScenario, BadRun, Unlike) as error:
        sys.stderr.write(f"experiments: {error}\n")
        return EXIT_USER
    except (ExperimentError, NetemError) as error:
        sys.stderr.write(f"experiments: FAILED: {error}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write("experiments: interrupted; what was finished is kept\n")
        return 128 + signal.SIGINT


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("scenario", metavar="NAME|FILE.toml", help="a preset (`experiments list`) or a file")
    add("--out", type=Path, metavar="DIR", help="the run's folder (runs/NAME-TIME)")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--quick", action="store_true", help="few images and replicates: does it work?")
    add("--seed", type=int, metavar="N", help="instead of the scenario's")
    parser.set_defaults(run=_run)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run's folder")
    parser.set_defaults(run=_report)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="a run's folder: what B is divided by")
    add("b", type=Path, metavar="B", help="another run's folder")
    add("--metric", help="instead of the scenario's")
    add(
        "--although",
        action="append",
        default=[],
        metavar="FIELD",
        help="what differs on purpose, as cluster.workers; may be repeated",
    )
    parser.set_defaults(run=_compare)


def _add_check(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seconds", type=float, default=120.0, metavar="S", help="how long (120)")
    add("--hours", type=float, metavar="H", help="how long, in hours")
    add("--seed", type=int, default=1, metavar="N", help="of faults and images (1)")
    add("--out", type=Path, metavar="DIR", help="the run's folder (runs/check-TIME)")
    parser.set_defaults(run=_check)


def _list(options: argparse.Namespace) -> int:
    del options
    names = presets.names()
    # A name is to be typed: it is shown whole, however narrow the screen.
    whole = [Column(name, no_wrap=True) for name in ("runs", "took", "at most", "on")]
    preset = Column("preset", no_wrap=True, min_width=max(map(len, names)))
    table = Table(preset, *whole, "what", box=None)
    for name in names:
        one = presets.listed(name)
        took = "?" if one.measured_s is None else f"{one.measured_s / 60:.0f} min"
        longest = f"{one.longest_s / 60:.0f} min"
        place = "lab" if one.needs_lab else "loopback"
        table.add_row(name, f"{one.points} × {one.replicates}", took, longest, place, one.title)
    Console().print(table)
    return 0


def _run(options: argparse.Namespace) -> int:
    table = presets.load(options.scenario)
    if options.quick:
        table = quick(table)
    scenario = points(table)[0].scenario
    folder = RunFolder(_out(options.out, scenario.name))
    if not options.resume:
        seed = scenario.seed if options.seed is None else options.seed
        command = "experiments run " + " ".join(
            [options.scenario, *(["--quick"] if options.quick else []), "--seed", str(seed)]
        )
        made = manifest.make(
            table, quick=options.quick, seed=seed, now=_now().isoformat(), command=command
        )
        folder.create(made)
    elif options.out is None:
        raise BadRun("--resume needs the folder: give --out DIR")
    return _carry_out(folder)


def _carry_out(folder: RunFolder) -> int:
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
        console=console,
    ) as progress:
        task = progress.add_task("starting", total=None, eta="")

        def on_step(step: Step) -> None:
            eta = f"about {step.eta_s / 60:.1f} min left" if step.eta_s is not None else ""
            place = f"{step.place.point}, replicate {step.place.replicate}"
            text = f"{place}: {step.ended_images} images"
            progress.update(task, description=text, completed=step.done, total=step.total, eta=eta)

        try:
            Runner(folder, on_step).run()
        finally:
            if folder.finished():
                path = publish(folder)
                console.print(f"report: {path}", highlight=False)
    _show(folder)
    return 0


def _show(folder: RunFolder) -> None:
    """The scenario's own metric at every point."""
    made, kept = folder.manifest(), folder.replicates()
    swept = points(made.scenario)
    metric = swept[0].scenario.metric
    table = Table("point", metric, "95 % interval", "replicates", "lost images", box=None)
    for point in swept:
        at = summary.of_point(kept, point.label, metric, made.seed)
        lost = sum(one.metric("lost_images") for one in kept if one.point == point.label)
        interval = f"{at.low:.4g} – {at.high:.4g}"
        table.add_row(point.label, f"{at.mean:.4g}", interval, str(at.n), f"{lost:.0f}")
    Console().print(table)


def _report(options: argparse.Namespace) -> int:
    print(publish(RunFolder(options.folder)))
    return 0


def _compare(options: argparse.Namespace) -> int:
    a, b = RunFolder(options.a), RunFolder(options.b)
    mine, theirs = a.manifest(), b.manifest()
    manifest.check_alike(mine, theirs, frozenset(options.although))
    swept = points(mine.scenario)
    metric = options.metric or swept[0].scenario.metric
    labels = [point.label for point in swept]
    ours, others = a.replicates(), b.replicates()
    ratios = summary.compare(ours, others, labels, metric, mine.seed)
    columns = (f"A: {metric}", "B", "B / A", "95 % interval", "pairs", "verdict")
    table = Table("point", *columns, box=None)
    for label, found in ratios.items():
        each = [summary.of_point(kept, label, metric, mine.seed) for kept in (ours, others)]
        shown = [f"{at.mean:.4g} ({at.low:.4g} – {at.high:.4g})" for at in each]
        interval = f"{found.low:.3g} – {found.high:.3g}"
        table.add_row(label, *shown, f"{found.ratio:.3g}", interval, str(found.n), found.verdict)
    Console().print(table)
    print(_schedules(ours, others))
    return 0


def _schedules(a: Sequence[Kept], b: Sequence[Kept]) -> str:
    """Whether the same faults and arrivals were drawn for both."""
    mine = {(one.point, one.replicate): one.schedule for one in a}
    theirs = {(one.point, one.replicate): one.schedule for one in b}
    both = mine.keys() & theirs.keys()
    same = sum(bool(mine[place]) and mine[place] == theirs[place] for place in both)
    return f"schedules of faults and arrivals: {same} of {len(both)} replicates have the same"


def _check(options: argparse.Namespace) -> int:
    seconds = options.hours * 3600.0 if options.hours is not None else options.seconds
    table = chaos.table(seconds, options.seed)
    folder = RunFolder(_out(options.out, "check"))
    command = f"experiments check --seconds {seconds:g} --seed {options.seed}"
    made = manifest.make(
        table, quick=False, seed=options.seed, now=_now().isoformat(), command=command
    )
    folder.create(made)
    _carry_out(folder)
    jobs = sum(one.metric("images") for one in folder.replicates())
    faults = sum(one.metric("faults") for one in folder.replicates())
    print(f"check: {jobs:.0f} jobs under {faults:.0f} faults, history: no violation")
    return 0


def _out(given: Path | None, name: str) -> Path:
    return given if given is not None else Path("runs") / f"{name}-{_now():%Y%m%d-%H%M%S}"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
