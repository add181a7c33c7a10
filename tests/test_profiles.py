"""Compute profiles: exact values, laws, what is known before a run, and the same path for the same generator."""

import itertools
import json
import math

import numpy
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from mpibench import experiment, jitter, profiles
from mpibench.errors import InvalidInput
from mpibench.profiles import PROFILES, Equal, Fixed, Linear, Lognormal, Papaya, Permutation, Power, Sqrt, Trace
from mpibench.runner import simulate
from mpibench.speeds import Drifting, OnOff, Piecewise, Sinusoidal

EXAMPLES = {
    "equal": {"unit_seconds": 0.25},
    "fixed": {"seconds": (1.0, 2.3, 4.1)},
    "sqrt": {"unit_seconds": 2.0},
    "linear": {"unit_seconds": 0.1},
    "log": {"unit_seconds": 3.0},
    "power": {"unit_seconds": 0.5, "exponent": 0.25},
    "permutation": {"unit_seconds": 0.5},
    "stratified": {"sigma": 0.5},
    "lognormal": {},
    "exponential": {"unit_seconds": 3.0},
    "uniform": {"width": 0.25, "unit_seconds": 3.0},
    "erlang": {"shape": 3, "unit_seconds": 3.0},
    "pareto": {"shape": 1.5, "unit_seconds": 3.0},
    "halfnormal": {"unit_seconds": 3.0},
    "papaya": {"unit_seconds": 10.0},
    "trace": {"seconds": ((1.0, 2.0), (0.5,), (3.0, 1.0, 0.25))},
}
RANDOM = ("lognormal", "exponential", "uniform", "erlang", "pareto", "halfnormal", "papaya")
JITTERS = {
    "uniform": {"width": 0.5},
    "exponential": {},
    "erlang": {"shape": 2},
    "pareto": {"shape": 1.5},
    "lognormal": {"sigma": 0.8},
    "halfnormal": {},
}
LAWS = {"uniform": jitter.Uniform, "exponential": jitter.Exponential, "erlang": jitter.Erlang}
LAWS |= {"pareto": jitter.Pareto, "lognormal": jitter.Lognormal, "halfnormal": jitter.HalfNormal}
STANDARD = {  # Y, by another's hand
    "uniform": stats.uniform(0.5, 1.0),
    "exponential": stats.expon(),
    "erlang": stats.gamma(2, scale=0.5),
    "pareto": stats.pareto(1.5, scale=1 / 3),
    "lognormal": stats.lognorm(s=0.8, scale=math.exp(-0.32)),
    "halfnormal": stats.halfnorm(),
}


def rng(key=0):
    return numpy.random.default_rng(key)


def example(name, **more):
    return PROFILES[name](**EXAMPLES[name], **more)


def drawn(profile, jobs=4000, worker=2, workers=5, key=3):
    """(jobs,) seconds of a worker's jobs, one after the other."""
    job, times, now = profile.durations(worker, workers, rng(key)), [], 0
    for _ in range(jobs):
        times.append(job(1.0, now))
        now += times[-1]
    return numpy.array(times) / 1e9


def assert_share(hits, probability):
    """A share of independent trials is within five standard deviations of its probability."""
    hits = numpy.asarray(hits)
    deviation = math.sqrt(max(probability * (1 - probability), 1 / len(hits)) / len(hits))
    assert abs(hits.mean() - probability) < 5 * deviation, (hits.mean(), probability)


def test_everything_has_an_example():
    assert EXAMPLES.keys() == PROFILES.keys()
    assert LAWS.keys() == JITTERS.keys() == STANDARD.keys()
    assert set(LAWS.values()) == set(jitter.Law.__args__)
    assert all(cls(**JITTERS[name]).law == name for name, cls in LAWS.items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("equal", [250_000_000, 250_000_000, 250_000_000]),
        ("fixed", [1_000_000_000, 2_300_000_000, 4_100_000_000]),
        ("sqrt", [2_000_000_000, 2_828_427_125, 3_464_101_615]),
        ("linear", [100_000_000, 200_000_000, 300_000_000]),
        ("log", [2_079_441_542, 3_295_836_866, 4_158_883_083]),  # 3 ln 2, 3 ln 3, 3 ln 4
        ("power", [500_000_000, 594_603_558, 658_037_006]),
        ("stratified", [544_051_818, 882_496_903, 1_431_482_733]),  # exp(σ Z_q - 1/8) at q = 1/6, 1/2, 5/6
    ],
)
def test_constant_profiles_take_their_formula_in_whole_nanoseconds(name, expected):
    profile = example(name)
    jobs = [profile.durations(i, 3, rng()) for i in (1, 2, 3)]
    assert [job(1.0, 0) for job in jobs] == expected
    assert [type(job(0.5, 7)) for job in jobs] == [int] * 3
    assert [job(2.5, 7) for job in jobs] == pytest.approx([2.5 * ns for ns in expected], abs=3)
    for known in (profile.mean_seconds(3), profile.least_seconds(3)):
        assert known == pytest.approx(numpy.array(expected) / 1e9, abs=1e-9)
    assert profile.smallest_seconds(3) == pytest.approx(min(expected) / 1e9, abs=1e-9)
    for i, ns in enumerate(expected, 1):
        assert [profile.within(i, 3, (ns + k) / 1e9) for k in (-1, 0, 1)] == [0.0, 1.0, 1.0]
    # patience of 0 beyond the least time is enough for a time that is always the same
    assert [profile.within(i, 3, profile.least_seconds(3)[i - 1]) for i in (1, 2, 3)] == [1.0, 1.0, 1.0]


def test_costs_are_rounded_once():
    job = Fixed(seconds=(1.4e-9,)).durations(1, 1, rng())
    assert [job(cost, 0) for cost in (1.0, 2.0, 3.0)] == [1, 3, 4]  # 1.4, 2.8 and 4.2 ns


def test_no_job_takes_no_time():
    for name in RANDOM:
        profile = PROFILES[name](**EXAMPLES[name] | {"unit_seconds": 1e-9})
        assert min(drawn(profile, 300)) == 1e-9
    kept = Lognormal(sigma=5.0, unit_seconds=1e-9, persistent=True)
    assert {kept.durations(1, 1, rng(k))(1.0, 0) for k in range(5)} == {1}


def test_lists_need_one_entry_for_each_worker():
    for profile, words in (
        (Fixed(seconds=(1.0, 2.0, 3.0)), "3 seconds for 4 workers"),
        (example("trace"), "times of 3 workers for 4 workers"),
    ):
        uses = (
            *(
                lambda p, name=name: getattr(p, name)(4)
                for name in ("mean_seconds", "least_seconds", "smallest_seconds")
            ),
            lambda p: p.durations(1, 4, rng()),
            lambda p: p.within(1, 4, 1.0),
            lambda p: p.work(1, 4),
            lambda p: p.rate(1, 4),
        )
        for use in uses:
            with pytest.raises(InvalidInput, match=words):
                use(profile)


def test_a_permutation_belongs_to_the_experiment():
    times = Permutation(unit_seconds=0.5).mean_seconds(100)
    assert sorted(times) == [0.5 * k for k in range(1, 101)] and list(times) != sorted(times)
    for seed in (0, 1):  # of the run
        one = [Permutation(unit_seconds=0.5).durations(i, 100, rng(seed))(1.0, 0) for i in range(1, 101)]
        assert one == [round(t * 1e9) for t in times]
    assert list(Permutation(permutation_seed=1).mean_seconds(100)) != list(Permutation().mean_seconds(100))


# What is drawn.


@pytest.mark.parametrize("name", RANDOM)
def test_random_profiles_are_paired_by_their_generator(name):
    profile = example(name)
    one, same, other = (profile.durations(2, 5, rng(key)) for key in (1, 1, 2))
    path = [one(1.0, now) for now in range(20)]
    assert [same(1.0, 10 * now) for now in range(20)] == path
    assert [other(1.0, now) for now in range(20)] != path
    assert len(set(path)) == 20 and all(type(ns) is int and ns >= 1 for ns in path)
    double = profile.durations(2, 5, rng(1))
    assert [double(2.0, 0) for _ in range(20)] == pytest.approx([2 * ns for ns in path], abs=2)


@pytest.mark.parametrize(
    ("profile", "law"),
    [
        (example("exponential"), stats.expon(scale=3.0)),
        (example("uniform"), stats.uniform(2.25, 1.5)),
        (example("erlang"), stats.gamma(3, scale=1.0)),
        (example("pareto"), stats.pareto(1.5, scale=1.0)),
        (example("halfnormal"), stats.halfnorm(scale=3.0 * math.sqrt(math.pi / 2))),
        (Lognormal(sigma=0.8, unit_seconds=2.0), stats.lognorm(s=0.8, scale=2.0 * math.exp(-0.32))),
        (Papaya(), stats.lognorm(s=0.1, scale=math.exp(stats.norm.ppf(0.3) * 1.1 - 1.1**2 / 2))),
    ],
)
def test_random_times_follow_their_law(profile, law):
    assert stats.kstest(drawn(profile), law.cdf).pvalue > 0.01
    assert profile.mean_seconds(5)[1] == pytest.approx(law.mean())
    assert profile.least_seconds(5)[1] == pytest.approx(law.support()[0])
    for level in (0.001, 0.3, 0.7, 0.999):
        assert profile.within(2, 5, law.ppf(level)) == pytest.approx(level)
    assert profile.within(2, 5, law.support()[0] - 1e-3) == 0.0
    assert profile.within(2, 5, 1e12) == pytest.approx(1.0)


@pytest.mark.parametrize("name", LAWS)
def test_jitter_multiplies_or_adds(name):
    law, y = LAWS[name], STANDARD[name]
    h = 1.5 * math.sqrt(2)  # of worker 2
    for how, shift, scale in (
        ({}, 0.0, h / y.mean()),
        ({"add_seconds": 0.5}, h, 0.5),
        ({"add_seconds": 0.5, "exponent": 3.0}, h, 4.0),
        ({"add_share": 0.25}, h, 0.25 * h),
    ):
        profile = Sqrt(1.5, jitter=law(**JITTERS[name], **how))
        cdf = lambda t, shift=shift, scale=scale: y.cdf((numpy.asarray(t) - shift) / scale)  # noqa: E731
        assert stats.kstest(drawn(profile), cdf).pvalue > 0.01
        assert profile.mean_seconds(5)[1] == pytest.approx(shift + scale * y.mean())
        assert profile.least_seconds(5)[1] == pytest.approx(shift + scale * y.support()[0])
        for level in (0.01, 0.5, 0.99):
            assert profile.within(2, 5, shift + scale * y.ppf(level)) == pytest.approx(level)
    assert Sqrt(1.5, jitter=law(**JITTERS[name])).mean_seconds(5) == pytest.approx(Sqrt(1.5).mean_seconds(5))
    assert profile.smallest_seconds(5) == pytest.approx(1.5 * (1 + 0.25 * y.ppf(0.01)))  # of worker 1


def test_smallest_seconds_is_the_one_percent_quantile_of_a_job():
    assert PROFILES["exponential"]().smallest_seconds(5) == pytest.approx(stats.expon.ppf(0.01))
    per_job = Lognormal(sigma=0.8)
    assert per_job.smallest_seconds(5) == pytest.approx(stats.lognorm(s=0.8, scale=math.exp(-0.32)).ppf(0.01))
    persistent = Lognormal(sigma=0.8, persistent=True)  # of the fastest worker: P(all 50 slower) = 0.99
    assert stats.lognorm(s=0.8, scale=math.exp(-0.32)).sf(persistent.smallest_seconds(50)) ** 50 == pytest.approx(0.99)
    assert (drawn(Papaya()) > Papaya().smallest_seconds(5)).all()


def test_lognormal_is_drawn_for_every_job_or_kept():
    kept = Lognormal(persistent=True).durations(1, 4, rng(0))
    assert len({kept(1.0, now) for now in range(10)}) == 1
    afresh = Lognormal().durations(1, 4, rng(0))
    assert afresh(1.0, 0) == kept(1.0, 0)  # the same draw of the same stream
    assert afresh(1.0, 0) != kept(1.0, 0)


def test_a_time_that_is_kept_may_have_jitter():
    """T ~ Exp(rate), the rate lognormal over workers: what is known of it is taken over seeds."""
    profile = Lognormal(sigma=0.6, unit_seconds=2.0, persistent=True, jitter=jitter.Exponential())
    job = profile.durations(1, 4, rng(7))
    h = 2.0 * math.exp(0.6 * rng(7).standard_normal() - 0.18)
    times = numpy.array([job(1.0, 0) for _ in range(4000)]) / 1e9
    assert stats.kstest(times, stats.expon(scale=h).cdf).pvalue > 0.01
    assert profile.mean_seconds(4) == pytest.approx([2.0] * 4) and profile.least_seconds(4).tolist() == [0.0] * 4
    firsts = numpy.array([profile.durations(1, 4, rng(k))(1.0, 0) for k in range(4000)]) / 1e9
    for seconds in (0.3, 1.0, 4.0):
        exact = 1 - stats.lognorm(s=0.6, scale=2.0 * math.exp(-0.18)).expect(lambda h, s=seconds: math.exp(-s / h))
        assert profile.within(1, 4, seconds) == pytest.approx(exact, abs=2e-3)
        assert_share(firsts <= seconds, exact)


def test_papaya_is_stratified():
    law = stats.lognorm(s=1.1, scale=7.0 * math.exp(-(1.1**2) / 2))
    profile = Papaya(unit_seconds=7.0, jitter=0.0)
    quantiles = law.ppf((numpy.arange(1, 9) - 0.5) / 8)
    assert profile.mean_seconds(8) == pytest.approx(quantiles)
    assert PROFILES["stratified"](unit_seconds=7.0).mean_seconds(8) == pytest.approx(quantiles)
    for seed in (0, 1):  # the same workers whatever the seed
        times = [profile.durations(i, 8, rng(seed))(1.0, 0) for i in range(1, 9)]
        assert times == [round(q * 1e9) for q in profile.mean_seconds(8)]
    thousand = profile.mean_seconds(1000)
    assert thousand.mean() == pytest.approx(7.0, rel=0.01)
    assert thousand.max() / thousand.mean() > 15  # the spread that was reported: about 21 expected of random draws


# Published times.


def normals(key, jobs):
    generator = rng(key)
    return numpy.array([generator.standard_normal() for _ in range(jobs)])


@pytest.mark.parametrize(
    ("profile", "least", "scale"),
    [
        # E-Ringmaster, the script, which counts workers from 0: 1 + sqrt(i) + |N(0, i + 1)|
        (
            Power(0.5, offset_seconds=1.0, first=0, jitter=jitter.HalfNormal(add_seconds=1.0, exponent=1.0)),
            [1 + math.sqrt(i) for i in range(9)],
            [i + 1 for i in range(9)],
        ),
        # the paper: i + |N(0, i)|
        (Linear(jitter=jitter.HalfNormal(add_share=1.0)), range(1, 10), range(1, 10)),
        # the same, read as a variance
        (Linear(jitter=jitter.HalfNormal(add_seconds=1.0, exponent=0.5)), range(1, 10), numpy.arange(1, 10) ** 0.5),
        # E-Ringleader: a permutation of 1..n, plus |N(0, index + 1)|
        (
            Permutation(permutation_seed=27, jitter=jitter.HalfNormal(add_seconds=1.0, exponent=1.0)),
            numpy.random.default_rng(27).permutation(9) + 1,
            range(1, 10),
        ),
    ],
)
def test_published_half_normal_times(profile, least, scale):
    assert profile.least_seconds(9) == pytest.approx(list(map(float, least)))
    assert profile.mean_seconds(9) == pytest.approx(numpy.add(least, math.sqrt(2 / math.pi) * numpy.array(scale)))
    for worker in (1, 2, 9):
        expected = least[worker - 1] + scale[worker - 1] * numpy.abs(normals(worker, 20))
        assert drawn(profile, 20, worker, 9, key=worker) == pytest.approx(expected, abs=2e-9)


def test_published_exponential_times():
    """E-ATA: 29 (i + 1) + Exp(29 (i + 1)), i from 0."""
    profile = Linear(29.0, jitter=jitter.Exponential(add_share=1.0))
    assert profile.least_seconds(3).tolist() == [29.0, 58.0, 87.0]
    assert profile.mean_seconds(3).tolist() == [58.0, 116.0, 174.0]
    generator = rng(4)
    draws = numpy.array([generator.standard_exponential() for _ in range(20)])
    assert drawn(profile, 20, 3, 3, key=4) == pytest.approx(87 + 87 * draws, abs=2e-9)
    assert profile.within(3, 3, 87 + 87 * math.log(4)) == pytest.approx(0.75)


def test_heavy_tails_beyond_the_least_time():
    """MindFlayer: h_i + η_i, and P(η_i <= t)."""
    profile = Sqrt(jitter=jitter.Lognormal(sigma=3.0, add_seconds=10.0))
    assert profile.least_seconds(4).tolist() == [1.0, math.sqrt(2), math.sqrt(3), 2.0]
    eta = stats.lognorm(s=3.0, scale=10.0 * math.exp(-4.5))
    assert profile.within(4, 4, 2.0 + 0.5) == pytest.approx(eta.cdf(0.5))
    assert profile.within(4, 4, 1.99) == 0.0
    pareto = Sqrt(jitter=jitter.Pareto(shape=1.5, add_seconds=3.0))
    assert pareto.least_seconds(4)[3] == pytest.approx(2.0 + 1.0)  # its η is at least a third of its mean
    assert pareto.within(4, 4, 2.0 + 4.0) == pytest.approx(1 - 4.0**-1.5)


# Traces.


def test_a_trace_is_replayed_and_begins_again():
    profile = example("trace")
    assert drawn(profile, 5, 1, 3).tolist() == [1.0, 2.0, 1.0, 2.0, 1.0]
    assert drawn(profile, 2, 2, 3).tolist() == [0.5, 0.5]
    assert drawn(profile, 7, 3, 3).tolist() == [3.0, 1.0, 0.25, 3.0, 1.0, 0.25, 3.0]
    one, late = (profile.durations(3, 3, rng()) for _ in range(2))
    assert [one(2.0, 0) for _ in range(3)] == [2 * late(1.0, 10**15) for _ in range(3)]
    assert profile.mean_seconds(3).tolist() == [1.5, 0.5, pytest.approx(4.25 / 3)]
    assert profile.least_seconds(3).tolist() == [1.0, 0.5, 0.25] and profile.smallest_seconds(3) == 0.25
    assert [profile.within(3, 3, s) for s in (0.2, 0.25, 1.0, 2.9, 3.0)] == [0, 1 / 3, 2 / 3, 2 / 3, 1]


@pytest.mark.parametrize(
    "text",
    [
        "1.0,0.5,3\n2.0,,1\n,,0.25\n",
        "a,b,c\n1.0, 0.5 ,3\n\n2.0,,1\n,,0.25\n",
        "\ufeff1,0.5,3\r\n2,,1e0\r\n,,0.25\r\n",
        "worker,seconds\n1,1.0\n3,3\n2,0.5\n1,2.0\n3,1\n3,.25\n",
    ],
)
def test_times_are_read_by_columns_or_by_rows(tmp_path, text):
    path = tmp_path / "times.csv"
    path.write_text(text, encoding="utf-8")
    assert profiles.read_times(path) == [[1.0, 2.0], [0.5], [3.0, 1.0, 0.25]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file"),
        ("", "holds no times"),
        ("a,b\n", "holds no time of worker 1"),
        ("1,2\n3,x\n", "line 2: 'x' is no number of seconds"),
        ("1,2\n3,0\n", "line 2: 0 seconds are no time of a job; 1e-9 to 1e+09 are possible"),
        ("1,2\n-3,1\n", "line 2: -3 seconds are no"),
        ("1,2\nnan,1\n", "line 2: nan seconds are no"),
        ("1,2\n,1\n3,1\n", "line 3: worker 1 has a time after an empty cell in line 2"),
        ("1,,2\n", "holds no time of worker 2"),
        ("worker,seconds\n1,1\n3,1\n", "holds no time of worker 2"),
        ("worker,seconds\n0,1\n", "line 2: write a worker 1..n and its seconds"),
        ("worker,seconds\n1,1,1\n", "line 2: write a worker 1..n and its seconds"),
        ("worker,seconds\n1,one\n", "line 2: 'one' is no number of seconds"),
    ],
)
def test_files_of_times_are_refused_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "times.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidInput) as refusal:
        profiles.read_times(path)
    assert words in str(refusal.value) and str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_trace_may_not_be_too_long():
    with pytest.raises(InvalidInput, match="more than 100000 times"):
        Trace(seconds=((1.0,) * 100_001,))


# A speed beside it.


@pytest.mark.parametrize("name", PROFILES)
def test_a_speed_of_one_changes_nothing(name):
    steady, plain = example(name, speed=Piecewise(seconds=(5.0,), factors=(1.0, 1.0))), example(name)
    assert drawn(steady, 50, 3, 3).tolist() == drawn(plain, 50, 3, 3).tolist()
    for known in ("mean_seconds", "least_seconds", "smallest_seconds"):
        assert getattr(steady, known)(3) == pytest.approx(getattr(plain, known)(3))
    for seconds in (0.1, 0.9, 1.0, 3.0, 20.0):
        assert steady.within(3, 3, seconds) == pytest.approx(plain.within(3, 3, seconds))


def test_a_speed_does_not_shift_what_jobs_draw():
    """Job k has the same work with random halts and without, for whichever method."""
    jobs = drawn(example("exponential"), 200)
    profile = example("exponential", speed=OnOff(on_seconds=2.0, off_seconds=1.0, random=True))
    path = profile.course(2, 5).path(rng(3).spawn(1)[0])
    ends = numpy.cumsum(numpy.rint(drawn(profile, 200) * 1e9).astype(int)).tolist()
    done = [path.work(int(end)) / 1e21 for end in (0, *ends)]
    assert numpy.diff(done) == pytest.approx(jobs, abs=2e-9)


def test_what_is_known_under_a_speed():
    """Halted for a second after every two: three seconds for two of work, whatever the jobs."""
    halts = OnOff(on_seconds=2.0, off_seconds=1.0)
    profile = Sqrt(jitter=jitter.Exponential(add_share=1.0), speed=halts)
    assert profile.mean_seconds(4) == pytest.approx(1.5 * 2 * numpy.sqrt([1, 2, 3, 4]))
    assert profile.least_seconds(4) == pytest.approx(numpy.sqrt([1, 2, 3, 4]))
    assert profile.rate(4, 4)(1.5) == pytest.approx(1 / 4) and profile.rate(4, 4)(2.5) == 0.0
    assert [profile.work(4, 4)(t) for t in (0.0, 2.0, 2.5, 3.0, 7.0)] == pytest.approx([0, 0.5, 0.5, 0.5, 1.25])
    times = drawn(profile, 6000, 4, 4)
    assert abs(times.mean() - 6.0) < 5 * times.std() / math.sqrt(6000)
    begins = rng(8).integers(0, 3 * 10**9, 4000)
    job = profile.durations(4, 4, rng(9))
    durations = numpy.array([job(1.0, int(begin)) for begin in begins]) / 1e9
    for seconds in (2.5, 4.0, 6.0, 12.0):
        assert_share(durations <= seconds, profile.within(4, 4, seconds))


def test_random_halts_are_known_by_their_law():
    profile = Equal(2.0, speed=OnOff(on_seconds=3.0, off_seconds=1.0, random=True))
    assert profile.mean_seconds(2) == pytest.approx([8 / 3] * 2) and profile.least_seconds(2).tolist() == [2.0, 2.0]
    assert profile.rate(1, 2)(17.0) == pytest.approx(0.75 / 2) and profile.work(1, 2)(16.0) == pytest.approx(6.0)
    # on at the beginning and no halt within two seconds
    assert profile.within(1, 2, 2.0) == pytest.approx(0.75 * math.exp(-2 / 3))
    assert profile.within(1, 2, 1.999) == 0.0
    for begin in (0, 50 * 10**9):  # stationary from the beginning
        times = [profile.durations(1, 2, rng(key))(1.0, begin) / 1e9 for key in range(2000)]
        for seconds in (2.0, 2.5, 3.0, 5.0):
            assert_share(numpy.array(times) <= seconds, profile.within(1, 2, seconds))
    times = drawn(profile, 20_000, 1, 2)  # without a pause
    assert abs(times.mean() - 8 / 3) < 5 * times.std() / math.sqrt(len(times))
    jittered = Equal(2.0, jitter=jitter.Uniform(width=0.5), speed=profile.speed)
    times = numpy.array([jittered.durations(1, 2, rng(key))(1.0, 0) / 1e9 for key in range(2000)])
    for seconds in (1.5, 2.5, 4.0):
        assert_share(times <= seconds, jittered.within(1, 2, seconds))


# What is refused.


@pytest.mark.parametrize(
    ("cls", "table"),
    [(PROFILES[name], {**EXAMPLES[name], "unit_seconds": bad}) for name in PROFILES if name not in ("fixed", "trace")
     for bad in (0.0, -1.0, math.inf, math.nan, 1e10)]
    + [(Fixed, {"seconds": [1.0, bad]}) for bad in (0.0, -1.0, math.inf, math.nan)]
    + [(Trace, {"seconds": seconds}) for seconds in ([], [[]], [[1.0], []], [[0.0]], [[math.nan]], [1.0])]
    + [(Power, {"exponent": -1.0}), (Power, {"exponent": 1.0, "first": 2}), (Papaya, {"jitter": -0.1})]
    + [(PROFILES["pareto"], {"shape": shape}) for shape in (1.0, 0.5, math.inf, math.nan)]
    + [(PROFILES["erlang"], {"shape": shape}) for shape in (0, -1, 1.5)]
    + [(PROFILES["uniform"], {"width": width}) for width in (0.0, 1.1, math.nan)]
    + [(jitter.Lognormal, {"sigma": -1.0}), (jitter.Exponential, {"add_share": 0.0}), (jitter.Erlang, {})]
    + [(jitter.HalfNormal, {"add_seconds": -1.0}), (jitter.HalfNormal, {"law": "exponential"})],
)  # fmt: skip
def test_impossible_numbers_are_out_of_range(cls, table):
    with pytest.raises(ValidationError):
        TypeAdapter(cls).validate_python(table)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_in_range(name):
    assert TypeAdapter(PROFILES[name]).validate_python(EXAMPLES[name]) == example(name)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jitter.HalfNormal(add_seconds=1.0, add_share=1.0), "add_seconds or add_share, not both"),
        (lambda: jitter.HalfNormal(exponent=1.0), "an exponent, which goes with add_seconds"),
        (lambda: jitter.HalfNormal(exponent=1.0, add_share=1.0), "an exponent, which goes with add_seconds"),
        (lambda: Lognormal(jitter=jitter.Exponential()), "set persistent = true, or leave jitter out"),
        (lambda: Power(0.5, first=0), "first = 0 gives worker 1 no time"),
    ],
)
def test_what_does_not_go_together_is_refused(make, words):
    with pytest.raises(InvalidInput, match=words):
        make()


def test_all_combinations_of_profile_and_jitter_and_speed_are_known():
    """What is known before a run stands in order: least <= 1 % quantile of the fastest <= means; P rises to one."""
    kinds = [p for p in PROFILES if "jitter" in PROFILES[p].__dataclass_fields__ and p not in ("papaya", "lognormal")]
    for name, law in itertools.product(kinds, LAWS):
        profile = example(
            name, jitter=LAWS[law](**JITTERS[law], add_share=0.5), speed=OnOff(on_seconds=1, off_seconds=1)
        )
        least, mean, smallest = profile.least_seconds(3), profile.mean_seconds(3), profile.smallest_seconds(3)
        assert (least < mean / 2).all() and least.min() < smallest < mean.min()
        shares = [profile.within(2, 3, share * mean[1]) for share in (0.1, 0.5, 1.0, 2.0, 50.0)]
        assert shares == sorted(shares) and shares[0] < 0.5 < shares[-1]


# In an experiment.

JOB = """
schema = 1
[experiment]
name = "speeds"
workers = 4
seeds = [0]
stop = {{ updates = 5 }}
snapshot = {{ updates = 1 }}
targets = {{ metric = "loss", values = [1.0], headline = 1.0 }}
record_updates = true
[problem]
name = "quadratic"
dimension = 5
[heterogeneity]
compute = {compute}
[[algorithm]]
name = "minibatch_sgd"
stepsize = 0.1
"""


@pytest.fixture
def loaded(tmp_path):
    def load(compute):
        (tmp_path / "times.csv").write_text("1,2,3,4\n")
        path = tmp_path / "job.toml"
        path.write_text(JOB.format(compute=compute))
        return experiment.load(path)

    return load


@pytest.mark.parametrize(
    ("compute", "profile"),
    [
        ('{ profile = "log" }', PROFILES["log"]()),
        ('{ profile = "permutation", permutation_seed = 3 }', Permutation(permutation_seed=3)),
        ('{ profile = "erlang", shape = 4, unit_seconds = 2 }', PROFILES["erlang"](4, 2.0)),
        (
            '{ profile = "sqrt", jitter = { law = "halfnormal", add_seconds = 1, exponent = 1 } }',
            Sqrt(jitter=jitter.HalfNormal(add_seconds=1.0, exponent=1.0)),
        ),
        (
            '{ profile = "linear", unit_seconds = 29, jitter = { law = "exponential", add_share = 1.0 } }',
            Linear(29.0, jitter=jitter.Exponential(add_share=1.0)),
        ),
        (
            '{ profile = "lognormal", persistent = true, jitter = { law = "lognormal", sigma = 0.1 } }',
            Lognormal(persistent=True, jitter=jitter.Lognormal(sigma=0.1)),
        ),
        (
            '{ profile = "papaya", speed = { form = "sinusoidal", amplitude = 0.5, period_seconds = 60 } }',
            Papaya(speed=Sinusoidal(amplitude=0.5, period_seconds=60.0)),
        ),
        (
            '{ profile = "equal", speed = { form = "piecewise", seconds = [5], factors = [[1, 2], [1, 0.5]] } }',
            Equal(speed=Piecewise(seconds=(5.0,), factors=((1.0, 2.0), (1.0, 0.5)))),
        ),
        (
            '{ profile = "equal", speed = { form = "on_off", on_seconds = 8, off_seconds = 2, random = true } }',
            Equal(speed=OnOff(on_seconds=8.0, off_seconds=2.0, random=True)),
        ),
        (
            '{ profile = "sqrt", speed = { form = "drifting", span_seconds = 9, end = "mirrored" } }',
            Sqrt(speed=Drifting(span_seconds=9.0, end="mirrored")),
        ),
        (
            '{ profile = "sqrt", speed = { form = "drifting", span_seconds = 9, end = [1, 2, 3, 4], start = 2 } }',
            Sqrt(speed=Drifting(span_seconds=9.0, end=(1.0, 2.0, 3.0, 4.0), start=2.0)),
        ),
        ('{ profile = "trace", file = "times.csv" }', Trace(((1.0,), (2.0,), (3.0,), (4.0,)))),
        ('{ profile = "trace", seconds = [[1], [2], [3], [4, 5]] }', Trace(((1.0,), (2.0,), (3.0,), (4.0, 5.0)))),
    ],
)
def test_experiments_name_profiles_jitters_and_speeds(loaded, tmp_path, compute, profile):
    made = loaded(compute)
    assert made.compute == profile and type(made.compute) is type(profile)
    (tmp_path / "times.csv").unlink()  # other ranks read no file
    other = experiment.Experiment.from_resolved(json.loads(json.dumps(made.resolved)))
    assert other.cells() == made.cells() and other.cells()[0].hash == made.cells()[0].hash
    # and what a result holds is an experiment again
    table = made.cells()[0].resolved["heterogeneity"]["compute"]
    again = made.resolved | {"tables": made.resolved["tables"] | {"heterogeneity": {"compute": table}}}
    assert experiment.Experiment.from_resolved(again).compute == profile


def test_what_is_left_out_of_a_table_leaves_no_trace_in_the_hash(loaded):
    assert loaded('{ profile = "sqrt" }').cells()[0].resolved["heterogeneity"]["compute"] == {
        "profile": "sqrt",
        "unit_seconds": 1.0,
    }


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        ('{ profile = "sinusoidal" }', 'which any profile can have; add speed = { form = "sinusoidal", ... }'),
        ('{ profile = "erlang" }', "[heterogeneity.compute] lacks `shape`, a whole number >= 1"),
        ('{ profile = "pareto", shape = 1 }', "[heterogeneity.compute] shape = 1 must be a number > 1 and <= 100"),
        ('{ profile = "sqrt", jiter = { law = "pareto" } }', "has no key `jiter`; did you mean `jitter`?"),
        ('{ profile = "sqrt", jitter = 3 }', "[heterogeneity.compute] jitter = 3 must be a table"),
        ('{ profile = "sqrt", jitter = {} }', '[heterogeneity.compute.jitter] lacks `law`, one of "uniform", "expon'),
        ('{ profile = "sqrt", jitter = { law = 3 } }', "[heterogeneity.compute.jitter] law = 3 must be a text"),
        (
            '{ profile = "sqrt", jitter = { law = "parto" } }',
            '[heterogeneity.compute.jitter] has no law "parto"; did you mean `pareto`?',
        ),
        (
            '{ profile = "sqrt", jitter = { law = "pareto" } }',
            "[heterogeneity.compute.jitter] lacks `shape`, a number > 1",
        ),
        (
            '{ profile = "sqrt", jitter = { law = "exponential", sigma = 1 } }',
            "[heterogeneity.compute.jitter] has no key `sigma`; known: `add_seconds`, `exponent`",
        ),
        (
            '{ profile = "sqrt", jitter = { law = "exponential", exponent = 1 } }',
            "[heterogeneity.compute.jitter] has an exponent, which goes with add_seconds",
        ),
        ('{ profile = "exponential", jitter = { law = "pareto" } }', "[heterogeneity.compute] has no key `jitter`"),
        (
            '{ profile = "lognormal", jitter = { law = "exponential" } }',
            "[heterogeneity.compute] draws every job afresh",
        ),
        ('{ profile = "papaya", jitter = { law = "exponential" } }', "jitter = { law = "),
        (
            '{ profile = "sqrt", speed = { form = "sinusoidal", amplitude = 1, period_seconds = 1 } }',
            "[heterogeneity.compute.speed] amplitude = 1 must be a number >= 0 and <= 0.99",
        ),
        (
            '{ profile = "sqrt", speed = { form = "piecewise", seconds = [5], factors = [1, 0] } }',
            "[heterogeneity.compute.speed] factors = [1.0, 0.0] halt a worker for ever",
        ),
        (
            '{ profile = "sqrt", speed = { form = "piecewise", seconds = [5], factors = [[1, 1], 2] } }',
            "[heterogeneity.compute.speed] factors = [[1, 1], 2] must be a list, each a number >= 0 and <= 1e+06 or",
        ),
        (
            '{ profile = "sqrt", speed = { form = "drifting", span_seconds = 5, end = [1, 2] } }',
            "[heterogeneity.compute] has a speed of 2 factors in `end` for 4 workers",
        ),
        (
            '{ profile = "sqrt", speed = { form = "drifting", span_seconds = 5, end = 0 } }',
            "end = 0 must be a number >= 1e-06 and <= 1e+06 or a list",
        ),
        (
            '{ profile = "sqrt", unit_seconds = 1e6, speed = { form = "drifting", span_seconds = 5, end = 1e-6 } }',
            "gives the slowest of 4 workers 2e+12 seconds per gradient",
        ),
        (
            '{ profile = "trace" }',
            "[heterogeneity.compute] lacks `file`, a CSV file of times, or `seconds`, lists of them",
        ),
        ('{ profile = "trace", file = "none.csv" }', "none.csv cannot be read: No such file"),
        ('{ profile = "trace", file = 3 }', "[heterogeneity.compute] file = 3 must be a text"),
        ('{ profile = "trace", file = "times.csv", seconds = [[1]] }', "[heterogeneity.compute] has no key `file`"),
        ('{ profile = "trace", seconds = [[1]] }', "the times of 1 workers for 4 workers; give a column for each"),
    ],
)
def test_what_is_wrong_in_an_experiment_is_refused_in_one_sentence(loaded, compute, words):
    with pytest.raises(InvalidInput) as refusal:
        loaded(compute)
    assert words in str(refusal.value) and "\n" not in str(refusal.value) and "job.toml" in str(refusal.value)


def test_a_run_meets_the_speed(loaded):
    """A gradient of a second, 1.5 s on and 1 s off: until 1; 1 to 1.5, 2.5 to 3; 3 to 4; 5 to 6; 6 to 6.5, 7.5 to 8."""
    made = loaded('{ profile = "equal", speed = { form = "on_off", on_seconds = 1.5, off_seconds = 1.0 } }')
    result = simulate(made.cells()[0], seed=0)
    assert result.updates["time"].tolist() == [1.0, 3.0, 4.0, 6.0, 8.0]
