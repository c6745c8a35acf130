"""Policies: what chooses among actions, what guards a choice, what a reward is, and the loop that learns from it."""
