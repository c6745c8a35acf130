"""Measures how well `src/windlass` keeps the house style; run as `python -m tools.house`."""
