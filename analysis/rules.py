"""The 60 items by which a set of results is scored: 0 absent, 1 in part or by convention, 2 enforced and visible.

Each rule looks at `Results` (`analysis.grade`): what files say (`files`, those on the clocks that the item binds), the
races, their tables and the text that readers see. It gives a score and the evidence in a sentence. An item that binds
none of the clocks in the results is met where every file says on which clock it is: then it asks for nothing there, and
the maximum stays 120.
"""

import hashlib
import json
import math

import numpy as np

VIRTUAL, EMULATED, NATIVE = "virtual", "emulated", "native"
ALL, MPI = frozenset({VIRTUAL, EMULATED, NATIVE}), frozenset({EMULATED, NATIVE})
ITEMS = {}  # number -> (title, clocks it binds, whether it is a gate, rule)


def item(number, title, bound=ALL, gate=False):
    """Register the rule of an item."""

    def register(rule):
        ITEMS[number] = title, frozenset(bound), gate, rule
        return rule

    return register


def share(files, whole, part=None, said=""):
    """2 where all files satisfy `whole`, 1 where some do or all satisfy `part`, else 0; with how many do."""
    found = [bool(whole(f)) for f in files]
    score = 2 if files and all(found) else 1 if any(found) or (part and files and all(map(part, files))) else 0
    return score, f"{said}: in {sum(found)} of {len(found)} files"


def visible(r, score, said, *words):
    """The score, at most 1 where the tables' text lacks one of these words."""
    missing = [word for word in words if word not in r.text]
    return (min(score, 1), f"{said}; the table does not say {', '.join(missing)}") if missing else (score, said)


# A. Question and base case


@item(1, "time to a stated target is the headline", gate=True)
def item_01(r):
    def targets(f):
        named = f.config("resolved").get("experiment", {}).get("targets") or {}
        return {"metric", "headline"} <= named.keys() and f"trace/{named['metric']}" in f.columns

    score, said = share(r.files, targets, said="targets with a headline and their metric in /trace")
    return visible(r, score if r.tables else 0, said, "Time to")


@item(2, "speed-ups name their base and its seconds")
def item_02(r):
    bases = [t.base for t in r.tables]
    if not any(bases):
        return 0, "no table has a base"
    seconds = [float(row.median_seconds) for t in r.tables for _, row in t.rows[t.rows["method"] == t.base].iterrows()]
    known = all(bases) and seconds and not any(map(math.isnan, seconds))
    return (2 if known else 1), f"base {', '.join(b or 'none' for b in bases)} with {len(seconds)} medians in seconds"


@item(3, "weak or strong scaling, and what is held constant")
def item_03(r):
    def stated(f):
        said = f.config("measuring")
        return "scaling" in said and said.get("held_constant")

    score, said = share(r.files, stated, lambda f: "scaling" in f.config("measuring"), "scaling and held_constant")
    workers = {f.root.get("workers") for f in r.files}
    if len(workers) > 1 and any(f.config("measuring").get("scaling") == "none" for f in r.files):
        return min(score, 1), f"{said}; scaling = none, but {len(workers)} numbers of workers"
    return visible(r, score, said, "held constant")


@item(4, "a number of ranks that is no power of two")
def item_04(r):
    ranks = sorted({int(f.root.get("ranks", 1)) for f in r.files})
    odd = [n for n in ranks if n & (n - 1)]
    return (2 if odd else 0), f"ranks {', '.join(map(str, ranks))}"


@item(5, "a shown subset is justified")
def item_05(r):
    score, said = share(
        r.files, lambda f: f.config("measuring").get("shown"), said="why these are shown, and no others"
    )
    return visible(r, score, said, "Shown:")


@item(6, "the baseline is tuned with the same budget")
def item_06(r):
    budgets = {(f.root.get("experiment"), f.root.get("algorithm")): _budget(f) for f in r.files}
    if not budgets or not any(budgets.values()):
        return 1, "nothing was tuned: parameters as given"
    equal = len(set(budgets.values())) == 1
    spent = all("core_seconds" in f.config("tuning") for f in r.files)
    named = ", ".join(f"{name} {n}" for (_, name), n in sorted(budgets.items()))
    return visible(r, 2 if equal and spent else 1, f"trials: {named}", "core-seconds" if spent else "trials")


def _budget(f):
    tuning = f.config("tuning")
    return len(tuning.get("trials", ())) * len(tuning.get("seeds", ()))


@item(7, "search space, trials and seeds of tuning; disjoint")
def item_07(r):
    reported = {}
    for f in r.files:
        reported.setdefault(f.root.get("experiment"), set()).add(f.root.get("seed"))
    both = [
        seed
        for f in r.files
        for seed in f.config("tuning").get("seeds", ())
        if seed in reported[f.root.get("experiment")]
    ]
    if both:
        return 0, f"seeds {sorted(set(both))} are tuned on and reported"
    if not any(_budget(f) for f in r.files):
        return 1, "nothing was tuned"
    return share(r.files, _budget, said="every trial with its parameters and seeds, none of them reported")


@item(8, "targets are fixed in advance and versioned")
def item_08(r):
    versions = {
        (f.root.get("experiment"), f.config("resolved").get("experiment", {}).get("targets", {}).get("version"))
        for f in r.files
    }
    several = len(versions) > len({name for name, _ in versions}) or None in {v for _, v in versions}
    score, said = share(
        r.files,
        lambda f: f.config("measuring").get("targets_from"),
        lambda f: True,
        "by which procedure targets were fixed",
    )
    return (0, "targets without a version, or of several") if several or not versions else (score, said)


@item(9, "a ladder of targets")
def item_09(r):
    least = min((len(t.targets) for t in r.tables), default=0)
    return min(2, max(0, least - 1)), f"at least {least} targets in each table"


@item(10, "a bound or prediction beside what is measured")
def item_10(r):
    def predicted(f):
        pace = f.text("prediction").get("update_seconds") or {}
        return pace.get("expected") or pace.get("least")

    return share(r.files, predicted, said="seconds per update by theory in /prediction")


# B. Clock


@item(11, "one monotonic clock a rank, its resolution and overhead", MPI, gate=True)
def item_11(r):
    def fine(f):
        if not f.has("clock", "resolution_seconds", "overhead_seconds"):
            return False
        steps = np.diff(f.column("trace/time"))
        steps = steps[steps > 0]
        scale = f.attrs.get("fidelity", {}).get("time_scale", 1.0) if f.clock == EMULATED else 1.0
        least = steps.min() * scale if len(steps) else f.attrs["clock"].get("span_seconds", 0.0)
        resolution, overhead = (f.column(f"clock/{name}_seconds").max() for name in ("resolution", "overhead"))
        return least >= 10 * resolution and overhead < 0.05 * least

    return share(r.files, fine, said="intervals of 10 resolutions and more, overhead below 5 %")


@item(12, "evaluation is off the clock", gate=True)
def item_12(r):
    def off(f):
        steps = f.clock == VIRTUAL or f.has("steps", "off_clock")
        return f.root.get("clock_rule") and steps

    score, said = share(
        r.files, off, lambda f: f.root.get("clock_rule"), "clock_rule, and off-clock intervals in /steps"
    )
    rules = {(f.clock, f.root.get("clock_rule")) for f in r.files}
    if len(rules) > len({clock for clock, _ in rules}):
        return 0, "the rule differs between files of one clock"
    return score, said


@item(13, "snapshots at the boundary of a step, evaluated later")
def item_13(r):
    return share(
        r.files, lambda f: f.attrs.get("trace", {}).get("snapshots"), said="/trace says where snapshots are taken"
    )


@item(14, "all ranks start together", MPI)
def item_14(r):
    return share(r.files, lambda f: "start_spread_seconds" in f.attrs.get("clock", {}), said="start_spread_seconds")


@item(15, "offsets of clocks by ping-pong, with drift", {NATIVE})
def item_15(r):
    columns = ("offset_seconds", "drift", "round_trip_seconds")
    return share(r.files, lambda f: f.has("clock", *columns), said=", ".join(columns))


@item(16, "time over all ranks from the first start to the last stop", MPI)
def item_16(r):
    def kept(f):
        if not f.has("clock", "start_seconds", "stop_seconds") or "span_seconds" not in f.attrs["clock"]:
            return False
        span = f.column("clock/stop_seconds").max() - f.column("clock/start_seconds").min()
        return math.isclose(span, f.attrs["clock"]["span_seconds"], rel_tol=1e-9)

    return share(r.files, kept, said="start and stop of every rank, and their span")


@item(17, "set-up apart; one list of what is inside the clock")
def item_17(r):
    def apart(f):
        listed = {"inside_the_clock", "outside_the_clock"} <= f.config("measuring").keys()
        phases = {"start_of_the_process"} | ({"warm_up", "measured", "evaluation"} if f.clock in MPI else set())
        return listed and phases <= f.provenance("phases").keys()

    return share(r.files, apart, said="phases in seconds, and what is inside and outside of the clock")


@item(18, "warm-up is stated and the same for all")
def item_18(r):
    def stated(f):
        return "warmup_gradients" in f.config("measuring") and (f.clock == VIRTUAL or f.has("steps", "is_warmup"))

    score, said = share(r.files, stated, lambda f: "warmup_gradients" in f.config("measuring"), "warm-up by rule")
    same = {(f.clock, f.config("measuring").get("warmup_gradients")) for f in r.files}
    return (score, said) if len(same) == len({clock for clock, _ in same}) else (min(score, 1), "differs between files")


@item(19, "time of the first evaluation past the target; granularity")
def item_19(r):
    known = all(
        math.isfinite(row.granularity_seconds) or not row.reached for t in r.tables for _, row in t.rows.iterrows()
    )
    return visible(r, 2 if r.tables and known else 0, "granularity_seconds of every row", "spacing", "at or past")


@item(20, "devices are waited for where time is taken", {NATIVE})
def item_20(r):
    return share(r.files, lambda f: f.config("measuring").get("gpu_timing") in ("sync", "event"), said="gpu_timing")


# C. Sampling and statistics


@item(21, "five and more independent repetitions", gate=True)
def item_21(r):
    least = min((int(row.n) for t in r.tables for _, row in t.rows.iterrows()), default=0)
    shared = [f for f in r.files if f.clock == NATIVE and r.processes[r.process(f)] > 1]
    if shared and least >= 5:
        return 1, f"{len(shared)} native runs share a process with another repetition: give each seed a launch"
    remark = "" if least >= 10 else "; below 10 the headline bears no interval of a ratio"
    return visible(r, 2 if least >= 5 else int(least >= 2), f"at least {least} runs in each row{remark}", "| n")


@item(22, "repetitions over two allocations, interleaved", {NATIVE})
def item_22(r):
    jobs = {f.provenance("scheduler").get("job_id") for f in r.files} - {None}
    placed, said = share(r.files, lambda f: "block" in f.config("order"), said="block and position")
    return (2 if placed == 2 and len(jobs) > 1 else min(placed, 1)), f"{said}; {len(jobs)} allocations"


@item(23, "seeds explicit, unique, one for each purpose", gate=True)
def item_23(r):
    purposes = {"init", "data", "sampling", "compute", "compression", "method"}

    def split(f):
        seeds = f.config("seeds")
        keys = {json.dumps(seed) for seed in seeds.values()}
        own = all(seed[0] == f.root.get("seed") for seed in seeds.values()) if seeds else False
        return purposes <= seeds.keys() and len(keys) == len(seeds) and own

    score, said = share(r.files, split, said="a seed for each purpose")
    runs = [(f.root.get("cell"), f.root.get("seed")) for f in r.counted]
    if len(set(runs)) < len(runs):
        return 0, "a cell has a seed twice among the runs that count"
    return score, said


@item(24, "repetition k of every method has the same paths")
def item_24(r):
    score, said = share(r.files, lambda f: f.config("pairing"), said="hashes of start, samples and delays")
    found = {}
    for f in r.files:
        place = found.setdefault((f.root.get("experiment"), f.root.get("workers"), f.root.get("seed")), set())
        place.add(json.dumps(f.config("pairing"), sort_keys=True))
    unequal = sum(len(same) > 1 for same in found.values())
    return (0, f"they differ between methods on {unequal} seeds") if unequal else (score, said)


@item(25, "every number has an interval, over runs", gate=True)
def item_25(r):
    rows = [row for t in r.tables for _, row in t.rows.iterrows()]
    bare = sum(math.isnan(row.median_seconds_low) and row.n >= 6 for row in rows)
    return visible(
        r, 0 if not rows or bare else 2, f"{len(rows)} rows, {bare} without", "intervals", "order statistics"
    )


@item(26, "the median by default")
def item_26(r):
    named = all("median_seconds" in t.rows for t in r.tables)
    return visible(r, 2 if r.tables and named else 0, "medians over seeds", "median over seeds")


@item(27, "means of costs and rates; ratios are not averaged")
def item_27(r):
    ratios = [t for t in r.tables if t.base]
    said = "ratios of medians and medians of paired ratios, none averaged"
    return visible(r, 2 if ratios else 1 if r.tables else 0, said, *(["ratio of medians"] if ratios else []))


def _compared(r):
    return [row for t in r.tables if t.base for _, row in t.rows.iterrows() if row.method != row.base]


@item(28, "comparisons rest on the interval of the paired ratio")
def item_28(r):
    rows = _compared(r)
    whole = rows and all(not math.isnan(row.ratio_low) and not math.isnan(row.wins) for row in rows if row.pairs >= 10)
    enough = whole and all(row.pairs >= 10 for row in rows)
    return (2 if enough else 1 if rows else 0), f"{len(rows)} comparisons with ratio, interval and wins"


@item(29, "several comparisons are adjusted together")
def item_29(r):
    rows = _compared(r)
    tested = [row for row in rows if not math.isnan(row.p)]
    whole = tested and all(not math.isnan(row.p_holm) and row.comparisons >= 1 for row in tested)
    return visible(r, 2 if whole else 0, f"p and Holm's p of {len(tested)} comparisons", "Holm")


@item(30, "misses count", gate=True)
def item_30(r):
    outcomes = {"reached", "budget", "diverged", "walltime", "fault", "watchdog"}
    score, said = share(r.files, lambda f: f.root.get("outcome") in outcomes, said="outcome")
    counted = all({"reached", "n", "reached_low"} <= set(t.rows) for t in r.tables) and r.tables
    return visible(r, score if counted else 0, f"{said}; k of n with its interval in every row", "reached")


@item(31, "percentiles of steps, and staleness")
def item_31(r):
    def known(f):
        tails = f.clock == VIRTUAL or "compute_p99_seconds" in f.attrs.get("steps", {})
        return "updates/staleness_histogram" in f.columns and tails

    return share(
        r.files,
        known,
        lambda f: "updates/staleness_histogram" in f.columns,
        "histogram of staleness, p50, p95 and p99 of steps",
    )


@item(32, "outliers are kept")
def item_32(r):
    return share(r.files, lambda f: f.config("measuring").get("outliers"), said="the rule in /config/measuring")


@item(33, "when repetitions stop")
def item_33(r):
    def planned(f):
        return f.config("measuring").get("stopping", {}).get("repetitions")

    score, said = share(r.files, planned, said="a fixed number")
    runs = {}
    for f in r.files:
        runs.setdefault(f.root.get("cell"), set()).add(f.root.get("seed"))
    fewer = sum(len(runs[f.root.get("cell")]) < (planned(f) or 0) for f in r.files)
    return (
        (min(score, 1), f"{said}; {fewer} files belong to cells with fewer runs than planned")
        if fewer
        else (score, said)
    )


@item(34, "autocorrelation inside a run")
def item_34(r):
    return 1, "no interval is made from within a run: the unit is the run; batch means are not shown"


@item(35, "an aggregate over problems by profiles")
def item_35(r):
    made, why = r.profiles
    if not made:
        return 0, why
    bands = [each.profile for each in made]
    return (2 if all(len(p.low) for p in bands) else 1), f"{len(made)} profiles with bands"


# D. Documentation and provenance


@item(36, "commit, dirty flag, versions", gate=True)
def item_36(r):
    def code(f):
        said = f.provenance("code")
        clean = said.get("dirty") is False or "diff_hash" in said
        return {"version", "schema", "commit"} <= said.keys() and clean

    return share(r.files, code, lambda f: "source_hash" in f.provenance("code"), "commit, dirty flag, versions")


@item(37, "resolved and raw configuration with hash", gate=True)
def item_37(r):
    def configured(f):
        whole = {"config/resolved", "config/raw", "config/overrides", "config/hash"} <= f.texts.keys()
        return whole and cell_hash(f.config("resolved")) == f.texts["config/hash"]

    return share(r.files, configured, said="raw, overrides, resolved, and its hash made again")


def cell_hash(resolved):
    """The hash of a resolved cell, as `mpibench.experiment` has it."""

    def canonical(value):
        if isinstance(value, dict):
            return {k: canonical(v) for k, v in value.items()}
        if isinstance(value, list):
            return [canonical(v) for v in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    what = {key: value for key, value in resolved.items() if key not in ("tuning", "measuring")}
    what["experiment"] = {key: value for key, value in what.get("experiment", {}).items() if key != "seeds"}
    return hashlib.sha256(json.dumps(canonical(what), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@item(38, "Python and packages with wheel tags and lock file")
def item_38(r):
    def packages(f):
        said = f.provenance("packages")
        return "python" in said and any(" " in version for version in said.get("distributions", {}).values())

    return share(
        r.files, lambda f: packages(f) and "lock_hash" in f.provenance("packages"), packages, "versions and lock"
    )


@item(39, "the MPI that is loaded", MPI)
def item_39(r):
    keys = {"library", "threads", "device_buffers", "device_buffers_tested", "progress", "launch_line"}
    return share(
        r.files,
        lambda f: keys <= f.provenance("mpi").keys() and f.provenance("mpi")["launch_line"],
        lambda f: "library" in f.provenance("mpi"),
        "library, thread level, device buffers, progress, launch line",
    )


@item(40, "the machine under every rank", MPI)
def item_40(r):
    names = ("host", "cpu_model", "affinity", "numa_nodes", "gpu", "memory_bytes", "container")

    def rows(f):
        return all(len(f.column(f"provenance/ranks/{name}")) == f.root.get("ranks") for name in names)

    return share(r.files, rows, lambda f: "provenance/ranks/host" in f.columns, ", ".join(names))


@item(41, "network cards, transport, variables", MPI)
def item_41(r):
    keys = {"cards_mbit_per_second", "host_channel_adapters", "variables", "topology"}
    return share(r.files, lambda f: keys <= f.provenance("network").keys(), said="/provenance/network")


@item(42, "the batch job", MPI)
def item_42(r):
    def job(f):
        said = f.provenance("scheduler")
        return said.get("system") == "none" or {"job_id", "job_nodelist", "job_partition"} <= said.keys()

    return share(
        r.files, job, lambda f: "provenance/scheduler" in f.texts, "job, nodes and partition, or that there is none"
    )


@item(43, "modules and environment by allow-list")
def item_43(r):
    score, said = share(r.files, lambda f: "LOADEDMODULES" in f.provenance("env"), said="module list and variables")
    secret = [
        name
        for f in r.files
        for name in f.provenance("env")
        if any(w in name.upper() for w in ("TOKEN", "PASSW", "SECRET"))
    ]
    return (0, f"{secret[0]} looks like a secret") if secret else (score, said)


@item(44, "the data and their partition")
def item_44(r):
    def data(f):
        said = f.provenance("data")
        computed = said.get("checksum") == "not applicable"
        return {"name", "version", "licence", "checksum", "partition", "seed"} <= said.keys() and (
            computed or "labels" in said
        )

    return share(
        r.files, data, lambda f: "name" in f.provenance("data"), "name, version, licence, checksum, partition, labels"
    )


@item(45, "load from others", {NATIVE})
def item_45(r):
    names = ("load_average", "load_average_at_the_end")
    return share(r.files, lambda f: all(f"provenance/ranks/{n}" in f.columns for n in names), said=" and ".join(names))


# E. Domain rules


@item(46, "methods pass their checks", gate=True)
def item_46(r):
    def passed(f):
        kinds = "oracle" in f.checks and ("band" in f.checks or f.root.get("outcome") == "diverged")
        return kinds and all(value == 1 for value in f.checks.values()) and len(f.checks) > 2

    failed = [f for f in r.files if 0 in f.checks.values()]
    score, said = share(r.files, passed, lambda f: f.checks, "oracle, invariants and band")
    if failed:
        names = ", ".join(sorted({name for f in failed for name, value in f.checks.items() if value == 0}))
        return 1, f"{len(failed)} runs fail {names}, and print no time"
    return score, said


@item(47, "faster than theory is flagged")
def item_47(r):
    score, said = share(r.files, lambda f: f.root.get("plausibility"), said="plausibility")
    fast = [f for f in r.files if f.root.get("plausibility") == "faster than theory allows"]
    return visible(r, score, f"{said}, {len(fast)} flagged", *(["FLAGGED"] if fast else []))


@item(48, "a byte ledger of four levels")
def item_48(r):
    levels = ("algorithmic", "serialised", "mpi")
    score, said = share(
        r.files, lambda f: all(f"bytes/{level}/edges" in f.columns for level in levels), said="levels a, b, c"
    )
    return score, f"{said}; level d where counters of cards can be read"


@item(49, "staleness, consensus, participation")
def item_49(r):
    def known(f):
        base = "updates/staleness_histogram" in f.columns and "ranks/used" in f.columns
        mean = f.root.get("final_model") != "the mean of all ranks" or "trace/consensus" in f.columns
        return base and mean and ("updates/staleness_seconds" in f.columns or "ages/age_sum" in f.columns)

    return share(
        r.files,
        known,
        lambda f: "updates/staleness_histogram" in f.columns,
        "staleness in updates and seconds, participation",
    )


@item(50, "progress of MPI, with a control run", {NATIVE})
def item_50(r):
    score, said = share(r.files, lambda f: f.provenance("mpi").get("progress"), said="progress mode and polling")
    return min(score, 1), f"{said}; no control run with another mode"


@item(51, "delays requested and realised", {VIRTUAL, EMULATED})
def item_51(r):
    def known(f):
        return f.has("delays", "requested_seconds", "realised_seconds") and "model" in f.attrs["delays"]

    score, said = share(r.files, known, said="/delays with its model")
    return visible(r, score, said, *sorted({f.clock for f in r.files}))


@item(52, "virtual time is validated by a real run", {VIRTUAL, EMULATED})
def item_52(r):
    cells = {}
    for f in r.files:
        cells.setdefault((f.root.get("experiment"), f.root.get("algorithm")), []).append(
            f.config("checks") or f.text("checks/validation")
        )
    with_one = [name for name, found in cells.items() if any(found)]
    errors = [v["relative_error"] for found in cells.values() for v in found if v]
    pairs = r.twins
    if with_one or pairs:
        worst = max([*errors, *pairs]) if errors or pairs else math.nan
        whole = len(with_one) == len(cells) or bool(pairs)
        return (2 if whole else 1), f"{len(errors) + len(pairs)} runs in both, largest relative error {worst:.3g}"
    return 0, "no run was repeated over MPI"


@item(53, "faults are scheduled and logged")
def item_53(r):
    return share(r.files, lambda f: "schedule" in f.attrs.get("faults", {}), said="/faults with its schedule")


@item(54, "the final model is stated and the same")
def item_54(r):
    score, said = share(r.files, lambda f: f.root.get("final_model"), said="final_model")
    if any(len({run.final_model for run in race.runs if run.complete}) > 1 for race in r.races):
        return 1, "it differs between methods"
    return visible(r, score, said, "Final model")


@item(55, "energy by a named sensor, or none", {NATIVE})
def item_55(r):
    with_energy = [f for f in r.files if "energy" in f.attrs]
    fine = all("sensor" in f.attrs["energy"] for f in with_energy) and "joule" not in r.text.lower()
    return (2 if fine else 0), f"{len(with_energy)} files with energy, no column"


# F. Reporting


@item(56, "absolute numbers with units; axes say what they are")
def item_56(r):
    labels = r.axes
    if not labels:
        return 0, "no figure can be drawn"
    timed = any("second" in label or "(s)" in label for label in labels)
    return (2 if timed and all(labels) else 1), f"axes: {'; '.join(labels[:4])}"


@item(57, "tables are made again by one command, from hashed inputs", gate=True)
def item_57(r):
    missing = [run for race in r.races for run in race.runs if run.digest[:12] not in r.text]
    score = 2 if r.tables and not missing else 0
    return visible(r, score, f"hashes of {sum(len(race.runs) for race in r.races)} inputs", "SHA-256", "Made by `")


@item(58, "failed runs appear with their reason")
def item_58(r):
    if r.parts:
        return 1, f"{len(r.parts)} parts of killed runs lie beside, unseen: `mpibench collect` them"
    failed = [run for race in r.races for run in race.runs if run.stopped_from_outside]
    silent = [run for run in failed if run.complete and run.error and run.error not in r.text]
    return visible(r, 0 if silent else 2, f"{len(failed)} failed runs, all in the table's notes", "reached")


@item(59, "verified before they are merged")
def item_59(r):
    def verified(f):
        said = f.root.get("verified")
        return f.sealed and said and json.loads(said).get("findings") == []

    return share(r.files, verified, lambda f: f.sealed, "sealed, and verified without findings")


@item(60, "what varies that could not be controlled")
def item_60(r):
    score, said = share(r.files, lambda f: f.config("measuring").get("limitations"), said="limitations")
    return visible(r, score, said, "Limitations:")
