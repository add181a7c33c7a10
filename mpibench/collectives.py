"""Collective operations out of `send` and `recv`, for algorithms in which all ranks do something together.

Every rank of the node calls the same collectives of a tag in the same order, on a tag that is not `newest_only`; then
collectives may follow each other without a barrier, as every pair of ranks keeps its order. A call ends when its result
is here: this rank's last messages may still be under way, and they are frozen like everything handed over.

Sums are added in an order that depends on ranks only, never on who arrives first, and every rank gets the bits that one
rank computed. So they are the same on every rank and on every engine.

n is the number of ranks and L the modelled bytes of a vector. Numbers besides vectors are never sent.
"""


async def barrier(node, tag):
    """Wait until every rank has come here.

    Messages: n ceil(log2 n) of 0 bytes, ceil(log2 n) one after another: in round k = 0, 1, ... rank r tells r + 2^k and
    hears from r - 2^k, modulo n. D. Hensgen, R. Finkel, U. Manber, "Two Algorithms for Barrier Synchronization",
    International Journal of Parallel Programming 17 (1988).
    """
    distance = 1
    while distance < node.size:
        node.send((node.rank + distance) % node.size, tag)
        await node.recv(tag, source=(node.rank - distance) % node.size)
        distance *= 2


async def broadcast(node, tag, x, root=0):
    """What rank `root` calls x, on every rank; the other ranks' x is not looked at.

    x is anything that can be sent in one piece: a vector, a number, None, or a tuple of them.

    Messages: n - 1 of x, floor(log2 n) one after another, down a binomial tree whose root is `root`.
    """
    place = (node.rank - root) % node.size
    reach = 1
    while reach < node.size and not place & reach:  # the lowest bit of a place says how far below it the tree reaches
        reach *= 2
    if place:
        _, (x,) = await node.recv(tag, source=(node.rank - reach) % node.size)
    while reach > 1:
        reach //= 2
        if place + reach < node.size:
            node.send((node.rank + reach) % node.size, tag, x)
    return x


async def tree_all_reduce(node, tag, x):
    """The sum of x over all ranks, on every rank; x is a vector, or a number.

    Messages: 2 (n - 1) of L bytes, 2 floor(log2 n) one after another, up a binomial tree to rank 0 and down again.

    Order of summation: by halves, ((x_0 + x_1) + (x_2 + x_3)) + ((x_4 + x_5) + (x_6 + x_7)) and so on; where the number
    of ranks is no power of two, the ranks that are missing at the end are left out.
    """
    total = x
    reach = 1
    while reach < node.size and not node.rank & reach:
        if node.rank + reach < node.size:
            _, (part,) = await node.recv(tag, source=node.rank + reach)
            total = total + part
        reach *= 2
    if node.rank:
        node.send(node.rank - reach, tag, total)
    return await broadcast(node, tag, total)


async def ring_all_reduce(node, tag, x):
    """The sum of x over all ranks, on every rank; x is a vector, cut into n pieces of almost equal length.

    Messages: 2 n (n - 1), 2 (n - 1) one after another, each to the next rank of the ring. A rank sends L (n - 1) / n
    bytes twice, up to the rounding of pieces, of which some are empty where x is shorter than n. P. Patarasuk, X. Yuan,
    "Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations", J. Parallel and Distributed Computing 69
    (2009).

    Order of summation: piece c = 0..n-1 is ((x_c + x_{c+1}) + x_{c+2}) + ... + x_{c-1}, ranks modulo n.
    """
    n, rank = node.size, node.rank
    if n == 1:
        return x
    after, before = (rank + 1) % n, (rank - 1) % n
    places = [slice(len(x) * c // n, len(x) * (c + 1) // n) for c in range(n)]
    pieces = [x[place] for place in places]
    for step in range(n - 1):  # each piece goes round and grows
        node.send(after, tag, pieces[(rank - step) % n])
        _, (part,) = await node.recv(tag, source=before)
        pieces[(rank - step - 1) % n] = part + pieces[(rank - step - 1) % n]
    for step in range(n - 1):  # each sum goes round
        node.send(after, tag, pieces[(rank - step + 1) % n])
        _, (pieces[(rank - step) % n],) = await node.recv(tag, source=before)
    total = x * 1  # a new vector like x, all of which is replaced
    for place, piece in zip(places, pieces, strict=True):
        total[place] = piece
    return total
