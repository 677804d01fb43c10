"""`master model list|show`, as the parser mounts them and as people read them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from master.models import cli
from tests.unit.master.models.making import SMALL, write_card, write_safetensors


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    return cache


def model(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers(dest="command"))
    args = parser.parse_args(["model", *words])
    code: int = args.run(args)
    return code


def test_list_has_a_row_for_each_model(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cache / "resnet50-0676ba61.pth").write_bytes(b"")
    assert model("list") == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:81]}
    assert len(rows) == 80
    assert " ".join(rows["resnet50"]) == "resnet50 25.6 M 80.9% 98 MiB 224 px cache"
    assert rows["resnet18"][-2:] == ["224", "px"]


def test_show_tells_what_is_published_and_where_to_put_it(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model("show", "--model", "resnet50") == 0
    out = capsys.readouterr().out
    for part in ("11ad3fa6", "0676ba61", "top-1 80.86%", "resize 232", "not there"):
        assert part in out
    assert "Three ways" in out
    assert out.index("11ad3fa6") < out.index("0676ba61"), "the recommended first"


def test_show_tells_the_card_of_weights(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_safetensors(tmp_path / "mine.safetensors", classes=12)
    write_card(path, classes=[f"[b]kind {n}" for n in range(12)], licence="[bold]MIT")
    assert model("show", "--weights", str(path)) == 0
    out = capsys.readouterr().out
    for part in ("mine", SMALL, "12: [b]kind 0,", "kind 9, …", "[bold]MIT", "52 with"):
        assert part in out


def test_show_of_something_unknown_is_the_users_to_mend(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model("show", "--model", "googlenett") == 2
    assert model("show", "--weights", str(tmp_path / "no.pth")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "did you mean googlenet" in err
    assert "there is no weights file" in err


def test_further_subcommands_can_be_mounted() -> None:
    parser = argparse.ArgumentParser()
    commands = cli.add_parser(parser.add_subparsers(dest="command"))
    commands.add_parser("set").add_argument("name")
    assert parser.parse_args(["model", "set", "resnet18"]).name == "resnet18"
