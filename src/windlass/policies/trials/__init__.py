"""Trials: experiments at a decision point. Their plan, who gets which variant, and what came of it, as a fold.

What the numbers say (the tests, the verdict) is in `improve/experiments`; the mathematics are in `stats/trials`.
"""
