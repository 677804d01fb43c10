"""Messages to payloads and back, and who may say what.

Owns the table of which message types each end of a connection may send.
Promises that decoding gives a message that the table allows, with every field
checked, or a `PeerFault`; nothing that a peer sends raises anything else.
Leaves cutting frames to `wire.framing` and order to `wire.handshake`.
"""

from __future__ import annotations

from functools import reduce
from operator import or_

import msgspec

from wire import messages as m
from wire.errors import PeerFault
from wire.framing import HEADER, HEADER_BYTES, check_outgoing

MessageType = type[m.Message]


class Vocabulary:
    """The message types that one end may send at one stage, and their decoder."""

    def __init__(self, speaker: str, *types: MessageType) -> None:
        self.speaker = speaker
        self.types = frozenset(types)
        union = reduce(or_, types)
        self._decoder: msgspec.msgpack.Decoder[m.Message] = msgspec.msgpack.Decoder(union)

    def __contains__(self, message_type: object) -> bool:
        return message_type in self.types

    def decode(self, payload: bytes | bytearray | memoryview) -> m.Message:
        """One message of this vocabulary; raises `PeerFault` for anything else."""
        try:
            return self._decoder.decode(payload)
        except msgspec.ValidationError as error:
            raise self._explain(payload, str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise PeerFault("not_msgpack", f"the payload is not MessagePack: {error}") from None
        except RecursionError:
            raise PeerFault("bad_message", "the payload is nested too deeply") from None
        except (MemoryError, OverflowError) as error:
            raise PeerFault("bad_message", f"the payload can't be held: {error!r}") from None

    def _explain(self, payload: bytes | bytearray | memoryview, error: str) -> PeerFault:
        """Tell a type that nobody knows from one out of place and from a wrong field."""
        name = _tag(payload)
        if name is None:
            return PeerFault("bad_message", f"the payload is no map with a `type`: {error}")
        if name not in ALL_TYPES:
            return PeerFault("unknown_type", f"no message has the type {name[:64]!r}")
        if ALL_TYPES[name] not in self.types:
            return PeerFault("not_allowed", f"{self.speaker} may not send {name} at this point")
        return PeerFault("bad_message", f"{name}: {error}"[:500])


class _Tagged(msgspec.Struct):
    type: str


_TAG_DECODER = msgspec.msgpack.Decoder(_Tagged)


def _tag(payload: bytes | bytearray | memoryview) -> str | None:
    try:
        return _TAG_DECODER.decode(payload).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


ALL_TYPES: dict[str, MessageType] = {cls.__name__: cls for cls in m.Message.__subclasses__()}

HANDSHAKE_FROM_CLIENT = Vocabulary("a client in its handshake", m.Hello, m.Proof, m.ProtocolFault)
HANDSHAKE_FROM_MASTER = Vocabulary(
    "the master in its handshake", m.Challenge, m.Welcome, m.Reject, m.ProtocolFault
)
FROM_WORKER = Vocabulary(
    "a worker",
    m.FetchWeights,
    m.Ready,
    m.ModelFault,
    m.Started,
    m.Result,
    m.Released,
    m.Heartbeat,
    m.Draining,
    m.Goodbye,
    m.ProtocolFault,
)
TO_WORKER = Vocabulary(
    "the master to a worker",
    m.Model,
    m.WeightsChunk,
    m.Assign,
    m.Accepted,
    m.Stale,
    m.Cancel,
    m.HeartbeatAck,
    m.Drain,
    m.Goodbye,
    m.ProtocolFault,
)
_WEB_REQUESTS: tuple[MessageType, ...] = (
    m.Submit,
    m.Abandon,
    m.GetJobs,
    m.ListJobs,
    m.WaitJobs,
    m.GetImage,
    m.CancelJobs,
    m.RemoveJobs,
    m.RetryJobs,
    m.GetSubmission,
    m.GetWorkers,
    m.DrainWorker,
    m.GetModel,
    m.SetModel,
    m.GetStats,
    m.GetMetrics,
    m.Subscribe,
    m.Goodbye,
    m.ProtocolFault,
)
FROM_WEB = Vocabulary("a web process", *_WEB_REQUESTS)
FROM_ADMIN = Vocabulary("an admin", *_WEB_REQUESTS, m.Shutdown)
FROM_CLIENT = FROM_ADMIN
"""All that any client but a worker may say."""
TO_CLIENT = Vocabulary(
    "the master to a client",
    m.Submitted,
    m.Jobs,
    m.Image,
    m.Done,
    m.Submission,
    m.Workers,
    m.ModelView,
    m.Stats,
    m.Metrics,
    m.Events,
    m.Refused,
    m.Goodbye,
    m.ProtocolFault,
)
FROM_ROLE: dict[m.Role, Vocabulary] = {
    "worker": FROM_WORKER,
    "web": FROM_WEB,
    "admin": FROM_ADMIN,
}
FROM_MASTER: dict[m.Role, Vocabulary] = {
    "worker": TO_WORKER,
    "web": TO_CLIENT,
    "admin": TO_CLIENT,
}

_ENCODER = msgspec.msgpack.Encoder()


def encode(message: m.Message) -> bytes:
    """The payload of one message."""
    return _ENCODER.encode(message)


def frame(message: m.Message) -> bytearray:
    """Header and payload in one buffer, so that an image is copied once on its way out.

    Raises:
        LocalFault: the message is larger than any peer takes.
    """
    buffer = bytearray(HEADER_BYTES)
    _ENCODER.encode_into(message, buffer, HEADER_BYTES)
    payload_bytes = len(buffer) - HEADER_BYTES
    check_outgoing(payload_bytes)
    HEADER.pack_into(buffer, 0, payload_bytes)
    return buffer


def decode(payload: bytes | bytearray | memoryview, allowed: Vocabulary) -> m.Message:
    """One message out of one payload.

    Raises:
        PeerFault: `not_msgpack`, `unknown_type`, `not_allowed` or `bad_message`.
    """
    return allowed.decode(payload)
