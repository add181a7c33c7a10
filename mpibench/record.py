"""The HDF5 file of one run. Its layout, schema 1; (n,) is one value a rank, (p,) one a snapshot, (u,) one an update:

/            attrs: schema (1), run_id, experiment, algorithm (its label), parameters (JSON), workers, ranks, seed,
             engine ("simulation" | "mpi"), clock ("virtual" | "emulated" | "native"), cell (first 16 hex digits of the
             hash), final_model (text: which rank's model, or which mean, the final one is), stop_stale (0/1, where the
             method has it), heterogeneous (0/1: whether the workers' objectives differ), biased (0/1: whether they do
             and the method is for equal ones), budget_seconds (inf: none); when the run has ended also outcome
             ("reached" | "budget" | "diverged" | "walltime" | "fault" | "watchdog"), error (one sentence, where there
             was one), seconds (length of the run on its clock), clock_rule (what these are and what is outside of
             them), plausibility ("as theory allows" | "faster than theory allows" | "theory says nothing of it"),
             event_hash, model_hash (hex), verified (JSON: by, a version, and the findings of `mpibench.verify`, none
             where all is well); complete (0/1); restarts (how often a native run went on after an interruption) and
             begun_before (how often a run of this cell and seed was begun before and not finished), absent where never
/config      resolved (JSON of the cell), raw (TOML text), seeds (JSON), tuning (JSON: trials, chosen, seeds,
             core_seconds), hash (text), overrides (JSON list), measuring (JSON, `mpibench.measuring`: the experiment's
             words and the rules of all runs), pairing (JSON: hashes of what all methods of a seed have in common),
             order (JSON: block and position of the run in the plan, which goes A B C, C B A, ...)
/provenance  code, packages, mpi, network, scheduler, env, data, phases, agreement (JSON); ranks/<field> (n,), load
             and throttling also <field>_at_the_end; phases are seconds on rank 0, of which total is all but
             start_of_the_process
/clock       resolution_seconds, overhead_seconds, start_seconds, stop_seconds, offset_seconds, round_trip_seconds,
             drift (n,); attrs: start_spread_seconds, stop_spread_seconds, span_seconds               (engine mpi)
/trace       time (float64 seconds on the run's clock), iteration (int64), updates, gradients, discarded, messages,
             bytes, bits (int64, cumulative over all ranks), <metric> (float64; attr direction: "lower" or
             "higher"), all (p,)
/updates     time, source, staleness, staleness_seconds, gradients (used in the update), workers (that they are of)
             (u,), with record_updates; always staleness_histogram: the number of gradients with staleness 0, 1, 2, ...
             (attr open: 1 where the last bin holds all larger ones)
/ranks       gradients, discarded, busy_seconds, idle_seconds, messages_sent, messages_received, messages_lost,
             messages_in_flight (when the run ended), bytes_sent, peak_memory_bytes, lattice_fallbacks (exchanges
             that it repeated in full precision, where `bits` is set), ... (n,)
/bytes       edges/{source,destination,messages,lost,received,bytes} (e,): of each directed edge, bytes as serialised;
             {algorithmic,serialised,mpi}/edges (e,): bits as the paper counts them, bytes of the bodies, bytes that
             MPI is handed for them, or in simulation would be (what ends a run apart);
             {algorithmic,...}/{up,down}: the same in all, to and from the server, where there is one;
             kinds/{source,destination,tag,messages,lost,algorithmic,serialised,mpi}: the same by edge and tag;
             attrs: rounds (messages with a vector), payload_bits (both upwards where there is a server), wire_bytes
/ages        source, destination, count, age_sum, age_max, seconds_sum, seconds_max (e,): of what entered a rank's state
             from another, in iterations by its stamps, and in seconds since the iteration of the stamp began; network
             methods
/delays      requested_seconds, realised_seconds (of all computations), computations (n,); attrs: model (JSON), seed,
             contention                                                               (clocks virtual and emulated)
/fidelity    attrs: lateness_median_seconds, lateness_p99_seconds, lateness_max_seconds, order_violations, overruns,
             time_scale, good (0/1), attempts                                                    (clock emulated)
/prediction  JSON, before the run, where there is a formula for the method: update_seconds {least, expected, most},
             targets [{value, eps, updates, seconds}], constants {smoothness, gap, variance, exact}, source; null is
             what theory does not say
/events      t, until (seconds in which a message travels or a computation runs; NaN where it is not known), rank,
             kind (0 sent, 1 lost, 2 computed, 3 stopped), peer, tag (-1: none), bytes; with record_events
             attrs: tags (JSON: number to name)
/steps       rank, start_seconds, compute_seconds, wait_seconds (since the last computation; messages in it), messages,
             off_clock, is_warmup (0/1), evenly thinned; attrs: steps (of which these are every `every`-th),
             compute_p50_seconds, ..., wait_p99_seconds, evaluation_seconds_off_clock                 (engine mpi)
/checks      name, value, tolerance, passed (1, 0; -1: not decided), note: `mpibench.checks`; on the first seed of an
             emulated cell also validation (JSON): the same run in virtual time
/faults      attrs: schedule (JSON), messages_lost, seconds_given_up; seconds, kind of interruptions, if any

A finished file begins with a block of 512 bytes, which HDF5 leaves to applications: lines of text, the second of which
is the SHA-256 of all bytes that follow (`seal`, `broken_seal`). `head -n 2 FILE` shows it.

JSON and TOML texts are scalar string datasets. Infinity and NaN stand in JSON as Python writes them. What is not known
is absent; in a column of /provenance/ranks it is "" or NaN.

The file is kept in memory and published whole, as `<stem>.h5.part`, by writing beside and renaming: a run that is
killed at any instant leaves the part as it was last published, readable, with complete = 0. `finish` syncs it to the
disk and gives it its final name, which never takes the place of an existing file.
"""

import errno
import hashlib
import json
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType

import h5py
import numpy as np

from mpibench.errors import DiskFull, InvalidInput

SCHEMA = 1
SMALL_BYTES = 1 << 22  # files up to this size are published at every append,
PUBLISHING_SHARE = 0.05  # larger ones so rarely that publishing takes at most this share of the time
BLOCK_BYTES = 512  # before the HDF5 file proper; HDF5 finds its beginning at powers of two
SEALED = b"mpibench result, sealed: SHA-256 of all bytes after the first 512\n"
COMPRESSED_BYTES = 1 << 11  # columns from this size on are compressed
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def run_id(environment=os.environ):
    """A name no other run has: UTC second, batch job or `local`, array index where there is one, 6 hex digits."""
    job = environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID") or "local"
    index = environment.get("SLURM_ARRAY_TASK_ID")
    parts = [f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}", job, *([index] if index else []), secrets.token_hex(3)]
    return "-".join(parts)


def place(out, experiment, algorithm, cell, seed, run):
    """Where the file of a run belongs below the folder `out`; `cell` is the hash of the cell, `run` its run id."""
    return Path(out) / experiment / f"{algorithm}-{cell[:8]}" / f"seed-{seed}-{run}.h5"


def outcome_of(path):
    """The outcome in a file or part; None where it has none or cannot be read."""
    try:
        with h5py.File(path) as file:
            return file.attrs.get("outcome")
    except OSError:
        return None


class RunFile:
    """The file of one run while it is being written; use it in a `with` statement.

    attrs       attributes of the root, without `schema` and `complete`
    config      datasets of /config: texts as they are, other values as JSON
    provenance  group name to a dict (stored as JSON); `ranks` is a list of dicts, one for each rank
    prediction  what theory says of the run (a dict), or None

    Raises InvalidInput where the file exists or cannot be made, DiskFull where there is no space; then nothing is left.
    An exception inside the `with` statement is written to the part (outcome "fault" and the exception as error, unless
    they are there) and goes on.
    """

    def __init__(self, path, attrs, config, provenance, prediction=None):
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self._beside = self.path.with_name(self.path.name + ".part.new")
        if self.path.exists():
            raise InvalidInput(f"{self.path} exists, and a result is never written over")
        self._published_at, self._publishing_seconds = -np.inf, 0.0
        self._columns = {}  # of each group that `append` fills
        self._file = h5py.File(str(self.part), "w", driver="core", backing_store=False)
        try:
            self._file.attrs.update(_plain(attrs) | {"schema": SCHEMA, "complete": 0})
            self.put("config", {key: v if isinstance(v, str) else json.dumps(v) for key, v in config.items()})
            self.put("provenance", provenance)
            if prediction is not None:
                self.put("/", {"prediction": prediction})
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._refusal(error) from error
            self._write(_name_anew, self.part)  # never empty: it is read whenever this process is killed
        except BaseException:
            self._file.close()
            raise

    def append(self, group, columns):
        """Extend the datasets of `group` by these columns, name to values of equal lengths, and publish.

        The first call decides names and types; a later one that differs is a ValueError.
        """
        arrays = {name: _array(values) for name, values in columns.items()}
        lengths = {len(a) for a in arrays.values()}
        if len(lengths) > 1:
            raise ValueError(f"/{group}: columns of unequal lengths {sorted(lengths)}")
        node = self._file.require_group(group)
        if group not in self._columns:
            self._columns[group] = set(arrays)
            for name, a in arrays.items():
                node.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(128,), dtype=a.dtype)
        if self._columns[group] != set(arrays):
            raise ValueError(f"/{group}: columns {sorted(arrays)} after {sorted(self._columns[group])}")
        for name, a in arrays.items():
            dataset = node[name]
            if not np.can_cast(a.dtype, dataset.dtype, "same_kind"):
                raise ValueError(f"/{group}/{name}: {a.dtype} values after {dataset.dtype} ones")
            dataset.resize(len(dataset) + len(a), axis=0)
            dataset[len(dataset) - len(a) :] = a
        self.publish(lazily=True)

    def put(self, group, mapping=(), attrs=()):
        """Write datasets into `group` and attributes onto it, or onto the dataset that `group` names.

        Values: a text or a number (scalar dataset), a dict (JSON text), a list of dicts (a group with a column for each
        key), anything else an array.
        """
        node = self._file[group] if group in self._file else self._file.create_group(group)
        for name, value in dict(mapping).items():
            if isinstance(value, dict):
                node.create_dataset(name, data=json.dumps(value))
            elif isinstance(value, (str, int, float)):
                node.create_dataset(name, data=value)
            elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
                self.put(f"{group}/{name}", _columns(value))
            else:
                node.create_dataset(name, data=_array(value))
        node.attrs.update(_plain(attrs))

    def put_exactly(self, group, name, array, device):
        """Write an array of a restart point as it is; `device`: of a torch tensor, or ""."""
        self._file[group].create_dataset(name, data=array).attrs["device"] = device

    def publish(self, lazily=False):
        """Make the part what is in memory; `lazily`: not where a large file was published a short while ago."""
        began = time.monotonic()
        if lazily and (began - self._published_at) * PUBLISHING_SHARE < self._publishing_seconds:
            return
        self._write(os.replace, self.part)
        self._published_at = time.monotonic()
        size = self.part.stat().st_size
        self._publishing_seconds = self._published_at - began if size > SMALL_BYTES else 0.0

    def finish(self, check=None, **attrs):
        """Write the last attributes and complete = 1, seal, sync, and give the file its final name.

        `check`: an open file -> what its attribute `verified` says.
        """
        self._file.attrs.update(_plain(attrs))
        self._file.attrs["complete"] = 1
        try:
            if check is not None:
                self._file.attrs["verified"] = json.dumps(check(self._file))
            self._write(_rename_to_new, self.path, sync=True)
        except BaseException:
            self._file.attrs["complete"] = 0  # only a file under its final name is complete
            raise
        self._file.close()  # first: what interrupts us now must not be written to the part
        self.part.unlink()

    def _write(self, rename, target, sync=False):
        """The whole file's bytes beside, then `rename` to the target; on an error nothing is left beside."""
        self._file.flush()
        image = seal(packed(self._file)) if sync else self._file.id.get_file_image()
        try:
            with open(self._beside, "wb") as stream:
                stream.write(image)
                stream.flush()
                if sync:
                    os.fsync(stream.fileno())
            rename(self._beside, target)
        except OSError as error:
            self._beside.unlink(missing_ok=True)
            raise self._refusal(error) from error

    def _refusal(self, error):
        if error.errno in FULL:
            return DiskFull(f"no space left to write {self.path}: free some, or choose another folder with --out")
        if isinstance(error, FileExistsError) and (self.path.exists() or self.part.exists()):
            return InvalidInput(f"{self.path} or its part exists, and a result is never written over")
        return InvalidInput(f"cannot write {self.path}: {error.strerror}; choose another folder with --out")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if not self._file:  # finished
            return
        if error is not None:
            self._file.attrs.setdefault("outcome", "fault")
            self._file.attrs.setdefault("error", f"{kind.__name__}: {error}".partition("\n")[0])
        try:
            if not isinstance(error, DiskFull):
                self.publish()
        except (DiskFull, InvalidInput):
            if error is None:
                raise
        finally:
            self._file.close()


def packed(file):
    """The bytes of an HDF5 file with the same content, without what appending has left unused."""
    with h5py.File("packed", "w", driver="core", backing_store=False, libver=("v110", "v110")) as new:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                there = new.require_group(name)
            else:
                large = item.ndim > 0 and item.dtype.kind in "if" and item.nbytes >= COMPRESSED_BYTES
                how = {"compression": "gzip", "shuffle": True} if large else {}
                there = new.create_dataset(name, data=item[()], dtype=item.dtype, **how)
            there.attrs.update(item.attrs)

        new.attrs.update(file.attrs)
        file.visititems(copy)
        new.flush()
        return new.id.get_file_image()


def seal(image):
    """The bytes of a finished file: the block that holds the hash, then the HDF5 file."""
    return (SEALED + hashlib.sha256(image).hexdigest().encode()).ljust(BLOCK_BYTES, b"\n") + image


def is_sealed(content):
    """Whether a file of these bytes begins with a seal."""
    return content.startswith(SEALED[:16])


def broken_seal(content):
    """What is wrong with the seal of a file of these bytes, in words; None where it holds."""
    if not is_sealed(content):
        return "it has no seal: it was not finished, or something else has written it"
    said = content[len(SEALED) : len(SEALED) + 64].decode("ascii", "replace")
    if seal(content[BLOCK_BYTES:]) != content:
        return f"it was changed after it had been finished: its bytes have not the SHA-256 {said[:12]}... of its seal"
    return None


def put_new(path, content):
    """Write a whole file under a name that nothing has yet, synced; InvalidInput or DiskFull where that cannot be."""
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        _rename_to_new(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.errno in FULL:
            raise DiskFull(f"no space left to write {path}: free some, or choose another folder") from error
        said = "it exists, and a result is never written over" if path.exists() else error.strerror
        raise InvalidInput(f"cannot write {path}: {said}") from error


def is_complete(path):
    """Whether a result file says that its run has ended by itself."""
    try:
        with h5py.File(path) as file:
            return file.attrs.get("complete", 0) == 1
    except OSError:
        return False


def _rename_to_new(source, target):
    """Rename, but never over an existing file, and have the folder's entry on the disk."""
    _name_anew(source, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _name_anew(source, target):
    """Rename, but never over an existing file."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(source, target)
    else:
        os.unlink(source)


def _plain(attrs):
    """Attributes as HDF5 takes them: dicts as JSON, truth values as 0 and 1, no None."""
    given = {name: value for name, value in dict(attrs).items() if value is not None}
    given = {name: int(value) if isinstance(value, bool) else value for name, value in given.items()}
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in given.items()}


def _array(values):
    """Values as a float64, int64 or text array; empty ones as float64."""
    array = np.asarray(values)
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    return array.astype(np.float64) if array.dtype.kind == "f" else array.astype(h5py.string_dtype())


def _columns(rows):
    """A list of dicts as a column for each key; None and what a row lacks become NaN among numbers, else ""."""
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        column = [row.get(name) for row in rows]
        if all(isinstance(v, (int, float, NoneType)) for v in column):
            columns[name] = [np.nan if v is None else v for v in column]
        else:
            columns[name] = ["" if v is None else v if isinstance(v, str) else json.dumps(v) for v in column]
    return columns
