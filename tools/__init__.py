"""Programs for those who work on Windlass; none of them is installed with it."""
