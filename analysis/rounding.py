"""Numbers as readers see them; files keep them whole."""

import math

import numpy as np


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
