"""The handshake: both ends prove that they hold the join token, without sending it.

`Hello` → `Challenge` → `Proof` → `Welcome`, or `Reject` at any point. Each
proof is HMAC-SHA256 under the token over both nonces and over who the client
says it is, so that it can be neither replayed (the nonces are fresh), nor
reflected (each direction has a context of its own), nor moved to another name,
incarnation or version. Owns the order of these messages and the proofs. Leaves
bytes to `wire.session`, deadlines and sockets to the shells.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from wire.errors import LocalFault, PeerFault, Rejected
from wire.framing import FRAME_BYTES_MAX
from wire.messages import (
    VERSION,
    Challenge,
    Hello,
    Message,
    Proof,
    ProtocolFault,
    Reject,
    Welcome,
)

VERSIONS = (VERSION,)
NONCE_BYTES = 32
CLIENT_CONTEXT = b"lookout client proof"
MASTER_CONTEXT = b"lookout master proof"
STREAM_CONTEXT = b"lookout stream proof"
TICKET_BYTES = 32

RngBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Admission:
    """What the master grants to a client that proved the token.

    `ticket` goes out with `Welcome` on a worker's first stream; on a further
    one (`Hello.stream` above 0) it is what the worker has to prove.
    """

    peer: str
    heartbeat_interval_s: float = 1.0
    lease_ttl_s: float = 10.0
    ticket: bytes = b""
    streams_max: int = 1


Admit = Callable[[Hello], Admission | Reject]


class HandshakeState(Enum):
    """Where a handshake stands; both ends use the same names."""

    HELLO = "hello"
    CHALLENGE = "challenge"
    PROOF = "proof"
    WELCOME = "welcome"
    DONE = "done"
    REJECTED = "rejected"


def transcript(
    context: bytes, version: int, hello: Hello, challenge_nonce: bytes, proof_nonce: bytes
) -> bytes:
    """What a proof is over: each field after its length as two big-endian bytes."""
    fields = (
        context,
        str(version).encode(),
        ",".join(map(str, hello.versions)).encode(),
        hello.role.encode(),
        hello.name.encode(),
        hello.incarnation.encode(),
        challenge_nonce,
        proof_nonce,
    )
    return b"".join(len(field).to_bytes(2, "big") + field for field in fields)


def prove(
    token: str | None,
    context: bytes,
    version: int,
    hello: Hello,
    challenge_nonce: bytes,
    proof_nonce: bytes,
) -> bytes:
    """HMAC-SHA256 of the transcript; no token is the empty key."""
    text = transcript(context, version, hello, challenge_nonce, proof_nonce)
    return hmac.digest((token or "").encode(), text, sha256)


def prove_stream(
    ticket: bytes, version: int, hello: Hello, challenge_nonce: bytes, proof_nonce: bytes
) -> bytes:
    """HMAC-SHA256 under the ticket: the transcript of a proof, and the stream's number after it."""
    number = str(hello.stream).encode()
    text = transcript(STREAM_CONTEXT, version, hello, challenge_nonce, proof_nonce)
    return hmac.digest(ticket, text + len(number).to_bytes(2, "big") + number, sha256)


class ServerHandshake:
    """The master's side of one connection.

    `token` None is open mode: proofs are not checked. `admit` is asked once
    the client has proved itself, and answers with an `Admission` or a
    `Reject`. `frame_bytes_max_of` says what to announce to which client.
    """

    def __init__(
        self,
        token: str | None,
        versions: Sequence[int],
        rng_bytes: RngBytes,
        admit: Admit,
        frame_bytes_max_of: Callable[[Hello], int] = lambda hello: FRAME_BYTES_MAX,
    ) -> None:
        self.state = HandshakeState.HELLO
        self.hello: Hello | None = None
        self.welcome: Welcome | None = None
        self.rejection: Reject | None = None
        self.version = 0
        self._token = token
        self._versions = tuple(versions)
        self._nonce = rng_bytes(NONCE_BYTES)
        self._admit = admit
        self._frame_bytes_max_of = frame_bytes_max_of

    def start(self) -> list[Message]:
        """What to send first: nothing, the client speaks first."""
        return []

    def receive(self, message: Message) -> list[Message]:
        """What to answer.

        Raises:
            PeerFault: the message does not belong here, or is a `ProtocolFault`.
        """
        if isinstance(message, ProtocolFault):
            raise _reported(message)
        if isinstance(message, Hello) and self.state is HandshakeState.HELLO:
            return [self._challenge(message)]
        if isinstance(message, Proof) and self.state is HandshakeState.PROOF:
            return [self._judge(message)]
        raise _out_of_order(message, self.state)

    def _challenge(self, hello: Hello) -> Message:
        self.hello = hello
        common = set(hello.versions) & set(self._versions)
        if not common:
            return self._reject(
                "version_unsupported",
                f"you speak versions {sorted(hello.versions)} of the protocol, "
                f"this master {sorted(self._versions)}; bring both to the same release of Lookout",
            )
        self.version = max(common)
        self.state = HandshakeState.PROOF
        return Challenge(version=self.version, nonce=self._nonce)

    def _judge(self, proof: Proof) -> Message:
        assert self.hello is not None
        if self._token is not None and not self._holds(proof, self._token):
            return self._reject("bad_token", self._why(proof))
        decision = self._admit(self.hello)
        if isinstance(decision, Reject):
            return self._reject(decision.code, decision.reason)
        if self.hello.stream and not self._holds_ticket(proof, decision.ticket):
            return self._reject(
                "bad_ticket", "the ticket is not the one of this worker's Welcome; join anew"
            )
        return self._welcome(decision, proof)

    def _holds_ticket(self, proof: Proof, ticket: bytes) -> bool:
        assert self.hello is not None
        expected = prove_stream(ticket, self.version, self.hello, self._nonce, proof.nonce)
        return bool(ticket) and hmac.compare_digest(proof.stream_mac, expected)

    def _holds(self, proof: Proof, token: str | None) -> bool:
        return hmac.compare_digest(proof.mac, self._mac(CLIENT_CONTEXT, token, proof))

    def _mac(self, context: bytes, token: str | None, proof: Proof) -> bytes:
        assert self.hello is not None
        return prove(token, context, self.version, self.hello, self._nonce, proof.nonce)

    def _why(self, proof: Proof) -> str:
        where = "the master printed it at start, in its `worker join` line"
        if self._holds(proof, None):
            return f"this master asks for a join token and none was given: pass --token; {where}"
        return f"the join token is not this master's: check --token; {where}"

    def _welcome(self, admission: Admission, proof: Proof) -> Welcome:
        assert self.hello is not None
        self.state = HandshakeState.DONE
        first = self.hello.stream == 0
        self.welcome = Welcome(
            mac=self._mac(MASTER_CONTEXT, self._token, proof),
            peer=admission.peer,
            heartbeat_interval_s=admission.heartbeat_interval_s,
            lease_ttl_s=admission.lease_ttl_s,
            frame_bytes_max=self._frame_bytes_max_of(self.hello),
            ticket=admission.ticket if first else b"",
            streams_max=admission.streams_max if first else 1,
        )
        return self.welcome

    def _reject(self, code: str, reason: str) -> Reject:
        self.state = HandshakeState.REJECTED
        self.rejection = Reject(code=code, reason=reason)
        return self.rejection


class ClientHandshake:
    """The side of a worker, a web process or an admin.

    `token` None neither proves anything nor asks the master to. `ticket` is
    proved where `hello` asks for a further stream.
    """

    def __init__(
        self, token: str | None, hello: Hello, rng_bytes: RngBytes, ticket: bytes = b""
    ) -> None:
        self.state = HandshakeState.HELLO
        self.hello: Hello = hello
        self.welcome: Welcome | None = None
        self.rejection: Reject | None = None
        self.version = 0
        self._token = token
        self._ticket = ticket
        self._nonce = rng_bytes(NONCE_BYTES)
        self._challenge_nonce = b""

    def start(self) -> list[Message]:
        """What to send first: `Hello`."""
        if self.state is not HandshakeState.HELLO:
            raise LocalFault(f"a handshake starts once; it is at {self.state.value}")
        self.state = HandshakeState.CHALLENGE
        return [self.hello]

    def receive(self, message: Message) -> list[Message]:
        """What to answer.

        Raises:
            Rejected: the master refused, or did not prove the token.
            PeerFault: the message does not belong here, or is a `ProtocolFault`.
        """
        if isinstance(message, ProtocolFault):
            raise _reported(message)
        if isinstance(message, Reject):
            self.state, self.rejection = HandshakeState.REJECTED, message
            raise Rejected(message.code, message.reason)
        if isinstance(message, Challenge) and self.state is HandshakeState.CHALLENGE:
            return [self._prove(message)]
        if isinstance(message, Welcome) and self.state is HandshakeState.WELCOME:
            self._enter(message)
            return []
        raise _out_of_order(message, self.state)

    def _prove(self, challenge: Challenge) -> Proof:
        if challenge.version not in self.hello.versions:
            raise PeerFault(
                "version_unsupported",
                f"the master chose version {challenge.version}; {self.hello.versions} were offered",
            )
        self.version = challenge.version
        self._challenge_nonce = challenge.nonce
        self.state = HandshakeState.WELCOME
        return Proof(
            nonce=self._nonce, mac=self._mac(CLIENT_CONTEXT), stream_mac=self._stream_mac()
        )

    def _stream_mac(self) -> bytes:
        if not self.hello.stream:
            return b""
        return prove_stream(
            self._ticket, self.version, self.hello, self._challenge_nonce, self._nonce
        )

    def _enter(self, welcome: Welcome) -> None:
        expected = self._mac(MASTER_CONTEXT)
        if self._token is not None and not hmac.compare_digest(welcome.mac, expected):
            self.state = HandshakeState.REJECTED
            raise Rejected(
                "master_unproved",
                "the master let us in but did not prove that it holds our join token: "
                "it runs without one, or it is not the master you mean; check the address, "
                "or leave --token away to join a master in open mode",
            )
        self.state, self.welcome = HandshakeState.DONE, welcome

    def _mac(self, context: bytes) -> bytes:
        return prove(
            self._token, context, self.version, self.hello, self._challenge_nonce, self._nonce
        )


def _out_of_order(message: Message, state: HandshakeState) -> PeerFault:
    name = type(message).__name__
    return PeerFault("not_allowed", f"{name} does not belong here; expected {state.value}")


def _reported(message: ProtocolFault) -> PeerFault:
    # The peer's words stay out of our code, which is counted and labels metrics.
    said = f"{message.code!r}: {message.reason!r}"
    return PeerFault("fault_reported", f"the other end says that we broke the protocol: {said}")
