"""The command: flags to orders, refusals, and a run that a signal ends."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared import REPOSITORY
from tests.unit.worker.training import ARCHITECTURE, make_dataset
from wire.errors import EnvironmentFault
from worker.train import cli
from worker.train.settings import Phase, Settings, parse_phases

DEADLINE_S = 120


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    return parser.parse_args(["train", *flags])


def test_defaults_are_those_of_settings() -> None:
    order = cli.make_order(parsed("photos"))
    assert order.settings == Settings()
    assert order.run == Path("runs/googlenet-photos")
    assert order.out == Path("runs/googlenet-photos/googlenet-photos")
    assert order.half


def test_flags_reach_the_order() -> None:
    flags = "--sizes 64:0.7,96 --minutes 2 --no-flip --area 0.3:1 --name mine --full-precision"
    order = cli.make_order(parsed("photos", *flags.split(), "--run", "r", "--optimizer", "muon"))
    assert order.settings.phases == (
        Phase(input_px=64, until=0.7),
        Phase(input_px=96, until=1.0),
    )
    assert order.settings.budget_s == 120.0
    assert order.settings.optimizer == "muon"
    assert not order.settings.augmentation.flip
    assert (order.settings.augmentation.area_min, order.settings.augmentation.area_max) == (0.3, 1)
    assert (order.run, order.out, order.half) == (Path("r"), Path("r/mine"), False)


@pytest.mark.parametrize("text", ["", "x", "64:0.5", "64:0.7,96:0.6,96", "64:0,96", "8", "64,96"])
def test_sizes_that_make_no_sense_are_told(text: str) -> None:
    with pytest.raises(EnvironmentFault, match=r"64:0\.7,96:1\.0"):
        parse_phases(text)


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch", "1"],
        ["--epochs", "0"],
        ["--val-share", "1.5"],
        ["--area", "2:1"],
        ["--area", "wide"],
        ["--ema-decay", "1"],
    ],
)
def test_flags_out_of_range_are_told(flags: list[str]) -> None:
    with pytest.raises(EnvironmentFault, match=flags[0]) as caught:
        cli.make_order(parsed("photos", *flags))
    assert caught.value.code == "bad_flag"


def test_a_fault_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    assert cli.main([str(missing), "--run", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        f"worker train: {missing} is no folder; give one folder per class in it\n"
    )


def test_what_is_no_card_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.json"
    assert cli.main([str(tmp_path), "--evaluate", str(missing)]) == 2
    assert f"{missing} is not a model's card" in capsys.readouterr().err


def test_the_flags_alone_do_not_import_torch() -> None:
    code = "import sys, worker.train.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_a_signal_ends_it_with_the_finished_epochs_kept(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "colours", images=4)
    flags = f"--arch {ARCHITECTURE} --sizes 32 --batch 8 --threads 1 --patience 0".split()
    command = [sys.executable, "-m", "worker.train", str(dataset), "--run", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, *flags, "--epochs", "100000"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert any(line.startswith("epoch   2") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(DEADLINE_S) == 130
    finally:
        process.kill()
        process.wait()
    assert "the same command goes on" in rest
    again = subprocess.run(
        [*command, *flags, "--epochs", "1"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "going on after epoch" in again.stdout
    assert (tmp_path / "run" / "shufflenet_v2_x0_5-colours.safetensors").exists()
