"""The statistics of experiments: group-sequential tests, tests of rates, means and ranks, planning, corrections.

Numbers in, numbers out; numpy and scipy.special only, which this package alone imports.
"""
