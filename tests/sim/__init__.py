"""The simulator, run: seeds, invariants and mutants."""
