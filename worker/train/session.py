"""One `worker train` from folder to checkpoint: prepare, train, pack, report."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch

from wire.card import Card, Preprocessing
from wire.errors import EnvironmentFault
from worker.models import build, save_checkpoint, write_card
from worker.train.decoded import Decoded, decode_all, stored_side
from worker.train.display import Display
from worker.train.evaluate import judge
from worker.train.folder import Folder, scan, split
from worker.train.initial import initialise, preprocessing_of, read_checkpoint, start_from
from worker.train.loop import Trainer
from worker.train.plots import draw_confusion, draw_learning_curve
from worker.train.report import Report, make_report
from worker.train.run import Identity, Run, RunFolder, load_state, save_json
from worker.train.settings import Settings
from worker.train.teacher import load_teacher

_MEMORY_WORDS = ("can't allocate memory", "not enough memory")


@dataclass(frozen=True, slots=True)
class Order:
    """What to train on, from and into.

    `weights` is a checkpoint to start from; `out` is the checkpoint's path
    without suffix (its name is the card's id); `test` is judged once, at the end;
    `teacher` is the card of a model to learn to answer like.
    """

    directory: Path
    val: Path | None
    test: Path | None
    run: Path
    weights: Path | None
    teacher: Path | None
    out: Path
    half: bool
    card_fields: dict[str, object]
    settings: Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """Training and held-out images."""

    train: Folder
    val: Folder
    identity: Identity


def train(order: Order, display: Display) -> Card:
    """Train, or go on training, and return the card of the checkpoint written.

    Raises:
        EnvironmentFault: the data, the run folder or the machine is in the way;
            what earlier epochs stored stays.
    """
    settings = order.settings
    files = RunFolder(order.run)
    parts = find_parts(order)
    run = Run(_trainer(order, parts, display), files, parts.identity)
    if run.resume():
        display.say(f"going on after epoch {run.trainer.epoch} of the run in {order.run}")
    with _memory_explained(settings):
        if not (run.trainer.finished or run.exhausted):
            _train(run, _decode(order, parts, files, display), display)
    return _finish(order, run, parts, display)


def evaluate(card_path: Path, directory: Path, report_to: Path | None, display: Display) -> Report:
    """Judge a checkpoint on a folder per class; write the report into `report_to`, if given.

    Raises:
        EnvironmentFault: card, weights or images do not fit each other.
    """
    card, weights = read_checkpoint(card_path)
    folder = scan(directory, card.classes)
    report = _judge(card, weights, folder, directory.name, display)
    display.report(report)
    if report_to is not None:
        _store_report(report, report_to, directory.name)
    return report


def find_parts(order: Order) -> Parts:
    """Scan the folders, and hold images out where no folder of them is given."""
    found = scan(order.directory)
    if order.val is not None:
        train_part, val_part = found, scan(order.val, found.classes)
    else:
        rng = random.Random(order.settings.seed)
        train_part, val_part = split(found, order.settings.val_share, rng)
    prints = (
        train_part.fingerprint(order.directory),
        val_part.fingerprint(order.val or order.directory),
    )
    identity = Identity(
        architecture=order.settings.architecture, classes=found.classes, data=" ".join(prints)
    )
    return Parts(train=train_part, val=val_part, identity=identity)


def _trainer(order: Order, parts: Parts, display: Display) -> Trainer:
    settings = order.settings
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model = build(settings.architecture, len(parts.train.classes), settings.final_px)
    if order.weights is None:
        initialise(model)
    else:
        anew = start_from(model, order.weights)
        display.say(f"starting from {order.weights}; anew: {', '.join(anew) or 'nothing'}")
        fed = preprocessing_of(settings.architecture, order.weights)
        settings = msgspec.structs.replace(settings, mean=fed.mean, std=fed.std)
    device = _device(settings.device)
    teacher = None
    if order.teacher is not None:
        teacher = load_teacher(order.teacher, tuple(parts.train.classes), device)
        settings = msgspec.structs.replace(settings, teacher=teacher.id)
        display.say(f"learning to answer like {teacher.id}")
    trainer = Trainer(model, settings, device, time.monotonic, teacher)
    display.say(
        f"{settings.architecture} on {device} in {'bfloat16' if trainer.bf16 else 'float32'},"
        f" {torch.get_num_threads()} threads; {len(parts.train.images):,} training and"
        f" {len(parts.val.images):,} held-out images of {len(parts.train.classes)} classes"
    )
    return trainer


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFault("no_gpu", "--device cuda: torch sees no GPU here; leave it out")
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def _decode(
    order: Order, parts: Parts, files: RunFolder, display: Display
) -> tuple[Decoded, Decoded]:
    rng = random.Random(order.settings.seed)
    largest_px = max(phase.input_px for phase in order.settings.phases)
    side_px = stored_side(parts.train, largest_px, rng)
    total = len(parts.train.images) + len(parts.val.images)
    with display.counting("decoding", total) as on_image:
        return (
            decode_all(parts.train, side_px, files.spill("train"), on_image),
            decode_all(parts.val, side_px, files.spill("val"), on_image),
        )


def _train(run: Run, data: tuple[Decoded, Decoded], display: Display) -> None:
    trainer = run.trainer
    with display.training(trainer.progress(0.0, trainer.elapsed_s)) as on_step:
        run.train(*data, on_step, display.epoch)
    if run.exhausted and run.best_epoch is not None:
        display.say(f"no better epoch since epoch {run.best_epoch.epoch}: ended early")


def _finish(order: Order, run: Run, parts: Parts, display: Display) -> Card:
    """Pack the best weights, judge them as they will be served, and write the reports."""
    best = run.best_epoch
    if best is None:
        raise EnvironmentFault("no_epoch", "no epoch was finished; give more --epochs or --minutes")
    settings = run.trainer.settings
    model = build(settings.architecture, len(parts.train.classes), settings.final_px)
    model.load_state_dict(load_state(run.folder.best))
    fields = {
        "architecture": settings.architecture,
        "classes": list(parts.train.classes),
        "preprocessing": Preprocessing(
            resize_px=best.input_px,
            crop_px=best.input_px,
            interpolation=settings.interpolation,
            mean=settings.mean,
            std=settings.std,
        ),
        "made_by": _made_by(settings, best.epoch),
        **order.card_fields,
    }
    card = save_checkpoint(model, fields, order.out, order.half)
    weights = order.out.with_suffix(".safetensors")
    judged = [("held-out", parts.val)]
    if order.test is not None:
        judged.append((order.test.name, scan(order.test, parts.train.classes)))
    for name, folder in judged:
        report = _judge(card, weights, folder, name, display)
        display.report(report)
        _store_report(report, run.folder.path, name)
        accuracy = {**card.accuracy, name: round(report.accuracy, 4)}
        card = msgspec.structs.replace(card, accuracy=accuracy)
    write_card(card, order.out.with_suffix(".json"))
    draw_learning_curve(run.history, run.folder.path / "learning_curve.png")
    display.say(f"wrote {weights} with its card; reports lie in {run.folder.path}")
    return card


def _made_by(settings: Settings, best_epoch: int) -> str:
    sizes = ", ".join(f"{p.input_px} px until {p.until:.0%}" for p in settings.phases)
    taught = f", taught by {settings.teacher}" if settings.teacher else ""
    return (
        f"worker train: {settings.optimizer}, batches of {settings.batch_images}, {sizes},"
        f" seed {settings.seed}{taught}; averaged weights of epoch {best_epoch}"
    )


def _judge(card: Card, weights: Path, folder: Folder, name: str, display: Display) -> Report:
    with display.counting(f"judging on {name}", len(folder.images)) as on_image:
        verdicts = judge(card, weights, folder, on_image)
    return make_report(card.id, name, folder.classes, verdicts.labels, verdicts.logits)


def _store_report(report: Report, into: Path, name: str) -> None:
    into.mkdir(parents=True, exist_ok=True)
    save_json(into / f"report-{name}.json", report)
    draw_confusion(report, into / f"confusion-{name}.png")


@contextmanager
def _memory_explained(settings: Settings) -> Iterator[None]:
    """Turn torch's and Python's running out of memory into advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as fault:
        if not _is_out_of_memory(fault):
            raise
        raise EnvironmentFault(
            "out_of_memory",
            f"memory ran out with batches of {settings.batch_images} at up to"
            f" {max(p.input_px for p in settings.phases)} px; the last finished epoch is stored:"
            f" run the same command with --batch {max(2, settings.batch_images // 2)}",
        ) from fault


def _is_out_of_memory(fault: Exception) -> bool:
    """Torch's CPU allocator raises a plain RuntimeError, known by its words only."""
    if isinstance(fault, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(fault) for words in _MEMORY_WORDS)
