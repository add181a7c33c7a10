"""What a result file says beside its numbers, for grading: attributes, texts, which columns there are, and their values
where they are short."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

from analysis.read import seal_holds

GROUPS = ("config", "provenance", "clock", "trace", "updates", "ranks", "bytes", "ages", "delays", "fidelity", "steps")
GROUPS += ("checks", "faults", "events", "energy")

OF_GATES = ("config/resolved", "config/raw", "config/overrides", "config/hash", "config/seeds", "provenance/code")
OF_GATES += ("provenance/ranks/process", "provenance/ranks/process_started", "trace/time", "checks/name")
OF_GATES += ("checks/passed", "clock/resolution_seconds", "clock/overhead_seconds")


@dataclass(frozen=True, eq=False)
class Facts:
    """One file. `attrs`: of its root and of groups, by their names ("" is the root); `texts`: JSON texts by path, as
    objects; `columns`: other datasets by path, as arrays, `None` for what has more than 4096 numbers."""

    path: Path
    sealed: bool
    attrs: dict
    texts: dict
    columns: dict

    @property
    def root(self):
        """Attributes of the root."""
        return self.attrs[""]

    @property
    def clock(self):
        """The clock of its seconds."""
        return self.root.get("clock")

    def text(self, path):
        """The object at this path, {} where there is none."""
        return self.texts.get(path) or {}

    def config(self, name):
        """What /config says of this."""
        return self.text(f"config/{name}")

    def provenance(self, name):
        """What /provenance says of this."""
        return self.text(f"provenance/{name}")

    def has(self, group, *names):
        """Whether the group is there with all of these columns."""
        there = group in self.attrs
        return there and all(f"{group}/{name}" in self.columns for name in names)

    def column(self, path):
        """The values at this path, empty where there are none."""
        values = self.columns.get(path)
        return np.empty(0) if values is None else values

    @cached_property
    def checks(self):
        """name -> passed (1, 0, -1), of /checks."""
        names = [name.decode() if isinstance(name, bytes) else name for name in self.column("checks/name")]
        rows = zip(names, self.column("checks/passed").tolist(), strict=False)
        return {name: passed for name, passed in rows if name != "plausibility"}  # that is a flag


def facts(path, only_for_gates=False):
    """The Facts of a result file; it has been read before, so it is one. `only_for_gates`: what gates look at."""
    path = Path(path)
    content = path.read_bytes()
    sealed = content.startswith(b"mpibench result,") and seal_holds(content)
    attrs, texts, columns = {}, {}, {}
    with h5py.File(path, "r") as file:
        attrs[""] = _plain(file.attrs)
        if only_for_gates:
            for name in [name for name in GROUPS if name in file]:
                attrs[name] = _plain(file[name].attrs)
            columns |= dict.fromkeys(f"trace/{name}" for name in file.get("trace", ()))
            columns |= dict.fromkeys(f"steps/{name}" for name in file.get("steps", ()))
            for name in OF_GATES:
                if name in file:
                    _take(name, file[name], texts, columns)
            return Facts(path, sealed, attrs, texts, columns)
        for name in GROUPS:
            if name in file:
                attrs[name] = _plain(file[name].attrs)
                file[name].visititems(lambda inner, item, name=name: _take(f"{name}/{inner}", item, texts, columns))
        if "prediction" in file:
            _take("prediction", file["prediction"], texts, columns)
    return Facts(path, sealed, attrs, texts, columns)


def _take(path, item, texts, columns):
    if not isinstance(item, h5py.Dataset):
        return
    if item.shape == () and h5py.check_string_dtype(item.dtype):
        text = item.asstr()[()]
        try:
            texts[path] = json.loads(text)
        except json.JSONDecodeError:
            texts[path] = text
    else:
        columns[path] = item[()] if item.size <= 4096 else None


def _plain(attrs):
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in attrs.items()}
