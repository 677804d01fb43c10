"""`worker train DIR`: the command line of training.

Imports torch only once there is something to train: `worker join --help` must
not wait for it. Exit codes: 0 done, 2 for what the user has to change first
(raised as `EnvironmentFault`), 130 stopped by a signal.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wire.errors import EnvironmentFault
from worker.train.settings import Augmentation, Settings, parse_phases

if TYPE_CHECKING:
    from worker.train.session import Order

Number = TypeVar("Number", int, float)
HELP = "train or fine-tune a classifier on a folder per class"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `train` to the commands of `worker`."""
    parser = commands.add_parser("train", help=HELP, description=HELP)
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare every flag; defaults are those of `Settings`."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="images, a folder per class")
    parser.add_argument(
        "--evaluate", type=Path, metavar="CARD", help="train nothing: judge this checkpoint on DIR"
    )
    _add_data(parser.add_argument_group("data"))
    _add_result(parser.add_argument_group("result"))
    _add_schedule(parser.add_argument_group("schedule"))
    _add_optimisation(parser.add_argument_group("optimisation"))
    _add_teacher(parser.add_argument_group("teacher"))
    _add_augmentation(parser.add_argument_group("augmentation"))
    _add_machine(parser.add_argument_group("machine"))


def run(args: argparse.Namespace) -> int:
    """Do what the flags say; a signal ends it with the last finished epoch stored.

    Raises:
        EnvironmentFault: for the caller to show.
    """
    from rich.console import Console

    from worker.train import session
    from worker.train.display import Display

    display = Display(Console(), time.monotonic)
    if args.evaluate is not None:
        session.evaluate(args.evaluate, args.directory, args.run_folder, display)
        return 0
    order = make_order(args)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        session.train(order, display)
    except KeyboardInterrupt:
        display.say(f"stopped; finished epochs lie in {order.run}, the same command goes on")
        return 128 + signal.SIGINT
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def make_order(args: argparse.Namespace) -> Order:
    """Turn flags into an order.

    Raises:
        EnvironmentFault: a flag is out of range.
    """
    from worker.train.session import Order

    settings = _settings(args)
    name = args.name or f"{settings.architecture}-{args.directory.resolve().name}"
    run_folder = args.run_folder or Path("runs") / name
    fields = {"licence": args.licence, "origin": args.origin, "bundled": args.bundled}
    return Order(
        directory=args.directory,
        val=args.val,
        test=args.test,
        run=run_folder,
        weights=args.weights,
        teacher=args.teacher,
        out=args.out or run_folder / name,
        half=not args.full_precision,
        card_fields=fields,
        settings=settings,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m worker.train`."""
    parser = argparse.ArgumentParser(prog="worker train", description=HELP)
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except EnvironmentFault as fault:
        print(f"worker train: {fault.reason}", file=sys.stderr)
        return 2


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        architecture=args.arch,
        phases=parse_phases(args.sizes),
        epochs=_within("--epochs", args.epochs, 1, 100_000),
        budget_s=_within("--minutes", args.minutes, 0, 1e6) * 60,
        batch_images=_within("--batch", args.batch, 2, 65_536),
        optimizer=args.optimizer,
        learning_rate=_within("--lr", args.lr, 0, 100),
        muon_rate=_within("--muon-lr", args.muon_lr, 0, 10),
        warmup=_within("--warmup", args.warmup, 0, 0.9),
        weight_decay=_within("--weight-decay", args.weight_decay, 0, 1),
        label_smoothing=_within("--label-smoothing", args.label_smoothing, 0, 0.9),
        ema_decay=_within("--ema-decay", args.ema_decay, 0, 0.99999),
        val_share=_within("--val-share", args.val_share, 0.001, 0.9),
        patience_epochs=_within("--patience", args.patience, 0, 100_000),
        seed=_within("--seed", args.seed, 0, 2**31),
        threads=_within("--threads", args.threads, 0, 1024),
        device=args.device,
        augmentation=_augmentation(args),
        teacher_weight=_within("--teacher-weight", args.teacher_weight, 0, 1),
        temperature=_within("--temperature", args.temperature, 0.1, 20),
    )


def _augmentation(args: argparse.Namespace) -> Augmentation:
    low, _, high = args.area.partition(":")
    try:
        area = (float(low), float(high))
    except ValueError:
        area = (0.0, 0.0)
    if not 0.02 <= area[0] <= area[1] <= 4:
        raise EnvironmentFault(
            "bad_flag", f"--area {args.area!r} is not MIN:MAX with 0.02 <= MIN <= MAX <= 4"
        )
    return Augmentation(
        area_min=area[0],
        area_max=area[1],
        flip=not args.no_flip,
        colour=_within("--colour", args.colour, 0, 0.9),
        sharpness=_within("--sharpness", args.sharpness, 0, 10),
        cutmix=_within("--cutmix", args.cutmix, 0, 1),
    )


def _within(flag: str, value: Number, low: float, high: float) -> Number:
    if not low <= value <= high:
        raise EnvironmentFault("bad_flag", f"{flag} {value} is not within {low:g} to {high:g}")
    return value


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--val", type=Path, metavar="DIR", help="held-out images, laid out like DIR")
    group.add_argument(
        "--val-share",
        type=float,
        default=Settings().val_share,
        help="part of DIR to hold out where there is no --val (default: %(default)s)",
    )
    group.add_argument(
        "--test", type=Path, metavar="DIR", help="images judged once, at the end; laid out like DIR"
    )


def _add_result(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--run", dest="run_folder", type=Path, metavar="DIR", help="run folder (default: runs/NAME)"
    )
    group.add_argument("--name", help="the checkpoint's name (default: ARCH-DIR)")
    group.add_argument(
        "--out", type=Path, metavar="PATH", help="checkpoint without suffix (default: RUN/NAME)"
    )
    group.add_argument("--full-precision", action="store_true", help="store float32, not float16")
    group.add_argument("--licence", default="unknown", help="licence, for the card")
    group.add_argument("--origin", default="", help="where the data come from, for the card")
    group.add_argument("--bundled", action="store_true", help=argparse.SUPPRESS)


def _add_schedule(group: argparse._ArgumentGroup) -> None:
    default = Settings()
    group.add_argument(
        "--arch", default=default.architecture, help="torchvision's name (default: %(default)s)"
    )
    group.add_argument("--weights", type=Path, metavar="FILE", help="checkpoint to start from")
    group.add_argument(
        "--sizes",
        default="224",
        metavar="PX[:UNTIL],…",
        help="input size, or sizes with the part of the run until which each holds, as"
        " 64:0.7,96:1.0 (default: %(default)s)",
    )
    group.add_argument("--epochs", type=int, default=default.epochs, help="default: %(default)s")
    group.add_argument(
        "--minutes", type=float, default=0.0, help="fit the run into this time, instead of --epochs"
    )
    group.add_argument(
        "--patience",
        type=int,
        default=default.patience_epochs,
        help="end after so many epochs without a better one; 0: never (default: %(default)s)",
    )


def _add_optimisation(group: argparse._ArgumentGroup) -> None:
    default = Settings()
    group.add_argument("--batch", type=int, default=default.batch_images, help="images per step")
    group.add_argument(
        "--optimizer",
        choices=("sgd", "muon"),
        default=default.optimizer,
        help="muon: faster from scratch where every convolution is normalised",
    )
    group.add_argument("--lr", type=float, default=default.learning_rate, help="peak rate")
    group.add_argument(
        "--muon-lr", type=float, default=default.muon_rate, help="peak rate of muon's convolutions"
    )
    group.add_argument("--warmup", type=float, default=default.warmup, help="part of the run")
    group.add_argument("--weight-decay", type=float, default=default.weight_decay)
    group.add_argument("--label-smoothing", type=float, default=default.label_smoothing)
    group.add_argument("--ema-decay", type=float, default=default.ema_decay, help="per step")
    group.add_argument("--seed", type=int, default=default.seed)


def _add_teacher(group: argparse._ArgumentGroup) -> None:
    default = Settings()
    group.add_argument(
        "--teacher",
        type=Path,
        metavar="CARD",
        help="card of a trained model with the same classes, to learn to answer like",
    )
    group.add_argument(
        "--teacher-weight",
        type=float,
        default=default.teacher_weight,
        help="part of the loss that is the teacher's; the labels' is the rest (default:"
        " %(default)s)",
    )
    group.add_argument(
        "--temperature",
        type=float,
        default=default.temperature,
        help="softens the teacher's answers (default: %(default)s)",
    )


def _add_augmentation(group: argparse._ArgumentGroup) -> None:
    default = Augmentation()
    group.add_argument(
        "--area",
        default=f"{default.area_min:g}:{default.area_max:g}",
        metavar="MIN:MAX",
        help="part of the image that a crop covers (default: %(default)s)",
    )
    group.add_argument("--no-flip", action="store_true", help="mirroring changes the class")
    group.add_argument("--colour", type=float, default=default.colour, help="0: none")
    group.add_argument("--sharpness", type=float, default=default.sharpness, help="0: none")
    group.add_argument(
        "--cutmix", type=float, default=default.cutmix, help="share that gets a box of another"
    )


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
