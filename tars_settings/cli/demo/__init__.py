"""The demo: a small voice robot's fleet in real processes, and what can happen to it."""
