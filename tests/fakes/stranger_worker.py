"""A worker from `wire/PROTOCOL.md` alone, nothing of Lookout: stranger_worker.py HOST PORT TOKEN.

It pretends to classify: every image is of the first class."""

import hashlib
import hmac
import os
import socket
import sys
import threading

import msgpack

host, port, token = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sock = socket.create_connection((host, port), timeout=10)
stream, sending, leaving = sock.makefile("rb"), threading.Lock(), threading.Event()
name, incarnation, nonce = f"stranger-{os.getpid()}", os.urandom(8).hex(), os.urandom(32)
beat = {"type": "Heartbeat", "seq": 0, "progress": 0, "held": 0, "executing": 0}


def send(**message):
    payload = msgpack.packb(message)
    with sending:
        sock.sendall(len(payload).to_bytes(4, "big") + payload)


def receive():
    header = stream.read(4) or sys.exit("the master closed the connection")
    message = msgpack.unpackb(stream.read(int.from_bytes(header, "big")))
    if message["type"] in ("Reject", "ProtocolFault"):
        sys.exit(f"{message['code']}: {message['reason']}")
    return message


def proof(context):
    fields = [context, str(challenge["version"]), "1", "worker", name, incarnation]
    fields = [field.encode() for field in fields] + [challenge["nonce"], nonce]
    text = b"".join(len(field).to_bytes(2, "big") + field for field in fields)
    return hmac.digest(token.encode(), text, hashlib.sha256)


def send_heartbeats():
    while not leaving.wait(welcome["heartbeat_interval_s"]):
        beat["seq"] += 1
        send(**beat)


send(type="Hello", versions=[1], role="worker", name=name, incarnation=incarnation, slots=1)
challenge = receive()
send(type="Proof", nonce=nonce, mac=proof("lookout client proof"))
welcome = receive()
if not hmac.compare_digest(welcome["mac"], proof("lookout master proof")):
    sys.exit("the master did not prove the token")
sock.settimeout(welcome["lease_ttl_s"])
threading.Thread(target=send_heartbeats, daemon=True).start()
while (message := receive())["type"] not in ("Goodbye", "Drain"):
    if message["type"] == "Model":
        card = message["card"]
        send(type="Ready", model=card["id"], engine="stranger", slots=1, warmup_ms=0.0)
    elif message["type"] == "Assign":
        lease = {"job": message["job"], "token": message["token"]}
        send(type="Started", leases=[lease])
        top5 = [{"label": card["classes"][0], "class_id": 0, "confidence": 1.0}]
        send(type="Result", model=card["id"], top5=top5, timings_ms={"infer": 0.1}, **lease)
        beat["progress"] += 1
leaving.set()
send(type="Goodbye", reason="told to leave")
