"""How many tries an experiment needs, and what power so many have. Sizes are per variant, and not rounded."""

from __future__ import annotations

import math

from scipy import special


def power_of_means(effect: float, n: float, alpha: float = 0.05) -> float:
    """Of a two-sided t test of two samples of `n` each. effect: difference in standard deviations of one value."""
    degrees, shift = 2.0 * n - 2.0, abs(effect) * math.sqrt(n / 2.0)
    limit = float(special.stdtrit(degrees, 1.0 - alpha / 2.0))
    return 1.0 - float(special.nctdtr(degrees, shift, limit)) + float(special.nctdtr(degrees, shift, -limit))


def size_for_means(effect: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Of a two-sided z test of two samples. effect: as above, not 0. The far tail counts too, as in the test."""
    if not effect or not (0.0 < alpha < power < 1.0):
        raise ValueError(f"effect {effect}, alpha {alpha}, power {power}; give an effect and 0 < alpha < power < 1")
    z = float(special.ndtri(1.0 - alpha / 2.0))
    # The shift of z that has the power; its far tail is looked for by bisection.
    low, high = 0.0, z + float(special.ndtri(power)) + 1.0
    for _ in range(80):
        shift = (low + high) / 2.0
        reached = float(special.ndtr(shift - z) + special.ndtr(-shift - z))
        low, high = (shift, high) if reached < power else (low, shift)
    return 2.0 * (high / effect) ** 2


def effect_of_rates(a: float, b: float) -> float:
    """Cohen's h: the difference of two rates on the scale on which its variance is the same everywhere."""
    return 2.0 * (math.asin(math.sqrt(b)) - math.asin(math.sqrt(a)))


def size_for_rates(base: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Of the two-sided z test of two rates, with unpooled variance under the alternative, pooled under the claim.

    Fleiss, Levin, Paik, "Statistical Methods for Rates and Proportions", 3rd edition, equation 4.14.
    """
    other = base + difference
    if not (0.0 < base < 1.0 and 0.0 < other < 1.0 and difference):
        raise ValueError(f"rates {base} and {other}; give two different rates between 0 and 1")
    middle = (base + other) / 2.0
    z, y = float(special.ndtri(1.0 - alpha / 2.0)), float(special.ndtri(power))
    spread = z * math.sqrt(2.0 * middle * (1.0 - middle)) + y * math.sqrt(base * (1.0 - base) + other * (1.0 - other))
    return (spread / difference) ** 2
