"""Whatever comes from outside, as targets for bytes: only errors of our own may escape.

``python -m tests.fuzz.run 50000`` runs as many inputs over all targets.
"""
