"""The replicator: ``handle(event, now_s) -> effects``.

Pure: what it needs (time, randomness, keys) is an argument, what it wants done is returned. A broker keeps the last
publish, not the largest stamp; so whoever holds the winner publishes it again, byte for byte, from what is known of the
broker's state and within a budget.

Theory of operation. A peer merges whatever verifies, from wherever it came (live message, probe, segment, replica,
file): :mod:`.holdings` is what it holds, :mod:`.peer` how received bytes change that. It learns what it must hold from
the writers' heads, by exact topics: :mod:`.sync` on top of :mod:`.probe`, and trust by :mod:`.trusting`. It compares
what the broker shows with what it holds and repairs the difference: :mod:`.mending`, within the limits of
:mod:`.repair`. A peer that holds a writer's key signs deltas and its own head (:mod:`.writing`, :mod:`.log`) and floors
(:mod:`.compact`). :mod:`.replicator` joins them.

Not here yet, and where it belongs: the beacon (:mod:`.sync`).
"""
