"""Values of the protocol: names, topics, wire forms, stamps, deltas, registers, heads.

Pure: no socket, clock, disk, randomness, thread, logging, pydantic or paho, even indirectly. msgspec's one door.
"""
