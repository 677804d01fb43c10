"""`wire/PROTOCOL.md` says what the code does, and is enough to write a worker."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import hmac
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.wire.link import TOKEN
from tests.unit.wire.page import PAGE, directions_of, read_page, rows_of
from wire import aio, codec, framing
from wire import messages as m
from wire.aio import Admission, Connection, Limits
from wire.card import Card, Preprocessing
from wire.handshake import ClientHandshake, ServerHandshake, prove_stream
from wire.session import WORKER_FRAME_BYTES_MAX

STRANGER = Path(__file__).parents[2] / "fakes" / "stranger_worker.py"
DEADLINE_S = 30.0
SECTIONS = read_page()
MESSAGES: dict[str, type[m.Message]] = {cls.__name__: cls for cls in m.Message.__subclasses__()}
PART_TYPES: list[type[Any]] = [*m.Part.__subclasses__(), Card, Preprocessing]
PARTS = {cls.__name__: cls for cls in PART_TYPES}
TEXT = PAGE.read_text(encoding="utf-8")


def table_after(heading: str) -> dict[str, str]:
    """The first two columns of the table under a heading."""
    block = re.split(rf"^#+ {re.escape(heading)}$", TEXT, flags=re.MULTILINE)[1]
    block = re.split(r"^#+ ", block, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|(?: .+ \|)?$", block, flags=re.MULTILINE)
    return {key.strip("`"): value.strip("`") for key, value in rows if key not in ("code", "what")}


# --- the tables ---------------------------------------------------------------------------


def test_the_page_has_every_message_and_every_part_and_no_other() -> None:
    assert set(SECTIONS) == set(MESSAGES) | set(PARTS)


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_the_fields_are_those_of_the_code(name: str) -> None:
    _, rows = SECTIONS[name]
    assert rows == rows_of({**PARTS, **MESSAGES}[name])


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_the_speaker_is_the_one_of_the_code(name: str) -> None:
    direction, _ = SECTIONS[name]
    assert direction == directions_of(MESSAGES[name])


def test_every_code_that_the_wire_raises_is_explained() -> None:
    raised: set[str] = set()
    for file in PAGE.parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "PeerFault":
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    raised.add(str(first.value))
    assert raised - {"version_unsupported"} == set(table_after("Faults"))


def test_the_limits_are_those_of_the_code() -> None:
    limits, table = Limits(), table_after("Limits")
    assert table == {
        "limit": "value",
        "payload before `Welcome": f"{framing.HANDSHAKE_FRAME_BYTES_MAX // 2**10} KiB",
        "payload from a worker": f"{WORKER_FRAME_BYTES_MAX // 2**20} MiB",
        "payload from others": f"{framing.FRAME_BYTES_MAX // 2**20} MiB",
        "time for the handshake": f"{limits.handshake_timeout_s:g} s",
        "time for one frame": f"{limits.frame_timeout_s:g} s + length / "
        f"{limits.frame_rate_floor_bytes_s / 2**10:g} KiB/s",
        "connections in their handshake": f"{limits.unauthenticated_max}",
        "bytes that wait for a slow reader": f"{limits.write_bytes_max // 2**20} MiB",
        "leases in one `Started` or `Released": "4096",
        "bytes of one `FetchWeights": "16 MiB",
        "connections of one worker": f"{m.STREAMS_MAX}, or fewer as `Welcome` says",
    }


# --- the worked example -------------------------------------------------------------------


def test_the_worked_example_from_its_prose_alone() -> None:
    """As a stranger would: hashlib, hmac and the page."""
    example = table_after("Worked example")
    nonces = [bytes.fromhex(example["master's nonce"]), bytes.fromhex(example["client's nonce"])]

    def transcript(context: bytes) -> bytes:
        fields = [context, b"1", b"1", b"worker", b"stranger", b"1f9c", *nonces]
        return b"".join(len(field).to_bytes(2, "big") + field for field in fields)

    def mac(context: bytes) -> str:
        key = example["token"].encode()
        return hmac.new(key, transcript(context), hashlib.sha256).hexdigest()

    assert transcript(b"lookout client proof").hex() == example["transcript of the client"]
    assert mac(b"lookout client proof") == example["mac` of `Proof"]
    assert mac(b"lookout master proof") == example["mac` of `Welcome"]


def test_the_proof_of_a_stream_from_its_prose_alone() -> None:
    example = table_after("Worked example")
    nonces = [bytes.fromhex(example["master's nonce"]), bytes.fromhex(example["client's nonce"])]
    said = re.search(r"the ticket `([0-9a-f]{64})`, `stream_mac` is `([0-9a-f]{64})`", TEXT)
    assert said is not None
    ticket = bytes.fromhex(said[1])
    context = b"lookout stream proof"
    fields = [context, b"1", b"1", b"worker", b"stranger", b"1f9c", *nonces, b"1"]
    text = b"".join(len(field).to_bytes(2, "big") + field for field in fields)
    assert hmac.new(ticket, text, hashlib.sha256).hexdigest() == said[2]
    hello = m.Hello(
        versions=[1], role="worker", name="stranger", incarnation="1f9c", slots=1, stream=1
    )
    assert prove_stream(ticket, 1, hello, *nonces).hex() == said[2]


def test_the_worked_example_is_what_our_machines_say() -> None:
    example = table_after("Worked example")
    nonces = {key: bytes.fromhex(example[f"{key}'s nonce"]) for key in ("master", "client")}
    frame = bytes.fromhex(example["frame of `Hello"])
    hello = codec.decode(frame[framing.HEADER_BYTES :], codec.HANDSHAKE_FROM_CLIENT)
    assert isinstance(hello, m.Hello)
    assert codec.frame(hello) == frame
    client = ClientHandshake(example["token"], hello, lambda n: nonces["client"])
    master = ServerHandshake(
        example["token"], (1,), lambda n: nonces["master"], lambda hello: Admission(peer="w")
    )
    (offer,) = client.start()
    (challenge,) = master.receive(offer)
    assert codec.frame(challenge).hex() == example["frame of `Challenge"]
    (proof,) = client.receive(challenge)
    assert codec.frame(proof).hex() == example["frame of `Proof"]
    (welcome,) = master.receive(proof)
    assert isinstance(welcome, m.Welcome)
    assert welcome.mac.hex() == example["mac` of `Welcome"]


# --- the stranger -----------------------------------------------------------------------------


def test_the_stranger_is_short_and_knows_nothing_of_lookout() -> None:
    source = STRANGER.read_text()
    assert sum(1 for line in source.splitlines() if line.strip()) <= 60
    imported = {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported == {"hashlib", "hmac", "msgpack", "os", "socket", "sys", "threading"}
    assert "import" not in re.sub(r"^import \w+$", "", source, flags=re.MULTILINE)


class SmallMaster:
    """Just enough of a master for a stranger: a model, jobs, and what it said."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[m.Message] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.connection: Connection | None = None

    def admit(self, hello: m.Hello, address: str) -> Admission:
        """Beat fast, so that the test sees some."""
        return Admission(peer=hello.name, heartbeat_interval_s=0.05, lease_ttl_s=5)

    def on_peer(self, connection: Connection) -> None:
        """Give it the model at once."""
        self.connection = connection
        connection.on_message = self._take
        connection.on_closed = lambda _, reason, fault: self.ended.put_nowait(str(fault or reason))
        preprocessing = Preprocessing(resize_px=256, crop_px=224)
        card = Card(
            id="tiny",
            architecture="googlenet",
            classes=["tench", "goldfish"],
            preprocessing=preprocessing,
            sha256="0" * 64,
            size_bytes=1,
        )
        connection.send(m.Model(card=card))

    def _take(self, connection: Connection, message: m.Message) -> None:
        if isinstance(message, m.Heartbeat):
            connection.send(m.HeartbeatAck(seq=message.seq))
        if isinstance(message, m.Result):
            connection.send(m.Accepted(job=message.job, token=message.token))
        self.heard.put_nowait(message)

    async def hear(self, *kinds: type[m.Message]) -> list[m.Message]:
        """The next messages, one of each kind in this order, heartbeats between them aside."""
        got: list[m.Message] = []
        while len(got) < len(kinds):
            message = await self.heard.get()
            if isinstance(message, kinds[len(got)]):
                got.append(message)
            else:
                assert isinstance(message, m.Heartbeat), message
        return got


async def start(server: aio.Server, token: str) -> asyncio.subprocess.Process:
    """The stranger, as a process."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        STRANGER,
        "127.0.0.1",
        str(server.port),
        token,
        stderr=asyncio.subprocess.PIPE,
    )


async def converse() -> None:
    """Join, ready, three jobs, heartbeats, and leave when told to drain."""
    master = SmallMaster()
    async with await aio.serve(
        "127.0.0.1:0", master.on_peer, token=TOKEN, admit=master.admit
    ) as server:
        process = await start(server, TOKEN)
        (ready,) = await master.hear(m.Ready)
        assert isinstance(ready, m.Ready)
        assert ready.model == "tiny"
        assert master.connection is not None
        for i in range(1, 4):
            image = bytes(100_000 * i)
            master.connection.send(
                m.Assign(job=f"j{i}", token=10 * i, attempt=1, name="x.jpg", image=image)
            )
            started, result = await master.hear(m.Started, m.Result)
            assert started == m.Started(leases=[m.LeaseRef(job=f"j{i}", token=10 * i)])
            assert isinstance(result, m.Result)
            assert (result.job, result.token, result.top5[0].label) == (f"j{i}", 10 * i, "tench")
        first, second = await master.hear(m.Heartbeat, m.Heartbeat)
        assert isinstance(first, m.Heartbeat)
        assert isinstance(second, m.Heartbeat)
        assert second.seq == first.seq + 1
        master.connection.send(m.Drain(reason="enough"))
        await master.hear(m.Goodbye)
        _, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        assert await master.ended.get() == "the peer closed the connection"
        assert not server.rejections


async def be_refused() -> None:
    """With a wrong token it says why and stops."""
    master = SmallMaster()
    async with await aio.serve(
        "127.0.0.1:0", master.on_peer, token=TOKEN, admit=master.admit
    ) as server:
        process = await start(server, "wrong")
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert errors.startswith(b"bad_token: ")


def test_a_stranger_joins_and_works() -> None:
    asyncio.run(asyncio.wait_for(converse(), DEADLINE_S))


def test_a_stranger_without_the_token_is_refused() -> None:
    asyncio.run(asyncio.wait_for(be_refused(), DEADLINE_S))
