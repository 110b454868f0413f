"""Tests of the pure layer of the same name."""
