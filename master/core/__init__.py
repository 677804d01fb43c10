"""The core: one asyncio process that owns all scheduling state.

`service` drives the pure scheduler and carries out its effects; `workers` and
`clients` turn the messages of the two kinds of peers into events and requests;
`intake` accepts submissions; `journal` writes outcomes; `views` and `hub` show
jobs to people. A slow disk, page or upload must not delay a heartbeat: the
store writes in a thread of its own, reads run in a small pool.
"""
