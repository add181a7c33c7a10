"""Numbers as readers see them; files keep them whole."""

import math

import numpy as np

RELATION = {"lower": "≤", "higher": "≥"}  # of a metric to its target, by the direction that is better


def number(x, digits=3):
    """`x` rounded to so many digits, without exponent unless it is very large or small."""
    if math.isnan(x):
        return "undefined"
    if x and math.isfinite(x) and not 1e-4 <= abs(x) < 1e6:
        return f"{x:.{digits}g}"
    return np.format_float_positional(x, digits, unique=False, fractional=False, trim="-").replace("inf", "∞")


def interval(low, high):
    """ "[low, high]"; an end at 0 or infinity bounds nothing and is called open."""
    return f"[{', '.join('open' if end in (0, math.inf) else number(end) for end in (low, high))}]"


def of_target(row):
    """The target of a row of a table: "≤ 0.1", with a star where it is the headline."""
    return f"{RELATION[row.direction]} {row.target:g}{' *' if row.headline else ''}"
