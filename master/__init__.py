"""The master: a durable job table, a scheduler, and the service that runs them.

`scheduler` and `detector` are pure (time comes in as an argument); `store`
keeps jobs and images on disk; `core` is the asyncio process that owns both;
`cli` starts, supervises and shows them.
"""
