"""The agenda of virtual time against a heap of all events."""

from heapq import heappop, heappush
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpibench import agenda
from mpibench.engines.simulation import Simulation
from mpibench.node import ENDS, LINKS, NEVER, Deadlock
from mpibench.repetition import REPEATED

RANKS = 4
EVENTS = st.tuples(
    st.integers(0, 9), st.integers(0, RANKS - 1), st.sampled_from([0, 2, LINKS, ENDS, REPEATED])
)  # in ns from now
PLANS = st.lists(
    st.tuples(EVENTS, st.lists(EVENTS, max_size=4), st.lists(st.integers(0, 80), max_size=30)), max_size=60
)


class Heap:
    """Events in one heap, ordered by (time, rank, kind, age)."""

    def __init__(self):
        self.time, self.age, self.events, self.front = 0, 0, [], -1

    def at(self, time, rank, kind, event):
        self.age += 1
        heappush(self.events, (time, rank, kind, self.age, event))

    def forget(self, event):
        pass

    def run(self, until):
        while self.events:
            time, rank, _, _, event = heappop(self.events)
            if time > until:
                return
            if not event.cancelled:
                self.time, self.front = time, max(self.front, rank) if time == self.time else rank
                event.happen()


class Simulated(Simulation):
    def run(self, until):
        box = SimpleNamespace(put=lambda source, event: event.happen())
        nodes = [SimpleNamespace(fingerprint=0, tasks={}, inboxes=[[box]]) for _ in range(RANKS)]
        try:
            self.loop(nodes, [SimpleNamespace(done=False)] * RANKS, until)
        except Deadlock:
            assert not [*self.later(), *self.present, *self.added]


class Event:
    """It adds and cancels others when it happens."""

    function = args = None
    communicator, tag = SimpleNamespace(index=0), 0  # as a message

    def __init__(self, run, number):
        self.run, self.number, self.cancelled, self.body = run, number, False, self

    def happen(self):
        self.run.log.append((self.run.engine.time, self.number, self.run.engine.front))
        _, more, cancelled = self.run.plans[self.number % len(self.run.plans)]
        for place, event in enumerate(more if self.number < len(self.run.plans) else []):
            self.run.add(event, len(self.run.plans) * (1 + place) + self.number)
        for number in cancelled:
            self.run.cancel(number)


class Run:
    def __init__(self, engine, plans, until):
        self.engine, self.plans, self.log, self.events = engine, plans, [], {}
        for number, (event, _, _) in enumerate(plans):
            self.add(event, number)
        engine.run(until)

    def add(self, event, number):
        ns, rank, kind = event
        self.events[number] = kind, Event(self, number)
        self.engine.at(self.engine.time + ns, rank, kind, self.events[number][1])

    def cancel(self, number):
        kind, event = self.events.get(number, (LINKS, None))
        if kind >= ENDS and not event.cancelled and number not in [n for _, n, _ in self.log]:
            event.cancelled = True
            self.engine.forget(event)


@given(plans=PLANS, until=st.one_of(st.integers(0, 6), st.just(NEVER)))
@settings(max_examples=300, deadline=None)
@pytest.mark.parametrize("most_dead", [0, 1, 5, 10_000])
def test_events_happen_in_the_order_of_one_heap(most_dead, plans, until):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agenda, "MOST_DEAD", most_dead)
        assert Run(Simulated(), plans, until).log == Run(Heap(), plans, until).log
