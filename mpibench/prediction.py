"""What theory says of a run before it begins: seconds per update, and updates and seconds to each target.

Seconds per update are those of `mpibench.forms`; the number of updates to a target is `mpibench.theory.updates`, for
theory's step sizes and with the same constants for all methods. So predicted seconds are to be compared with each
other: how long a run really takes depends on its step size and on how far its problem is from the worst case.
"""

from functools import lru_cache

from mpibench import theory
from mpibench.forms import FORMS
from mpibench.machine import Machine

EPS = {  # metric -> ε of its value v, by L and f*
    "gradient_norm_squared": lambda v, L, minimum: v,
    "gap": lambda v, L, minimum: 2 * L * v,
    "loss": lambda v, L, minimum: 2 * L * (v - minimum),
}
UNKNOWN = {"smoothness": None, "gap": None, "variance": None, "minimum": None, "exact": False}


@lru_cache(maxsize=16)
def constants_of(problem, workers, seed):
    """(constants of the problem that this seed prepares, which it may leave out; bytes of a model vector; their number
    of coordinates)."""
    prepared = problem.prepare(workers, seed)
    constants = prepared.constants() if hasattr(prepared, "constants") else UNKNOWN
    return constants, prepared.model_bytes, prepared.dimension


def form_of(cell, seed):
    """(the Form of a cell, its Machine); None where theory has nothing for its algorithm, or no speeds are modelled."""
    if cell.algorithm_name not in FORMS or cell.compute is None or cell.clock == "native":
        return None
    machine = Machine(cell, seed, *constants_of(cell.problem, cell.workers, seed)[1:])
    return FORMS[cell.algorithm_name](cell.algorithm, machine), machine


def update_seconds(form, machine):
    """{"least", "expected", "most"} of a form."""
    if not machine.fixed:
        return {"least": None, "expected": form.instants and machine.count(form), "most": None}
    expected = form.expected
    if expected is None and form.instants is not None and (expected := machine.count(form)) is not None:
        least, most = (bound or expected for bound in (form.least, form.most))
        expected = min(max(expected, least), most)  # counting ends within a period
    return {"least": form.least, "expected": expected, "most": form.most}


def eps_of(metric, value, constants):
    """The squared gradient norm that a target of this metric implies; None where there is none.

    Where f(x) - f* <= v, ||∇f(x)||^2 <= 2Lv: a necessary condition, so the target is not reached before. Of a loss
    whose minimum is not known a lower bound of it is taken.
    """
    if metric not in EPS or constants["smoothness"] is None:
        return None
    eps = EPS[metric](value, constants["smoothness"], constants["minimum"])
    return eps if eps > 0 else None


def predict(cell, seed):
    """The prediction of a run, as it stands in its file (`mpibench.record`); None where there is no formula."""
    found = form_of(cell, seed)
    if found is None:
        return None
    form, machine = found
    return put_together(cell, seed, form, update_seconds(form, machine))


def put_together(cell, seed, form, seconds):
    """A prediction from its parts."""
    constants = constants_of(cell.problem, cell.workers, seed)[0]
    L, D, s2 = (constants[name] for name in ("smoothness", "gap", "variance"))
    targets = []
    for value in cell.targets.values:
        eps = eps_of(cell.targets.metric, value, constants)
        updates = total = None
        if eps is not None and form.delay is not None:
            updates = theory.updates(L, D, s2, eps, form.delay, form.batch)
            total = updates * seconds["expected"] if seconds["expected"] is not None else None
        targets.append({"value": value, "eps": eps, "updates": updates, "seconds": total})
    shown = {name: constants[name] for name in ("smoothness", "gap", "variance", "exact")}
    return {"update_seconds": seconds, "targets": targets, "constants": shown, "source": form.source}


def predictions(cells, seed):
    """The prediction of each cell, counted once for all that differ by their step sizes only."""
    counted, found = {}, []
    for cell in cells:
        shape = (cell.algorithm_name, *(f"{k}={v}" for k, v in cell.parameters.items() if not k.endswith("stepsize")))
        if shape not in counted:
            pair = form_of(cell, seed)
            counted[shape] = pair and (pair[0], update_seconds(*pair))
        found.append(counted[shape] and put_together(cell, seed, *counted[shape]))
    return found
