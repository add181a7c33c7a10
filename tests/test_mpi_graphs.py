"""Graphs over MPI: two trees on the same edges, ranks that disagree, and the neighbours of MPI's own grids."""

import pytest
from test_mpi import MS, A, all_assert, comm, emulate, engine, logging, of_this_rank, same_events, simulate

from mpibench import graphs
from mpibench.network import Network
from mpibench.topology import Graph

__all__ = ["all_assert", "comm", "emulate", "engine"]  # fixtures
mpi = pytest.mark.mpi(min_size=2)


async def forever(node):
    await node.recv(None)


@mpi
def test_a_message_on_one_tree_is_never_received_on_the_other(comm, all_assert, emulate, toy_cluster):
    """On a ring of one direction both trees of rank 0 have the edges 1 -> 2 -> ...: a rank waits on the tree up, with
    the same tag, when what comes first is for the tree down."""
    graph = graphs.directed_ring(comm.size)
    network = Network(graph, dict.fromkeys(graph.edges, 1), [1.0] * comm.size)

    async def peer(node, log):
        down, up = node.join(network.tree_from(0)), node.join(network.tree_to(0))
        sums = [up.recv(A) for _ in up.sources]  # older than whatever comes
        if node.rank:
            source, body = await down.recv(A)
            log.append(("down", node.now(), source, body, [request.done for request in sums]))
        for child in down.destinations:
            down.send(child, A, "point", node.rank)
        await node.sleep(0.02)
        for request in sums:
            source, body = await request
            log.append(("up", node.now(), source, body, len(down.drain(A) + node.drain(A))))
        if not node.rank:
            return
        up.send(up.destinations[0], A, "sum", node.rank)
        await forever(node)

    cluster, make = toy_cluster(comm.size, latency_ns=5 * MS), logging(*[peer] * comm.size)
    emulation, logs = emulate(cluster, make, time_scale=4.0)
    log = of_this_rank(logs, emulation, comm.rank)
    before, shares = (comm.rank - 1) % comm.size, 0 if comm.rank == 1 else 1
    heard = [("down", before, ("point", before), [False] * shares)] if comm.rank else []
    heard += [("up", before, ("sum", before), 0)] * shares
    all_assert([(tree, *rest) for tree, _, *rest in log] == heard, log)
    simulation, expected = simulate(cluster, make)
    all_assert(log == expected[comm.rank], f"{log} instead of {expected[comm.rank]}")
    all_assert(same_events(emulation, simulation, comm.rank), "other events than in the simulation")


@mpi
def test_ranks_that_join_different_graphs_are_refused_on_all_of_them(comm, all_assert, engine, toy_cluster):
    async def peer(node):
        node.join(graphs.ring(node.size))
        edges = {(0, 1): None} | ({(1, 0): None} if node.rank == 1 else {})
        node.join(Graph(node.size, edges))
        await forever(node)

    said = ""
    try:
        engine("emulated").run(toy_cluster(comm.size), peer)
    except RuntimeError as error:
        said = str(error)
    all_assert(said == "ranks join different graphs as communicator 2; all must give the same one", said)


@mpi
def test_neighbours_are_those_of_mpi_s_grids(comm, all_assert, engine, toy_cluster):
    """Each once, where a periodic dimension of two names it twice, and none beyond a border."""
    from mpi4py import MPI

    n = comm.size
    grids = [([n], [True], graphs.ring(n)), ([n], [False], graphs.line(n))]
    for rows in range(1, n + 1):
        if n % rows == 0:
            shape = rows, n // rows
            grids += [(shape, [True] * 2, graphs.torus(n, *shape)), (shape, [False] * 2, graphs.mesh(n, *shape))]
    for shape, periods, graph in grids:
        cart = comm.Create_cart(shape, periods, reorder=False)
        ends = {end for dimension in range(len(shape)) for end in cart.Shift(dimension, 1)}
        cart.Free()
        neighbours = sorted(ends - {MPI.PROC_NULL, comm.rank})  # oneself: in a periodic dimension of 1
        joined = []

        async def peer(node, graph=graph, joined=joined):
            node.join(graph)
            found = node.engine.wire.comms[-1].Get_dist_neighbors()
            joined.extend(list(side) for side in found[:2])
            await node.sleep(0.001 if node.rank == 0 else 1)

        engine("emulated").run(toy_cluster(n), peer)
        all_assert(joined == [neighbours, neighbours], f"{joined} instead of {neighbours} of {shape}, {periods}")
