"""Tests of the adapters, against real brokers and real files where there are any."""
