"""The language that every Lookout process speaks: frames, messages, handshake.

Owns how bytes on a connection become typed messages and back, and the proof
that both ends hold the same join token. Leaves what a message *means* to
`master` and `worker`.
"""
