"""The events to come of all ranks in virtual time: a heap of instants, and for each of them what happens then.

Modelled times often coincide, so a heap of instants stays smaller than one of events, and integers compare faster than
tuples. An event is an entry (rank, kind, age, event) of its instant; sorted, these are in the order of law 8.
"""

from heapq import heappush

MOST_DEAD = 10_000  # events that were called off and still have a place


class Agenda:
    """What `time`, the present, has in store and what comes after it."""

    def __init__(self):
        super().__init__()
        self.time = 0  # in ns
        self.age = 0  # of the newest event
        self.instants = []  # a heap, and not the present
        self.events = {}  # instant -> an entry or, where there are several, a list of them
        self.present = []  # what still happens now, the last first
        self.added = []  # what was added to that since it became the present: a heap that stays small
        self.dead, self.most_dead = 0, MOST_DEAD  # a guess: making room does not look at the present

    def at(self, time, rank, kind, event):
        """Let this event happen."""
        self.age += 1
        entry = rank, kind, self.age, event
        if time <= self.time:
            heappush(self.added, entry)
            return
        others = self.events.get(time)
        if others is None:  # mostly, where times are random: then a list would be slow
            self.events[time] = entry
            heappush(self.instants, time)
        elif type(others) is list:
            others.append(entry)
        else:
            self.events[time] = [others, entry]

    def forget(self, event):
        """This computation or sleep is cancelled, and whoever comes to it will skip it. When most are like it, make
        room."""
        self.dead += 1
        if self.dead > self.most_dead:
            alive = [(time, entry) for time, entry in self.later() if not entry[3].cancelled]
            if len(alive) < self.dead:
                self.events.clear()
                for time, entry in alive:
                    self.events.setdefault(time, []).append(entry)
                self.instants[:] = sorted(self.events)
                self.dead = 0
            self.most_dead = max(MOST_DEAD, 2 * self.dead)

    def later(self):
        """(instant, entry) of all that comes after the present."""
        for time, entries in self.events.items():
            for entry in entries if type(entries) is list else [entries]:
                yield time, entry
