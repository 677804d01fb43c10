"""The handshake as two machines: who gets in, who does not, and why they are told."""

from __future__ import annotations

import hashlib
import hmac
from typing import TypeVar

import msgspec
import pytest

from tests.unit.wire.link import TOKEN, admit_all, counting_rng, hello
from wire import messages as m
from wire.errors import LocalFault, PeerFault, Rejected
from wire.handshake import (
    CLIENT_CONTEXT,
    MASTER_CONTEXT,
    Admit,
    ClientHandshake,
    HandshakeState,
    ServerHandshake,
    prove,
    transcript,
)

M = TypeVar("M", bound=m.Message)


def caller(
    token: str | None = TOKEN, who: m.Hello | None = None, nonce: int = 100
) -> ClientHandshake:
    return ClientHandshake(token, who or hello(), counting_rng(nonce))


def master(
    token: str | None = TOKEN,
    versions: tuple[int, ...] = (1,),
    admit: Admit = admit_all,
    nonce: int = 200,
) -> ServerHandshake:
    return ServerHandshake(token, versions, counting_rng(nonce), admit)


def only(messages: list[m.Message], kind: type[M]) -> M:
    (message,) = messages
    assert isinstance(message, kind), message
    return message


def proof_of(client: ClientHandshake, server: ServerHandshake) -> m.Proof:
    challenge = only(server.receive(only(client.start(), m.Hello)), m.Challenge)
    return only(client.receive(challenge), m.Proof)


def run(client: ClientHandshake, server: ServerHandshake) -> None:
    """Carry every message across until nothing is left to say; raises what the client raises."""
    for answer in server.receive(proof_of(client, server)):
        assert client.receive(answer) == []


def test_both_prove_the_token_and_are_done() -> None:
    client, server = caller(), master()
    run(client, server)
    assert client.state is server.state is HandshakeState.DONE
    assert client.welcome == server.welcome
    assert client.welcome is not None
    assert client.welcome.peer == "w-ada"


def test_the_proof_is_the_hmac_that_the_page_describes() -> None:
    """Recomputed here from nothing but hashlib, as a stranger would."""
    client, server = caller(), master()
    proof = proof_of(client, server)
    fields = [
        b"lookout client proof",
        b"1",
        b"1",
        b"worker",
        b"ada",
        b"i-1",
        b"\xc8" * 32,
        b"d" * 32,
    ]
    text = b"".join(len(f).to_bytes(2, "big") + f for f in fields)
    assert proof.mac == hmac.new(TOKEN.encode(), text, hashlib.sha256).digest()


@pytest.mark.parametrize(
    ("token", "words"),
    [("guess", "not this master's"), ("", "none was given"), (None, "none was given")],
)
def test_a_wrong_token_is_rejected_in_words(token: str | None, words: str) -> None:
    client, server = caller(token), master()
    with pytest.raises(Rejected) as caught:
        run(client, server)
    assert caught.value.code == "bad_token"
    assert words in caught.value.reason
    assert server.state is client.state is HandshakeState.REJECTED


def test_open_mode_lets_in_who_asks_for_no_proof() -> None:
    client, server = caller(None), master(None)
    run(client, server)
    assert server.state is HandshakeState.DONE


def test_a_client_with_a_token_leaves_a_master_that_cannot_prove_it() -> None:
    for impostor in (master(None), master("other")):
        client = caller()
        with pytest.raises(Rejected):
            run(client, impostor)
        assert client.welcome is None
    with pytest.raises(Rejected) as caught:
        run(caller(), master(None))
    assert caught.value.code == "master_unproved"


def test_a_replayed_proof_is_worth_nothing() -> None:
    overheard = proof_of(caller(), master(nonce=200))
    again = master(nonce=201)
    again.receive(hello())
    assert only(again.receive(overheard), m.Reject).code == "bad_token"


def test_a_replayed_proof_is_worth_nothing_even_for_the_same_nonce_under_another_name() -> None:
    overheard = proof_of(caller(), master())
    for who in (
        hello(name="eve"),
        hello(role="admin"),
        hello(versions=(1, 2)),
        msgspec.structs.replace(hello(), incarnation="i-2"),
    ):
        other = master()
        other.receive(who)
        assert only(other.receive(overheard), m.Reject).code == "bad_token"


def test_a_reflected_proof_is_worth_nothing() -> None:
    """Whoever holds no token can't answer the client with the client's own proof."""
    client, server = caller(), master()
    proof = proof_of(client, server)
    forged = m.Welcome(
        mac=proof.mac, peer="w", heartbeat_interval_s=1, lease_ttl_s=1, frame_bytes_max=1
    )
    with pytest.raises(Rejected) as caught:
        client.receive(forged)
    assert caught.value.code == "master_unproved"


def test_a_proof_reflected_from_the_master_is_worth_nothing_to_it() -> None:
    honest, server = caller(), master()
    welcome = only(server.receive(proof_of(honest, server)), m.Welcome)
    second = master()
    second.receive(hello())
    stolen = m.Proof(nonce=b"d" * 32, mac=welcome.mac)
    assert only(second.receive(stolen), m.Reject).code == "bad_token"


def test_the_two_directions_differ() -> None:
    parts = (TOKEN, 1, hello(), b"a" * 32, b"b" * 32)
    token, version, who, one, two = parts
    assert prove(token, CLIENT_CONTEXT, version, who, one, two) != prove(
        token, MASTER_CONTEXT, version, who, one, two
    )


def test_no_two_callers_share_a_transcript() -> None:
    """Lengths stand before the fields, so that moving a letter between them shows."""
    one = msgspec.structs.replace(hello(), name="ab", incarnation="c")
    two = msgspec.structs.replace(hello(), name="a", incarnation="bc")
    nonces = (b"a" * 32, b"b" * 32)
    assert transcript(b"x", 1, one, *nonces) != transcript(b"x", 1, two, *nonces)


@pytest.mark.parametrize(
    ("theirs", "ours", "chosen"),
    [([1], (1,), 1), ([1, 2, 3], (1, 2), 2), ([3, 2], (2, 3, 9), 3)],
)
def test_the_highest_common_version_is_chosen(
    theirs: list[int], ours: tuple[int, ...], chosen: int
) -> None:
    client, server = caller(who=hello(versions=theirs)), master(versions=ours)
    run(client, server)
    assert client.version == server.version == chosen


def test_without_a_common_version_both_lists_are_named() -> None:
    client, server = caller(who=hello(versions=[8, 9])), master(versions=(1, 2))
    rejection = only(server.receive(only(client.start(), m.Hello)), m.Reject)
    assert rejection.code == "version_unsupported"
    assert "[8, 9]" in rejection.reason
    assert "[1, 2]" in rejection.reason


def test_a_master_may_not_choose_what_was_not_offered() -> None:
    client = caller()
    client.start()
    with pytest.raises(PeerFault) as caught:
        client.receive(m.Challenge(version=2, nonce=b"n" * 32))
    assert caught.value.code == "version_unsupported"


def test_a_man_in_the_middle_can_not_lower_the_version() -> None:
    client, server = caller(who=hello(versions=[1, 2])), master(versions=(1, 2))
    (offer,) = client.start()
    assert isinstance(offer, m.Hello)
    challenge = only(server.receive(msgspec.structs.replace(offer, versions=[1])), m.Challenge)
    assert challenge.version == 1
    proof = only(client.receive(challenge), m.Proof)
    assert only(server.receive(proof), m.Reject).code == "bad_token"


def test_who_admits_has_the_last_word() -> None:
    full = m.Reject(code="name_taken", reason="another worker has this name")
    asked: list[str] = []

    def admit(who: m.Hello) -> m.Reject:
        asked.append(who.name)
        return full

    client, server = caller(), master(admit=admit)
    with pytest.raises(Rejected, match="name_taken"):
        run(client, server)
    assert asked == ["ada"]
    assert server.rejection == full


def test_who_admits_is_not_asked_about_those_without_the_token() -> None:
    def admit(who: m.Hello) -> m.Reject:
        raise AssertionError("asked")

    with pytest.raises(Rejected, match="bad_token"):
        run(caller("wrong"), master(admit=admit))


def test_messages_out_of_order_are_faults() -> None:
    proof = m.Proof(nonce=b"n" * 32, mac=b"m" * 32)
    with pytest.raises(PeerFault, match="not_allowed"):
        master().receive(proof)
    server = master()
    server.receive(hello())
    with pytest.raises(PeerFault, match="not_allowed"):
        server.receive(hello())
    client = caller()
    client.start()
    with pytest.raises(PeerFault, match="not_allowed"):
        client.receive(
            m.Welcome(
                mac=b"m" * 32, peer="x", heartbeat_interval_s=1, lease_ttl_s=1, frame_bytes_max=1
            )
        )


def test_a_second_proof_after_a_wrong_one_is_not_judged() -> None:
    """One guess a connection: a guesser pays a new handshake each time."""
    server = master()
    good = proof_of(caller(), server)
    server.receive(m.Proof(nonce=b"n" * 32, mac=b"m" * 32))
    with pytest.raises(PeerFault, match="not_allowed"):
        server.receive(good)


def test_a_reported_fault_ends_it() -> None:
    report = m.ProtocolFault(code="bad_message", reason="what?")
    for machine in (caller(), master()):
        with pytest.raises(PeerFault, match="what"):
            machine.receive(report)


def test_a_handshake_starts_once() -> None:
    client = caller()
    client.start()
    with pytest.raises(LocalFault):
        client.start()
