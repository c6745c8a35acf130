"""Experiments as people see them: plans to read and to size, and what the numbers of one say, in a sentence."""
