"""The ranges that parameters of algorithms, problems and models of heterogeneity are declared with.

A dataclass field annotated `Positive` is checked before anything starts, and `describe` prints its range.
"""

import math
from typing import Annotated

from annotated_types import Ge, Gt, Le, Predicate

FINITE = Predicate(math.isfinite)

Positive = Annotated[float, Gt(0), FINITE]
NonNegative = Annotated[float, Ge(0), FINITE]
Finite = Annotated[float, FINITE]
Probability = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Threshold = Annotated[int | float, Ge(1), Predicate(lambda r: r == math.inf or r == int(r))]  # whole, or inf for none
Limit = Annotated[int | float, Ge(0), Predicate(lambda r: r == math.inf or r == int(r))]  # the same, and 0
Rank = Annotated[int, Ge(0)]
