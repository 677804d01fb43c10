"""A real master's wire in a process of its own, for the fuzzer to break.

Prints its port as JSON, answers heartbeats, and when its input ends prints
what it counted. It holds no state, so that what grows is the wire's.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

from wire import aio
from wire import messages as m
from wire.aio import Admission, Connection, Limits


async def main(token: str) -> None:
    """Serve until stdin ends."""
    heard = 0

    def on_message(connection: Connection, message: m.Message) -> None:
        nonlocal heard
        heard += 1
        if isinstance(message, m.Heartbeat):
            connection.send(m.HeartbeatAck(seq=message.seq))

    def on_peer(connection: Connection) -> None:
        connection.on_message = on_message

    def admit(hello: m.Hello, address: str) -> Admission:
        return Admission(peer="peer")

    # A short linger: the fuzzer hangs up late, and thousands would wait at once.
    limits = Limits(linger_s=0.2)
    server = await aio.serve("127.0.0.1:0", on_peer, token=token, admit=admit, limits=limits)
    print(json.dumps({"port": server.port}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps({"rejections": server.rejections, "heard": heard}), flush=True)
    server.close()
    await server.wait_closed()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
