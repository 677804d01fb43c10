"""The same LinkSpec on other hosts, over real SSH: all or nothing, and never for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from netem.backend import LinkReading
from netem.errors import Mismatch, NetemError, Refused
from netem.grammar import parse
from netem.remote.fleet import Fleet, FleetFailed, fleet_of
from netem.remote.inventory import Host
from netem.remote.session import Unreachable
from netem.spec import Duplex
from netem.tc.backend import TcBackend
from tests.netem_root.guest.net import Pair, run
from tests.netem_root.guest.ssh import Keys, served
from tests.shared import wait_until

ASKED = Duplex(egress=parse("loss=10% delay=20ms"), ingress=parse("loss=5%"))
IN_FAR = ("ip", "netns", "exec", Pair.far)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))


@asynccontextmanager
async def both_hosts(keys: Keys, folder: Path) -> AsyncIterator[tuple[Host, Host]]:
    """`near` is this namespace, `far` the other one; each has a server of its own."""
    async with (
        served("near", "near0", (), keys, folder) as near,
        served("far", "far0", IN_FAR, keys, folder) as far,
    ):
        yield near, far


def on_both(
    keys: Keys, folder: Path, work: Callable[[Fleet, tuple[Host, Host]], Awaitable[None]]
) -> None:
    """Run `work` on a fleet of both hosts."""

    async def main() -> None:
        async with both_hosts(keys, folder) as hosts, fleet_of(hosts) as fleet:
            await work(fleet, hosts)

    asyncio.run(main())


def watchers() -> list[int]:
    """Processes of a watchdog, on either host."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if _watches(p.info["cmdline"] or [])]


def _watches(command: list[str]) -> bool:
    return any("netem-watch" in word for word in command)


def here() -> LinkReading | None:
    return TcBackend().observe(Pair.link)


def there() -> LinkReading | None:
    return TcBackend(IN_FAR).observe("far0")


def test_a_fleet_is_set_shown_refreshed_and_cleared(pair: Pair, keys: Keys, tmp_path: Path) -> None:
    before = pair.snapshot()

    async def work(fleet: Fleet, hosts: object) -> None:
        planned = await fleet.plan(ASKED)
        # pyroute2 has an event loop of its own.
        assert await asyncio.to_thread(pair.snapshot) == before
        assert planned["near"][-1].argv[:3] == ("tc", "filter", "add")
        readings = await fleet.apply(ASKED, ttl_s=300)
        assert {name: r.duplex for name, r in readings.items()} == {
            name: r.duplex for name, r in (await fleet.observe()).items() if r
        }
        for reading in (here(), there()):
            assert reading is not None
            assert reading.egress.spec.delay_ms == 20.0
        assert len(watchers()) == 2
        assert all(s is not None and 200 < s <= 300 for s in (await fleet.left_s()).values())
        await fleet.refresh(1000)
        assert all(s is not None and 900 < s <= 1000 for s in (await fleet.left_s()).values())
        assert len(watchers()) == 2
        assert await fleet.clear() == {"near": True, "far": True}
        assert set((await fleet.left_s()).values()) == {None}

    on_both(keys, tmp_path, work)
    assert (here(), there()) == (None, None)
    assert pair.snapshot() == before
    assert watchers() == []
    assert list(Path("/run").glob("netem-watch*")) == []


def test_one_host_that_fails_puts_back_all(
    pair: Pair, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The far host says, after the change, that its loss is another one than was asked."""
    script = tmp_path / "bin"
    script.mkdir()
    (script / "tc").write_text(
        "#!/bin/sh\n"
        'case "$*" in "qdisc add dev far0"* | "qdisc change dev far0"*) '
        'set -- $(echo "$*" | sed "s/random 10%/random 11%/");; esac\n'
        'exec /usr/sbin/tc "$@"\n'
    )
    (script / "tc").chmod(0o755)

    async def work(fleet: Fleet, hosts: object) -> None:
        # The near host has a link already, the far one has none.
        before = TcBackend().apply(Pair.link, Duplex(egress=parse("loss=3%")))
        monkeypatch.setenv("PATH", f"{script}:/usr/sbin:/usr/bin:/sbin:/bin")
        with pytest.raises(FleetFailed, match="far0 egress: requested loss=10%") as caught:
            await fleet.apply(ASKED, ttl_s=300)
        assert isinstance(caught.value.failures["far"], Mismatch)
        assert caught.value.left == ()
        now = here()
        assert now is not None
        assert now.duplex == before.duplex
        assert there() is None
        await fleet.clear()

    on_both(keys, tmp_path, work)
    assert watchers() == []


def test_the_watchdog_takes_the_link_back_when_nobody_comes_again(
    pair: Pair, keys: Keys, tmp_path: Path
) -> None:
    before = pair.snapshot()

    async def work(fleet: Fleet, hosts: object) -> None:
        await fleet.apply(ASKED, ttl_s=5)

    on_both(keys, tmp_path, work)
    # The session is over, its server too. What was set lives on its own watchdog's time.
    wait_until(lambda: here() is None and there() is None, 60.0, "the watchdogs")
    wait_until(lambda: not watchers(), 30.0, "the end of the watchdogs")
    assert pair.snapshot() == before
    assert list(Path("/run").glob("netem-watch*")) == []


def test_the_interface_of_the_session_is_guarded(pair: Pair, keys: Keys, tmp_path: Path) -> None:
    async def main() -> None:
        async with served("near", "lo", (), keys, tmp_path) as host, fleet_of([host]) as fleet:
            with pytest.raises(NetemError, match=r"near: lo carries your SSH session") as caught:
                await fleet.apply(ASKED)
            assert isinstance(caught.value.__cause__, Refused)

    asyncio.run(main())
    assert TcBackend().observe("lo") is None
    assert watchers() == []


def test_an_unknown_host_is_refused_before_anything_changes(
    pair: Pair, keys: Keys, tmp_path: Path
) -> None:
    async def main() -> None:
        async with both_hosts(keys, tmp_path) as (near, far):
            (tmp_path / "empty").write_text("")
            stranger = replace(far, known_hosts=str(tmp_path / "empty"))
            with pytest.raises(Unreachable, match=r"far .*known_hosts.*ssh-keyscan"):
                async with fleet_of([near, stranger]):
                    pytest.fail("there is no fleet with a stranger in it")

    asyncio.run(main())
    assert (here(), there()) == (None, None)


def test_what_a_person_types_on_a_node_is_undone_by_the_command_and_the_other_way(
    pair: Pair,
) -> None:
    scripts = Path(__file__).parents[3] / "netem" / "scripts"
    link = ("sh", str(scripts / "link.sh"))
    before = pair.snapshot()
    run(*link, "set", "near0", "loss", "10%", "delay", "20ms")
    run(*link, "set-ingress", "near0", "loss", "5%")
    reading = here()
    assert reading is not None
    assert (str(reading.egress.spec), str(reading.ingress.spec)) == (
        "loss=10% delay=20ms limit=1000",
        "loss=5% limit=1000",
    )
    assert TcBackend().clear(Pair.link)
    assert pair.snapshot() == before
    TcBackend().apply(Pair.link, Duplex(parse("loss=1% mtu=1400"), parse("delay=1ms")))
    assert "netem" in run(*link, "show", "near0")
    run(*link, "clear", "near0")
    assert pair.snapshot() == before
    run(*link, "clear", "near0")
    run("tc", "qdisc", "add", "dev", "near0", "root", "pfifo")
    assert "not ours" in run("sh", "-c", f"{' '.join(link)} set near0 loss 1% 2>&1 || true")
    run("tc", "qdisc", "del", "dev", "near0", "root")
    assert pair.snapshot() == before
