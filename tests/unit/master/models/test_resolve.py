"""The order in which weights are looked for, and what is said on the way."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from master.models import catalogue as catalogues
from master.models.cards import card_path
from master.models.catalogue import Catalogue, Pretrained
from master.models.resolve import Places, Resolved, cache_dir, is_offline, resolve
from tests.unit.master.models.making import (
    SMALL,
    Host,
    catalogue_with,
    serving,
    write_card,
    write_safetensors,
    write_torch,
)
from wire.errors import EnvironmentFault

REAL = catalogues.load()
GOOGLENET_CLASSES = ["airplane", "cat"]


def never(preset: Pretrained, target: Path) -> None:
    raise AssertionError(f"downloads {preset.url} to {target}")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOKOUT_OFFLINE", "HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundled GoogLeNet of two classes with its card."""
    path = tmp_path_factory.mktemp("bundled") / "googlenet-tiny.safetensors"
    write_safetensors(path, "googlenet", classes=2)
    write_card(
        path,
        id=path.stem,
        architecture="googlenet",
        classes=GOOGLENET_CLASSES,
        bundled=True,
    )
    return path


@pytest.fixture
def places(tmp_path: Path, bundle: Path) -> Places:
    return Places(cache=tmp_path / "cache", bundled=bundle)


@dataclass
class Publication:
    """One file of `SMALL` that a loopback server publishes, as the catalogue knows it."""

    host: Host
    file: Path
    catalogue: Catalogue

    @property
    def name(self) -> str:
        return self.catalogue.known(SMALL).recommended.file_name


@pytest.fixture
def publication(tmp_path: Path) -> Iterator[Publication]:
    file = write_torch(tmp_path / "original.pth")
    with serving(file.read_bytes(), "squeezenet1_1-0123abcd.pth") as host:
        yield Publication(host, file, catalogue_with(file, host.url))


def steps(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Each log line as `message source`."""
    records = [vars(record) for record in caplog.records if record.name == "lookout.models"]
    return [
        f"{one['message']} {one.get('fields', {}).get('source', '')}".strip() for one in records
    ]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, "lookout.models")
    return lambda: steps(caplog)


# --- --weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, "googlenet", SMALL])
def test_weights_with_a_card_say_their_model_themselves(
    tmp_path: Path, places: Places, model: str | None, log: Callable[[], list[str]]
) -> None:
    path = write_safetensors(tmp_path / "mine.safetensors")
    write_card(path)
    found = resolve(model, path, places=places, fetch=never)
    assert (found.card.id, found.path, found.source) == ("mine", path, "--weights")
    assert found.warning is None
    assert log() == ["weights found --weights"]


def test_weights_that_do_not_do_are_not_passed_over(tmp_path: Path, places: Places) -> None:
    with pytest.raises(EnvironmentFault, match="there is no weights file"):
        resolve(None, tmp_path / "no.pth", places=places, fetch=never)


def test_the_real_squeezenet_by_its_name(squeezenet_weights: Path, places: Places) -> None:
    found = resolve(SMALL, squeezenet_weights, places=places, fetch=never)
    assert found.card.classes == list(REAL.classes)
    with pytest.raises(EnvironmentFault, match=f"--model {SMALL}"):
        resolve("googlenet", squeezenet_weights, places=places, fetch=never)


# --- the cache ---------------------------------------------------------------------------


def test_the_cache_is_used_before_the_network(
    places: Places, publication: Publication, log: Callable[[], list[str]]
) -> None:
    places.cache.mkdir()
    cached = shutil.copy(publication.file, places.cache / publication.name)
    found = resolve(SMALL, places=places, catalogue=publication.catalogue, fetch=never)
    assert (found.path, found.source, found.warning) == (cached, "cache", None)
    assert found.card.id == f"{SMALL}-imagenet1k_v1"
    assert log() == ["weights found cache"]


def test_other_weights_of_the_model_in_the_cache_do_too(
    places: Places, publication: Publication
) -> None:
    (preset,) = publication.catalogue.known(SMALL).weights
    newer = msgspec.structs.replace(
        preset, name="IMAGENET1K_V2", url="http://127.0.0.1/newer-ffffffff.pth"
    )
    architecture = msgspec.structs.replace(
        publication.catalogue.known(SMALL), weights=[preset, newer], default=newer.name
    )
    table = msgspec.structs.replace(REAL.table, architectures=[architecture])
    places.cache.mkdir()
    shutil.copy(publication.file, places.cache / preset.file_name)
    found = resolve(SMALL, places=places, catalogue=Catalogue(table, REAL.classes), fetch=never)
    assert found.card.id == f"{SMALL}-imagenet1k_v1"


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04cut off"])
def test_a_damaged_file_in_the_cache_is_fetched_again(
    places: Places, publication: Publication, content: bytes, log: Callable[[], list[str]]
) -> None:
    places.cache.mkdir()
    cached = places.cache / publication.name
    cached.write_bytes(content)
    found = resolve(SMALL, places=places, catalogue=publication.catalogue)
    assert (found.source, found.path) == ("download", cached)
    assert cached.read_bytes() == publication.file.read_bytes()
    assert log()[0] == "no weights cache"


def test_a_file_in_the_cache_that_breaks_its_names_promise_is_not_served(
    tmp_path: Path, places: Places, publication: Publication
) -> None:
    places.cache.mkdir()
    other = write_torch(tmp_path / "other.pth", classes=999)
    shutil.copy(other, places.cache / publication.name)
    with pytest.raises(EnvironmentFault) as caught:
        resolve(SMALL, places=places, catalogue=publication.catalogue, offline=True)
    assert caught.value.code == "no_weights"
    assert "as its name promises" in caught.value.reason


# --- the download ------------------------------------------------------------------------


def test_a_download_lands_in_the_cache_and_is_found_there_next_time(
    places: Places, publication: Publication, log: Callable[[], list[str]]
) -> None:
    first = resolve(SMALL, places=places, catalogue=publication.catalogue)
    second = resolve(SMALL, places=places, catalogue=publication.catalogue, fetch=never)
    assert (first.source, second.source) == ("download", "cache")
    assert first.card == second.card
    assert log() == [
        "no weights cache",
        "downloading",
        "downloading",
        "weights found download",
        "weights found cache",
    ]


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_offline_downloads_nothing(
    places: Places, publication: Publication, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "environment":
        monkeypatch.setenv("LOOKOUT_OFFLINE", "1")
    with pytest.raises(EnvironmentFault, match="offline, by --offline or LOOKOUT_OFFLINE"):
        resolve(SMALL, places=places, catalogue=publication.catalogue, offline=how == "flag")
    assert publication.host.asked == []


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_what_lookout_offline_means(value: str, expected: bool) -> None:
    assert is_offline({"LOOKOUT_OFFLINE": value}) is expected
    assert is_offline({}) is False


# --- the bundled checkpoint ----------------------------------------------------------------


@pytest.mark.parametrize("model", [None, "googlenet"])
def test_the_bundle_comes_last_and_warns(
    places: Places, model: str | None, log: Callable[[], list[str]]
) -> None:
    found = resolve(model, places=places, offline=True)
    assert (found.source, found.card.bundled) == ("bundled", True)
    assert found.warning is not None
    preset = REAL.known("googlenet").recommended
    for part in ("airplane, cat", preset.url, str(places.cache / preset.file_name), "--weights"):
        assert part in found.warning
    assert log() == [
        "no weights cache",
        "no weights download",
        "weights found bundled",
        found.warning,
    ]


def test_the_bundle_follows_a_failed_download(places: Places) -> None:
    def fail(preset: Pretrained, target: Path) -> None:
        raise EnvironmentFault("unreachable", "can't reach it")

    assert resolve("googlenet", places=places, fetch=fail).source == "bundled"


def test_the_bundle_may_be_asked_for_by_its_name(places: Places, bundle: Path) -> None:
    found = resolve("googlenet-tiny", places=places, fetch=never)
    assert found == Resolved(found.card, bundle, "bundled", None)


def test_another_model_gets_no_bundle(places: Places) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        resolve("resnet18", places=places, offline=True)
    preset = REAL.known("resnet18").recommended
    for part in (
        "master up --model resnet18 --weights FILE",
        preset.url,
        str(places.cache / preset.file_name),
        "worker train DIR --arch resnet18",
        "only googlenet is bundled",
    ):
        assert part in caught.value.reason
    assert caught.value.code == "no_weights"


def test_an_installation_without_a_bundle_says_so(tmp_path: Path) -> None:
    places = Places(cache=tmp_path, bundled=tmp_path / "none.safetensors")
    with pytest.raises(EnvironmentFault, match="has no bundled checkpoint"):
        resolve(None, places=places, offline=True)


def test_a_bundle_without_its_card_is_not_served(tmp_path: Path, bundle: Path) -> None:
    alone = Path(shutil.copy(bundle, tmp_path / bundle.name))
    assert not card_path(alone).exists()
    with pytest.raises(EnvironmentFault) as caught:
        resolve(None, places=Places(tmp_path / "cache", alone), offline=True)
    assert caught.value.code == "bad_card"


def test_the_shipped_bundle_is_whole() -> None:
    places = Places(cache=Path("no-such-cache"))
    card = resolve(None, places=places, offline=True).card
    assert (card.architecture, card.bundled, card.dtype) == ("googlenet", True, "float16")


def test_an_unknown_model_asks_no_network(places: Places) -> None:
    with pytest.raises(EnvironmentFault, match="did you mean"):
        resolve("googlenet2", places=places, fetch=never)


# --- where the cache is --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TORCH_HOME": "/t"}, "/t/hub/checkpoints"),
        ({"TORCH_HOME": "/t", "XDG_CACHE_HOME": "/x"}, "/t/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/torch/hub/checkpoints"),
        ({}, "~/.cache/torch/hub/checkpoints"),
        ({"TORCH_HOME": "~/t"}, "~/t/hub/checkpoints"),
    ],
)
def test_the_cache_is_where_torch_has_it(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    assert cache_dir(environ) == Path(expected).expanduser()
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert cache_dir(environ) == Path(torch.hub.get_dir()) / "checkpoints"
