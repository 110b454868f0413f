"""Golden vectors of the protocol; see docs/protocol.rst."""
