"""The userspace backend: TUN devices joined by one process that does what `sch_netem` does.

`dice`, `jitter`, `direction` and `switch` are pure: time, lengths and seeds in,
decisions and departures out. `process` is the shell around them.
"""
