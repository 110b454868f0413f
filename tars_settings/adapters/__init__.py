"""The edge: one foreign library, one port, one file. Adapters do not see each other."""
