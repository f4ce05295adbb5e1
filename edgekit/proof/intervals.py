"""Intervals of proportions that were counted on a sample."""

import math

_Z95 = 1.959963984540054


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson, 1927)."""
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, _Z95**2
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_interval(lost: int, won: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a difference of two proportions on the same trials: (won - lost) / trials.

    Wald's with half a trial added to each of the four kinds of pairs (Agresti and Min, 2005): it stays honest where no
    pair differs.
    """
    n, b, c = trials + 2, lost + 0.5, won + 0.5
    centre = (c - b) / n
    half = _Z95 * math.sqrt(max(0.0, (b + c) - (c - b) ** 2 / n)) / n
    return max(-1.0, centre - half), min(1.0, centre + half)
