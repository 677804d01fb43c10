"""Two sessions and the bytes between them, without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from wire.framing import FRAME_BYTES_MAX
from wire.handshake import Admission, Admit, ClientHandshake, ServerHandshake
from wire.messages import Hello, Message, Role
from wire.session import Session

TOKEN = "correct horse battery staple"


def counting_rng(first: int) -> Callable[[int], bytes]:
    """Nonces that differ and are the same in every run."""
    numbers = iter(range(first, 256))
    return lambda n: bytes([next(numbers)]) * n


def hello(role: Role = "worker", versions: Iterable[int] = (1,), name: str = "ada") -> Hello:
    """A client's first word."""
    return Hello(versions=list(versions), role=role, name=name, incarnation="i-1", slots=2)


def admit_all(hello: Hello) -> Admission:
    """Everybody is welcome."""
    return Admission(peer=f"w-{hello.name}")


def client(
    token: str | None = TOKEN, who: Hello | None = None, frame_bytes_max: int = FRAME_BYTES_MAX
) -> Session:
    """A client's session, its `Hello` waiting to be sent."""
    handshake = ClientHandshake(token, who or hello(), counting_rng(100))
    return Session(handshake, frame_bytes_max)


def server(
    token: str | None = TOKEN,
    versions: Iterable[int] = (1,),
    admit: Admit = admit_all,
    frame_bytes_max: int = FRAME_BYTES_MAX,
) -> Session:
    """The master's session of one connection."""
    handshake = ServerHandshake(
        token, tuple(versions), counting_rng(200), admit, lambda _: frame_bytes_max
    )
    return Session(handshake)


def pump(one: Session, other: Session) -> tuple[list[Message], list[Message]]:
    """Carry handshake bytes to and fro until both are silent; what each of them heard."""
    heard_by_one: list[Message] = []
    heard_by_other: list[Message] = []
    moved = True
    while moved:
        moved = False
        for source, sink, heard in (
            (one, other, heard_by_other),
            (other, one, heard_by_one),
        ):
            for data in source.data_to_send():
                heard += sink.receive(data)
                moved = True
    return heard_by_one, heard_by_other


def opened(
    who: Hello | None = None, frame_bytes_max: int = FRAME_BYTES_MAX
) -> tuple[Session, Session]:
    """A client and a server past their handshake."""
    one, other = client(who=who), server(frame_bytes_max=frame_bytes_max)
    pump(one, other)
    assert one.is_open
    assert other.is_open
    return one, other


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """`data` cut at those offsets, in order; some pieces may be empty."""
    last = 0
    for cut in sorted({min(c, len(data)) for c in cuts}):
        yield data[last:cut]
        last = cut
    yield data[last:]
