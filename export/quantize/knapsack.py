"""The least damaging choices for every total cost: a multiple-choice knapsack by dynamic programming.

One option is taken for each module; costs and damages add up. Costs are put into buckets, and each bucket keeps the few
least damaging partial choices, so that the runners-up are known too (Kellerer, Pferschy and Pisinger, Knapsack
Problems, 2004, chapter 11).
"""

from collections.abc import Sequence
from typing import NamedTuple

BUCKETS = 400
KEPT = 24


class Option(NamedTuple):
    """One scheme for one module: what it adds to the cost (negative: saves), and the damage that it does."""

    choice: str
    cost: float
    damage: float


class Plan(NamedTuple):
    """One option for each module."""

    damage: float
    cost: float
    choices: tuple[str, ...]


def least_damaging(options: Sequence[Sequence[Option]]) -> list[Plan]:
    """Plans by increasing damage: of each bucket of total cost the `KEPT` best."""
    low = sum(min(option.cost for option in each) for each in options)
    high = sum(max(option.cost for option in each) for each in options)
    width = max((high - low) / BUCKETS, 1e-12)
    plans = [Plan(damage=0.0, cost=0.0, choices=())]
    floor = 0.0  # the least that the modules so far can cost
    for each in options:
        floor += min(option.cost for option in each)
        buckets: dict[int, list[Plan]] = {}
        for plan in plans:
            for option in each:
                cost = plan.cost + option.cost
                more = Plan(plan.damage + option.damage, cost, (*plan.choices, option.choice))
                buckets.setdefault(int((cost - floor) / width), []).append(more)
        plans = [plan for found in buckets.values() for plan in sorted(found)[:KEPT]]
    return sorted(plans)
