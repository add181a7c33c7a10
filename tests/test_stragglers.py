"""Stragglers and stalls: times by hand, their laws, and that nothing else changes for those who have none."""

import itertools
import math

import numpy
import pytest
import toy
from pydantic import TypeAdapter, ValidationError
from scipy import stats
from test_profiles import EXAMPLES, assert_share, drawn, example, rng

from mpibench import experiment, jitter
from mpibench.errors import InvalidInput
from mpibench.profiles import PROFILES, Equal, Exponential, Lognormal, Sqrt
from mpibench.runner import simulate
from mpibench.speeds import Drifting, OnOff, Piecewise
from mpibench.stragglers import Stall, Straggler

KNOWN = ("mean_seconds", "least_seconds")
SLOW = Straggler(workers=(2, 4), factor=3.0)


# Stragglers.


def test_a_straggler_by_hand():
    """Seconds 1, √2, √3, 2, of which the second and the last take three times as long."""
    profile = Sqrt(straggler=SLOW)
    expected = [1_000_000_000, 4_242_640_687, 1_732_050_808, 6_000_000_000]
    assert [profile.durations(i, 4, rng())(1.0, 0) for i in (1, 2, 3, 4)] == expected
    for known in KNOWN:
        assert getattr(profile, known)(4) == pytest.approx([ns / 1e9 for ns in expected])
    assert (profile.mean_seconds(4) == profile.least_seconds(4)).all(), "to the last bit: their times are fixed"
    assert profile.smallest_seconds(4) == 1.0
    assert Sqrt(straggler=Straggler(workers=(1, 2, 3, 4), factor=2.0)).smallest_seconds(4) == 2.0
    assert [profile.within(4, 4, seconds) for seconds in (2.0, 5.999, 6.0)] == [0.0, 0.0, 1.0]
    assert profile.within(1, 4, 1.0) == 1.0
    assert profile.rate(4, 4)(7.0) == pytest.approx(1 / 6) and profile.work(4, 4)(9.0) == pytest.approx(1.5)


@pytest.mark.parametrize("name", PROFILES)
def test_a_straggler_takes_all_of_a_profile_times_its_factor(name):
    plain, profile = example(name), example(name, straggler=Straggler(workers=(2,), factor=4.0))
    assert drawn(profile, 50, 2, 3) == pytest.approx(4.0 * drawn(plain, 50, 2, 3), abs=4e-9)
    assert drawn(profile, 50, 3, 3).tolist() == drawn(plain, 50, 3, 3).tolist()
    for known in KNOWN:
        assert getattr(profile, known)(3) == pytest.approx(getattr(plain, known)(3) * [1.0, 4.0, 1.0])
    for seconds in (0.3, 1.0, 2.5):
        assert profile.within(2, 3, 4.0 * seconds) == pytest.approx(plain.within(2, 3, seconds))
        assert profile.within(3, 3, seconds) == plain.within(3, 3, seconds)


def test_jitter_is_slower_too():
    profile = Sqrt(straggler=SLOW, jitter=jitter.Exponential(add_seconds=1.0))
    assert profile.least_seconds(4)[3] == 6.0 and profile.mean_seconds(4)[3] == 9.0
    times = drawn(profile, 4000, 4, 4)
    assert stats.kstest(times, stats.expon(loc=6.0, scale=3.0).cdf).pvalue > 0.01
    assert profile.within(4, 4, 6.0 + 3.0 * math.log(4)) == pytest.approx(0.75)
    kept = Lognormal(sigma=0.6, persistent=True, jitter=jitter.Exponential(), straggler=SLOW)
    plain = Lognormal(sigma=0.6, persistent=True, jitter=jitter.Exponential())
    assert drawn(kept, 30, 2, 4) == pytest.approx(3 * drawn(plain, 30, 2, 4), abs=3e-9)
    assert kept.within(2, 4, 3.0) == pytest.approx(plain.within(2, 4, 1.0))


def test_a_straggler_under_a_speed():
    """Half as fast until 10 s, then twice as fast: a job of 4 s ends at 8, begun at 6 at 11."""
    speed = Piecewise(seconds=(10.0,), factors=(0.5, 2.0))
    job = Equal(1.0, speed=speed, straggler=Straggler(workers=(1,), factor=4.0)).durations(1, 2, rng())
    assert [job(1.0, begin * 10**9) / 1e9 for begin in (0, 6, 10)] == [8.0, 5.0, 2.0]
    drift = Drifting(span_seconds=10.0, end="mirrored")  # seconds 4 and 2 change places
    profile = Equal(2.0, speed=drift, straggler=Straggler(workers=(1,), factor=2.0))
    assert [profile.durations(i, 2, rng())(1.0, 10**11) / 1e9 for i in (1, 2)] == [2.0, 4.0]


# Stalls.


@pytest.mark.parametrize("name", PROFILES)
def test_stalls_are_added_and_shift_nothing(name):
    profile = example(name, stall=Stall(probability=0.25, mean_seconds=2.0))
    stalled, undisturbed = drawn(profile, 300, 2, 3), drawn(example(name), 300, 2, 3)
    added = stalled - undisturbed
    generator = rng(3).spawn(2)[1]
    expected = []
    for _ in range(300):
        stalls, share = generator.random() < 0.25, generator.standard_exponential()
        expected.append(2.0 * share if stalls else 0.0)
    assert added == pytest.approx(expected, abs=2e-9) and 0 < (added > 0).sum() < 150


def test_fewer_of_the_same_jobs_stall():
    rare, often = (drawn(Equal(stall=Stall(probability=p, mean_seconds=2.0)), 400) for p in (0.1, 0.3))
    longer = drawn(Equal(stall=Stall(probability=0.3, mean_seconds=6.0)), 400)
    stalls = rare > 1.0
    assert 0 < stalls.sum() < (often > 1.0).sum() and (rare[stalls] == often[stalls]).all()
    assert longer - 1.0 == pytest.approx(3 * (often - 1.0), abs=1e-8)
    assert (drawn(Equal(stall=Stall(probability=0.0, mean_seconds=2.0)), 400) == 1.0).all()


def test_stalls_belong_to_workers():
    profile = Equal(stall=Stall(probability=1.0, mean_seconds=2.0, workers=(2,)))
    assert (drawn(profile, 50, 1) == 1.0).all() and (drawn(profile, 50, 2) > 1.0).all()
    assert profile.mean_seconds(3).tolist() == [1.0, 3.0, 1.0] and profile.smallest_seconds(3) == 1.0
    assert profile.within(1, 3, 1.0) == 1.0 and profile.within(2, 3, 1.0) == 0.0
    assert [profile.rate(i, 3)(0.0) for i in (1, 2)] == pytest.approx([1.0, 1 / 3])


def test_the_law_of_a_fixed_time_that_stalls():
    """P(T <= 2 + t) = 1 - p exp(-t / 5), from 1 - p at t = 0."""
    profile = Equal(2.0, stall=Stall(probability=0.2, mean_seconds=5.0))
    assert profile.mean_seconds(3).tolist() == [3.0] * 3 and profile.least_seconds(3).tolist() == [2.0] * 3
    assert profile.within(1, 3, 1.999) == 0.0 and profile.within(1, 3, 2.0) == pytest.approx(0.8)
    times = drawn(profile, 20_000)
    for t in (0.0, 0.1, 1.0, 5.0, 20.0):
        assert profile.within(1, 3, 2.0 + t) == pytest.approx(1 - 0.2 * math.exp(-t / 5))
        assert_share(times <= 2.0 + t, 1 - 0.2 * math.exp(-t / 5))
    assert abs(times.mean() - 3.0) < 5 * math.sqrt((2 * 0.2 - 0.2**2) * 25 / len(times))
    assert profile.smallest_seconds(3) == 2.0
    always = Equal(2.0, stall=Stall(probability=1.0, mean_seconds=5.0))
    assert always.smallest_seconds(3) == pytest.approx(2.0 - 5.0 * math.log(0.99))
    mostly = Equal(2.0, stall=Stall(probability=0.995, mean_seconds=5.0))  # 0.005 of the jobs take 2 s, and no fewer
    assert mostly.smallest_seconds(3) == pytest.approx(2.0 - 5.0 * math.log(1 - 0.005 / 0.995))


def test_the_law_of_a_random_time_that_stalls():
    """Exponential and a wait of the same mean: an Erlang time with probability p."""
    once, both = stats.expon(scale=2.0), stats.gamma(2, scale=2.0)
    for p in (0.1, 0.6, 1.0):
        profile = Exponential(2.0, stall=Stall(probability=p, mean_seconds=2.0))
        cdf = lambda t, p=p: (1 - p) * once.cdf(t) + p * both.cdf(t)  # noqa: E731
        assert stats.kstest(drawn(profile), cdf).pvalue > 0.01
        for t in (0.05, 0.5, 2.0, 7.0):
            assert profile.within(1, 5, t) == pytest.approx(cdf(t), abs=1e-3)
        assert cdf(profile.smallest_seconds(5)) == pytest.approx(0.01, rel=0.02)
        assert profile.mean_seconds(5) == pytest.approx([2.0 + 2.0 * p] * 5)


@pytest.mark.parametrize("name", PROFILES)
def test_what_is_known_of_stalls_stands_in_order(name):
    profile = example(name, straggler=SLOW.__class__(workers=(3,), factor=2.0))
    stalled = example(name, straggler=profile.straggler, stall=Stall(probability=0.5, mean_seconds=1.0))
    assert stalled.mean_seconds(3) == pytest.approx(profile.mean_seconds(3) + 0.5)
    assert stalled.least_seconds(3).tolist() == profile.least_seconds(3).tolist()
    assert stalled.smallest_seconds(3) >= profile.smallest_seconds(3) - 1e-9
    shares = [stalled.within(2, 3, t) for t in (0.1, 0.5, 1.0, 3.0, 1000.0)]
    assert shares == sorted(shares) and shares[-1] > 0.98
    assert all(s <= profile.within(2, 3, t) + 1e-12 for s, t in zip(shares, (0.1, 0.5, 1.0, 3.0, 1000.0), strict=True))


def test_a_speed_does_not_change_how_long_a_stall_waits():
    """Halted from 1 to 4 s: 0.5 s of work, the halt, 0.5 s of work, and then the wait."""
    speed = Piecewise(seconds=(1.0, 4.0), factors=(1.0, 0.0, 1.0))
    stall = Stall(probability=1.0, mean_seconds=2.0)
    job = Equal(speed=speed, stall=stall).durations(1, 1, rng(5))
    wait = rng(5).spawn(2)[1]
    wait.random()
    assert job(1.0, 500_000_000) == 4_000_000_000 + round(2e9 * wait.standard_exponential())
    wait.random()
    assert job(2.0, 10**10) == 2_000_000_000 + round(2e9 * wait.standard_exponential()), "what it costs does not, too"


def test_stalls_do_not_shift_random_halts():
    halts = OnOff(on_seconds=2.0, off_seconds=1.0, random=True)
    profile, free = (Equal(speed=halts, stall=s) for s in (Stall(probability=0.5, mean_seconds=1.0), None))
    one, other = (p.durations(1, 1, rng(3)) for p in (profile, free))
    wait = profile.stall.sampler(rng(3).spawn(2)[1])
    for begin in numpy.sort(rng(4).integers(0, 10**11, 100)):  # they meet the same path wherever jobs begin
        assert one(1.0, int(begin)) == other(1.0, int(begin)) + wait()


def test_what_is_known_of_stalls_under_a_speed():
    """8 s on and 2 s off: 2 s of work in 2.5 s, and half of the jobs wait for 2 s: 3.5 s."""
    profile = Equal(2.0, speed=OnOff(on_seconds=8.0, off_seconds=2.0), stall=Stall(probability=0.5, mean_seconds=2.0))
    assert profile.mean_seconds(2) == pytest.approx([3.5, 3.5]) and profile.least_seconds(2).tolist() == [2.0, 2.0]
    assert profile.rate(1, 2)(1.0) == pytest.approx(1 / 2.8) and profile.rate(1, 2)(9.0) == 0.0
    assert profile.work(1, 2)(3500.0) == pytest.approx(1000.0), "of the long run: 1 / 3.5 a second"
    begins = rng(8).integers(0, 10**10, 4000)
    job = profile.durations(1, 2, rng(9))
    times = numpy.array([job(1.0, int(begin)) for begin in begins]) / 1e9
    for seconds in (2.0, 3.0, 4.0, 8.0):
        assert_share(times <= seconds, profile.within(1, 2, seconds))
    plain = Equal(2.0, stall=profile.stall)
    assert plain.rate(1, 2)(1.0) == pytest.approx(1 / 3) and plain.work(1, 2)(6.0) == pytest.approx(2.0)


# In an experiment.


def cells(name, compute, workers=2, **more):
    parameters = {"stepsize": 0.1}
    return toy.cells(name, parameters, workers=workers, heterogeneity={"compute": compute}, **more)


def test_a_server_waits_for_its_straggler():
    slow = {"profile": "equal", "straggler": {"workers": [2], "factor": 3.0}}
    (cell,) = cells("minibatch_sgd", slow)
    assert simulate(cell, seed=0).updates["time"].tolist() == [3.0, 6.0, 9.0, 12.0, 15.0]


def test_worker_1_is_rank_1_behind_a_server_and_rank_0_of_a_network_method():
    slow = {"profile": "equal", "straggler": {"workers": [1], "factor": 4.0}}
    stop = {"seconds": 8.5}
    (server,), (peers,) = (cells(name, slow, workers=3, stop=stop) for name in ("async_sgd", "hogwild"))
    assert simulate(server, seed=0).ranks["gradients"].tolist() == [0, 2, 8, 8]
    assert simulate(peers, seed=0).ranks["gradients"].tolist() == [2, 8, 8]


def test_a_run_stalls_as_its_profile_says():
    compute = {"profile": "equal", "stall": {"probability": 0.5, "mean_seconds": 2.0}}
    (cell,) = cells("async_sgd", compute, workers=1, stop={"updates": 20})
    from mpibench.seeds import Purpose, generator

    job = cell.compute.durations(1, 1, generator(4, Purpose.COMPUTE, 1))
    ends = list(itertools.accumulate(job(1.0, 0) for _ in range(20)))
    result = simulate(cell, seed=4)
    assert result.updates["time"].tolist() == [end / 1e9 for end in ends] and ends[-1] > 20 * 10**9
    assert result.ranks["busy_seconds"][1] == ends[-1] / 1e9, "busy while it waits"


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_takes_both_and_absent_ones_are_in_no_hash(name):
    plain = {"profile": name, **{k: list(v) if isinstance(v, tuple) else v for k, v in EXAMPLES[name].items()}}
    slow = {"straggler": {"workers": [1, 3], "factor": 2.0}, "stall": {"probability": 0.1, "mean_seconds": 5.0}}
    (without,), (cell,) = (cells("minibatch_sgd", table, workers=3) for table in (plain, plain | slow))
    assert cell.compute.straggler == Straggler(workers=(1, 3), factor=2.0)
    assert cell.compute.stall == Stall(probability=0.1, mean_seconds=5.0)
    table = cell.resolved["heterogeneity"]["compute"]
    assert table == without.resolved["heterogeneity"]["compute"] | slow
    assert (
        not without.resolved["heterogeneity"]["compute"].keys() & {"straggler", "stall"} and cell.hash != without.hash
    )
    assert cells("minibatch_sgd", table, workers=3)[0].hash == cell.hash, "what a result holds is an experiment again"


def test_the_hash_of_an_experiment_without_them_is_as_it_was():
    (cell,) = cells("minibatch_sgd", {"profile": "sqrt"})
    table = {"compute": {"profile": "sqrt", "unit_seconds": 1.0}, "links": {"latency_seconds": 0.0}}
    assert cell.resolved["heterogeneity"] == table | {"loss": {"probability": 0.0}}
    assert cell.hash == experiment.cell_hash(cell.resolved)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"straggler": {"workers": [1]}}, "[heterogeneity.compute.straggler] lacks `factor`, a number >= 1"),
        ({"straggler": {"factor": 2.0}}, "[heterogeneity.compute.straggler] lacks `workers`, a list of at least 1"),
        ({"straggler": {"workers": [1], "factor": 0.5}}, "factor = 0.5 must be a number >= 1 and <= 1e+06"),
        ({"straggler": {"workers": [], "factor": 2}}, "workers = [] must be a list of at least 1, each a whole number"),
        (
            {"straggler": {"workers": [0], "factor": 2}},
            "workers = [0] must be a list of at least 1, each a whole number",
        ),
        ({"straggler": {"workers": [2, 2], "factor": 2}}, "[heterogeneity.compute.straggler] workers = [2, 2] hold"),
        (
            {"straggler": {"workers": [2, 3], "factor": 2}},
            "[heterogeneity.compute] has worker 3 in `straggler` for 2 workers; they are 1 to 2, and rank r of a",
        ),
        ({"straggler": {"ranks": [0], "factor": 2}}, "[heterogeneity.compute.straggler] has no key `ranks`"),
        ({"straggler": 2.0}, "[heterogeneity.compute] straggler = 2.0 must be a table"),
        ({"stall": {"probability": 0.1}}, "[heterogeneity.compute.stall] lacks `mean_seconds`"),
        ({"stall": {"probability": 1.1, "mean_seconds": 1}}, "probability = 1.1 must be a number >= 0 and <= 1"),
        ({"stall": {"probability": 0.1, "mean_seconds": 0}}, "mean_seconds = 0 must be a number >= 1e-09"),
        (
            {"stall": {"probability": 0.1, "mean_seconds": 1, "workers": [5]}},
            "[heterogeneity.compute] has worker 5 in `stall` for 2 workers",
        ),
        ({"stal": {"probability": 0.1, "mean_seconds": 1}}, "[heterogeneity.compute] has no key `stal`; did you mean"),
        (
            {"straggler": {"workers": [1], "factor": 1e6}, "unit_seconds": 1e4},
            "gives the slowest of 2 workers 1e+10 seconds per gradient",
        ),
        (
            {
                "straggler": {"workers": [2], "factor": 1e6},
                "speed": {"form": "on_off", "on_seconds": 1, "off_seconds": 1, "random": True},
            },
            "halts worker 2 more than 100000 times in a gradient of 1e+06 seconds",
        ),
    ],
)
def test_what_is_wrong_is_refused_in_one_sentence(table, words):
    with pytest.raises(InvalidInput) as refusal:
        cells("minibatch_sgd", {"profile": "equal"} | table)
    assert words in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("profile", [example("fixed"), example("trace")])
def test_lists_of_times_still_need_one_for_each_worker(profile):
    with pytest.raises(InvalidInput, match="for 4 workers; give"):
        profile.mean_seconds(4)


@pytest.mark.parametrize(
    ("cls", "table"),
    [(Straggler, {"workers": (1,), "factor": factor}) for factor in (0.0, 0.99, math.inf, math.nan)]
    + [(Stall, {"probability": 0.5, "mean_seconds": seconds}) for seconds in (0.0, -1.0, math.inf, math.nan)],
)
def test_impossible_numbers_are_out_of_range(cls, table):
    with pytest.raises(ValidationError):
        TypeAdapter(cls).validate_python(table)
