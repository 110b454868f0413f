"""For users' tests and for ours: a fleet in virtual time.

:class:`Mesh` runs real replicators against a broker model, seeded, with faults that are counted.
"""
