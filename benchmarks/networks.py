"""Networks: CPU milliseconds that a step of Fragile SGD takes in simulation, and CPU seconds in which a graph of 10,000
nodes is generated and checked.

The step is that of E-Fragile (jobs/fragile-slow.toml): a mesh of 10 x 10 ranks, links of 10 s a vector, a gradient a
second, 1,000 dimensions, S = 120. In one step all ranks together compute some 3,900 gradients and send some 490
messages, though 13 ranks contribute. What a run takes once, as the choice of the pivot, is not in it: figures are
differences of runs of two lengths.

A graph is generated from its topology's table, refused if it is disconnected, and given its roots, its hash, its mixing
weights, and the two trees of shortest paths of one rank.
"""

import gc
import time

from harness import ROOT, Figure, Row, arguments, in_turn, show

STEPS = 20, 120  # of the two runs
NODES = 10_000
MILLISECONDS, SECONDS = 4, 5  # bars
GRAPHS = {
    "mesh": {"rows": 100, "columns": 100},
    "torus": {"rows": 100, "columns": 100},
    "ring": {},
    "exponential": {},
    "bipartite_exponential": {},
    "binary_tree": {},
    "caterpillar": {},
    "star": {},
    "random_regular": {"degree": 4},
    "erdos_renyi": {},
}


def cpu_seconds(function, *given):
    """Of this process, which does not pay for what former runs have left."""
    gc.collect()
    began = time.process_time()
    function(*given)
    return time.process_time() - began


def run(updates):
    """E-Fragile with slow links, so many steps."""
    from mpibench import experiment, runner

    changes = ["algorithm.fragile.stepsize=2.0", "algorithm.fragile.batch=120"]
    changes.append(f"experiment.stop={{updates={updates}}}")
    cells = experiment.load(ROOT / "jobs" / "fragile-slow.toml", changes).cells()
    runner.simulate(next(cell for cell in cells if cell.algorithm_name == "fragile"), 0)


def step():
    """CPU milliseconds of one step."""
    short, long = (cpu_seconds(run, updates) for updates in STEPS)
    return 1000 * (long - short) / (STEPS[1] - STEPS[0])


def make(name, parameters):
    """A graph and what is asked of it."""
    import numpy

    from mpibench import topology, weights
    from mpibench.network import Network

    graph = topology.build({"name": name, **parameters}, NODES)
    assert len(topology.roots(graph)) == NODES and len(graph.hash) == 64
    (weights.metropolis if graph.undirected else weights.uniform_row)(graph)
    network = Network(graph, dict.fromkeys(graph.edges, 10**9), numpy.ones(NODES))
    network.tree_from(0), network.tree_to(0)


def main():
    given = arguments(__doc__, repetitions=3)
    run(2)  # imports
    make("ring", {})
    cases = {"a step of Fragile, S = 120": step}
    cases |= {name: lambda name=name, own=own: cpu_seconds(make, name, own) for name, own in GRAPHS.items()}
    found = {name: Figure.of(values) for name, values in in_turn(cases, given.repetitions).items()}
    rows = []
    for name, figure in found.items():
        unit, bar = ("ms of CPU", MILLISECONDS) if name not in GRAPHS else ("s of CPU", SECONDS)
        rows.append(Row(name, unit, figure, bar=f"<= {bar}", met=figure.median <= bar))
    show(f"Fragile on a mesh of 100 ranks, and graphs of {NODES:,} nodes", rows, given.json)


if __name__ == "__main__":
    main()
