"""Durable workflows. `durable.py` is the only door to the engine underneath."""
