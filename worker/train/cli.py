"""`worker train DIR`: the command line of training."""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import torch

from wire.errors import EnvironmentFault
from worker.models import build
from worker.train import folder as folders
from worker.train.initial import initialise
from worker.train.loop import Trainer
from worker.train.run import Run, RunFolder
from worker.train.settings import Settings, parse_phases


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `worker train`; defaults are those of `Settings`."""
    default = Settings()
    parser.add_argument("directory", type=Path, metavar="DIR", help="a folder per class, of images")
    parser.add_argument(
        "--val", type=Path, metavar="DIR", help="held-out images, a folder per class"
    )
    parser.add_argument("--val-share", type=float, default=default.val_share)
    parser.add_argument("--run", type=Path, default=Path("runs/train"))
    parser.add_argument("--arch", default=default.architecture)
    parser.add_argument("--sizes", default="224")
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--batch", type=int, default=default.batch_images)
    parser.add_argument("--optimizer", choices=("sgd", "muon"), default=default.optimizer)
    parser.add_argument("--lr", type=float, default=default.learning_rate)
    parser.add_argument("--muon-lr", type=float, default=default.muon_rate)
    parser.add_argument("--ema-decay", type=float, default=default.ema_decay)
    parser.add_argument("--patience", type=int, default=default.patience_epochs)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--threads", type=int, default=default.threads)


def settings_from(args: argparse.Namespace) -> Settings:
    return Settings(
        architecture=args.arch,
        phases=parse_phases(args.sizes),
        epochs=args.epochs,
        budget_s=args.minutes * 60,
        batch_images=args.batch,
        optimizer=args.optimizer,
        learning_rate=args.lr,
        muon_rate=args.muon_lr,
        ema_decay=args.ema_decay,
        val_share=args.val_share,
        patience_epochs=args.patience,
        seed=args.seed,
        threads=args.threads,
    )


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    files = RunFolder(args.run)
    found = folders.scan(args.directory)
    train, val = folders.split(found, settings.val_share, random.Random(settings.seed))
    side = folders.stored_side(found, settings.final_px, random.Random(settings.seed))
    data = tuple(folders.decode_all(part, side, files.spill) for part in (train, val))
    print(
        f"{len(train.images)} training and {len(val.images)} held-out images at {side} px",
        flush=True,
    )
    model = build(settings.architecture, len(found.classes))
    initialise(model, settings.seed)
    trainer = Trainer(model, settings, torch.device("cpu"), time.monotonic)
    work = Run(trainer, files, found.classes)
    if work.resume():
        print(f"resumed after epoch {trainer.epoch}", flush=True)
    steps = 0

    def on_step(progress: float, loss: float) -> None:
        nonlocal steps
        steps += 1
        if steps % 50 == 0:
            print(f"  {progress:6.1%} loss {loss:.3f}", flush=True)

    work.train(data, on_step, lambda r: print(r, flush=True))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="worker train", description=__doc__)
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except EnvironmentFault as fault:
        print(f"worker train: {fault}", file=sys.stderr)
        return 2
