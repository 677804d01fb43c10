"""One connection without its socket: bytes in, messages out, and back.

Owns the order framing → codec → handshake for one connection, and which
vocabulary and frame cap hold at which point. Promises the same messages for
every split of the same bytes. Leaves sockets, deadlines and logging to the two
shells, `wire.aio` and `wire.blocking`.
"""

from __future__ import annotations

from wire.codec import (
    FROM_MASTER,
    FROM_ROLE,
    HANDSHAKE_FROM_CLIENT,
    HANDSHAKE_FROM_MASTER,
    Vocabulary,
    frame,
)
from wire.errors import LocalFault, PeerFault
from wire.framing import (
    FRAME_BYTES_MAX,
    HANDSHAKE_FRAME_BYTES_MAX,
    HEADER_BYTES,
    FrameDecoder,
)
from wire.handshake import ClientHandshake, HandshakeState, ServerHandshake
from wire.messages import Hello, Message, ProtocolFault, Welcome
from wire.splice import Piece, pieces

WORKER_FRAME_BYTES_MAX = 2**20
"""What a master takes from a worker in one frame: its largest message is a list of leases."""


class Session:
    """The protocol of one connection, from its first byte.

    `fault` is set once the peer broke the protocol; nothing is read after
    that. `data_to_send` holds what the handshake wants sent; the shell sends
    it after construction and after every `receive`.
    """

    def __init__(
        self,
        handshake: ClientHandshake | ServerHandshake,
        frame_bytes_max: int = FRAME_BYTES_MAX,
    ) -> None:
        self.handshake = handshake
        self.fault: PeerFault | None = None
        self.frame_bytes_max = frame_bytes_max
        self._is_client = isinstance(handshake, ClientHandshake)
        self._frames = FrameDecoder(min(HANDSHAKE_FRAME_BYTES_MAX, frame_bytes_max))
        self._hears: Vocabulary = (
            HANDSHAKE_FROM_MASTER if self._is_client else HANDSHAKE_FROM_CLIENT
        )
        self._says: Vocabulary | None = None
        self._send_bytes_max = FRAME_BYTES_MAX
        self._outbox: list[bytearray] = [frame(message) for message in handshake.start()]

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done and messages may flow."""
        return self._says is not None

    @property
    def is_rejected(self) -> bool:
        """Whether the handshake ended in a refusal."""
        return self.handshake.state is HandshakeState.REJECTED

    @property
    def hello(self) -> Hello | None:
        """Who the client says it is, once known."""
        return self.handshake.hello

    @property
    def welcome(self) -> Welcome | None:
        """The terms of admission, once open."""
        return self.handshake.welcome

    @property
    def frames_received(self) -> int:
        """Whole frames so far; with `pending_bytes` it shows a peer that drips."""
        return self._frames.frames_decoded

    @property
    def pending_bytes(self) -> int:
        """Bytes held of a frame that is not complete."""
        return self._frames.pending_bytes

    @property
    def announced_bytes(self) -> int:
        """Length of the frame that is not complete, where known."""
        return self._frames.announced_bytes

    @property
    def missing_bytes(self) -> int:
        """How much of the frame is still to come; 0 while its length isn't known."""
        announced = self._frames.announced_bytes
        return announced and HEADER_BYTES + announced - self._frames.pending_bytes

    def data_to_send(self) -> list[bytearray]:
        """Take what the handshake wants sent, as whole frames."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Where a shell writes the next bytes that it reads."""
        return self._frames.get_buffer(sizehint)

    def buffer_updated(self, n: int) -> list[Message]:
        """Take `n` bytes written there; return the messages that are whole now.

        Messages ahead of a fault are returned and `fault` is set; with none
        ahead of it the fault is raised.

        Raises:
            PeerFault: the peer broke the protocol; `Rejected` if it refused us.
        """
        self._frames.received(n)
        return self._drain()

    def receive(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """Copy `data` in; otherwise as `buffer_updated`."""
        if self.fault is not None:
            raise self.fault
        messages: list[Message] = []
        rest = memoryview(data)
        while rest and self.fault is None:
            buffer = self.get_buffer()
            n = min(len(buffer), len(rest))
            buffer[:n] = rest[:n]
            rest = rest[n:]
            self._frames.received(n)
            messages += self._drain(raises=not messages)
        return messages

    def send(self, message: Message) -> bytearray:
        """The frame of one message.

        Raises:
            LocalFault: the handshake is not done, this end may not say that,
                or the peer does not take a frame so large.
        """
        self._check_said(message)
        buffer = frame(message)
        self._check_taken(message, len(buffer))
        return buffer

    def send_pieces(self, message: Message) -> list[Piece]:
        """As `send`, in pieces to be written one after another: large images aren't copied."""
        self._check_said(message)
        spliced = pieces(message)
        if spliced is None:
            spliced = [frame(message)]
        self._check_taken(message, sum(map(len, spliced)))
        return spliced

    def _check_said(self, message: Message) -> None:
        if self._says is None:
            name = type(message).__name__
            raise LocalFault(f"{name} can't be sent before the handshake is done")
        if type(message) not in self._says.types:
            raise LocalFault(f"{self._says.speaker} may not send {type(message).__name__}")

    def _check_taken(self, message: Message, frame_bytes: int) -> None:
        if frame_bytes - HEADER_BYTES > self._send_bytes_max:
            raise LocalFault(
                f"{type(message).__name__} has {frame_bytes - HEADER_BYTES} bytes; "
                f"the peer takes {self._send_bytes_max}"
            )

    def farewell(self, fault: PeerFault) -> bytearray:
        """The frame that tells the peer what it did wrong."""
        return frame(ProtocolFault(code=fault.code, reason=fault.reason[:4096]))

    def truncation(self) -> PeerFault | None:
        """What an end of the stream at this point is: a fault, or None if it is in order."""
        if self._frames.pending_bytes:
            return PeerFault(
                "truncated_frame",
                f"the stream ended {self._frames.pending_bytes} bytes into a frame",
            )
        if not self.is_open and not self._is_client and not self.is_rejected:
            return PeerFault("handshake_incomplete", "the peer left before it was admitted")
        return None

    def _drain(self, raises: bool = True) -> list[Message]:
        if self.fault is not None:
            raise self.fault
        messages: list[Message] = []
        next_frame = self._frames.next_frame
        try:
            while (payload := next_frame()) is not None:
                message = self._hears.decode(payload)
                if self._says is None:
                    self._negotiate(message)
                else:
                    messages.append(message)
        except PeerFault as fault:
            self.fault = fault
            if raises and not messages:
                raise
        return messages

    def _negotiate(self, message: Message) -> None:
        if self.is_rejected:
            raise PeerFault("not_allowed", "the handshake ended in a refusal")
        self._outbox += [frame(answer) for answer in self.handshake.receive(message)]
        if self.handshake.state is HandshakeState.DONE:
            self._open()

    def _open(self) -> None:
        hello, welcome = self.handshake.hello, self.handshake.welcome
        assert hello is not None
        assert welcome is not None
        master, client = FROM_MASTER[hello.role], FROM_ROLE[hello.role]
        self._hears, self._says = (master, client) if self._is_client else (client, master)
        if self._is_client:
            self._send_bytes_max = min(FRAME_BYTES_MAX, welcome.frame_bytes_max)
            self._frames.frame_bytes_max = self.frame_bytes_max
        else:
            self._frames.frame_bytes_max = welcome.frame_bytes_max
