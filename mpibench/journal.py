"""What a rank did and when, for counters that are wanted after the run."""

from array import array

import numpy


class Journal:
    """What a rank has sent and computed, and when, so that its counters can be read at any instant of the run.

    A row is (instant in ns, destination or COMPUTED or STOPPED, how many, bytes or nanoseconds, cost in gradients).
    Rows of one kind within `resolution` ns are one, so that a long native run does not fill the memory.
    """

    def __init__(self, resolution=0):
        self.resolution = resolution
        self.rows = array("d")
        self.last = {}  # kind -> (instant, place) of its last row

    def note(self, now, kind, amount, cost):
        """Count a message or a computation."""
        if self.resolution:
            began, place = self.last.get(kind, (-self.resolution, 0))
            if now < began + self.resolution:
                self.rows[place] += 1
                self.rows[place + 1] += amount
                self.rows[place + 2] += cost
                return
            self.last[kind] = now, len(self.rows) + 2
        self.rows.extend((now, kind, 1, amount, cost))

    def __len__(self):
        return len(self.rows) // 5

    def until(self, limit, rank):
        """The rows (r, 5) of this rank up to the last event that counts, `limit` = (instant, rank)."""
        rows = numpy.array(self.rows).reshape(-1, 5)
        return rows[(rows[:, 0] < limit[0]) | ((rows[:, 0] == limit[0]) & (rank <= limit[1]))]
