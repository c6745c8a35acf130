"""Watching: what the ledger says about cost, speed and learning."""
