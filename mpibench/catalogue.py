"""What can be named in an experiment: algorithms, problems, compressors and topologies, found by their files, and their
parameters.

The file's name is the name; there is no registry. `names` and `summary` read folders and text only, so that `list`
starts fast and a file whose libraries are missing is still listed; `load` and `describe` import the one that is named.
A parameter is a field of a dataclass: `words` says in words what it allows, `read` holds a table of values to it.
"""

import ast
import importlib
import inspect
import io
import json
import math
import textwrap
import tokenize
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin, get_type_hints

from mpibench import parameters
from mpibench.errors import InvalidInput

PACKAGE = Path(__file__).parent
FOLDERS = {
    "algorithm": PACKAGE / "algorithms",
    "problem": PACKAGE / "problems",
    "compressor": PACKAGE / "compressors",
    "topology": PACKAGE.parent / "topologies",
}
EXAMPLE = 16  # ranks of a topology that fits several numbers, to describe it
PLAIN_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", dict: "a table"}


def names(kind):
    """Names of all files of this kind ("algorithm", "problem", "compressor" or "topology"), sorted."""
    suffix = ".toml" if kind == "topology" else ".py"
    return tuple(sorted(p.stem for p in FOLDERS[kind].glob(f"*{suffix}") if not p.stem.startswith("_")))


def nearest(name, known, mark="`{}`"):
    """`; did you mean ...?` with the known name nearest to `name`, or the list of all where none is near."""
    known = [str(k) for k in known]
    close = get_close_matches(str(name), known, n=1)
    if close:
        return f"; did you mean {mark.format(close[0])}?"
    return f"; known: {', '.join(mark.format(k) for k in known)}" if known else "; none is known"


def path(kind, name):
    """The file behind a name; InvalidInput with the nearest name where there is none."""
    known = names(kind)
    if name not in known:
        raise InvalidInput(f"there is no {kind} `{name}`{nearest(name, known)}")
    return FOLDERS[kind] / f"{name}{'.toml' if kind == 'topology' else '.py'}"


def summary(kind, name):
    """The first line of the file's docstring (of a topology: of its first comment), read without importing it."""
    text = path(kind, name).read_text(encoding="utf-8")
    if kind == "topology":
        lines = text.splitlines()
        return lines[0].lstrip("# ").strip() if lines and lines[0].startswith("#") else ""
    docstring = ast.get_docstring(ast.parse(text)) or ""
    return docstring.partition("\n")[0]


def load(kind, name):
    """The dataclass of an algorithm, problem or compressor: the class whose name is the file's without underscores."""
    path(kind, name)
    try:
        module = importlib.import_module(f"mpibench.{FOLDERS[kind].name}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "mpibench":
            raise
        raise InvalidInput(f"{kind} `{name}` needs the package `{error.name}`, which is not installed") from error
    for value in vars(module).values():
        own = inspect.isclass(value) and value.__module__ == module.__name__
        if own and value.__name__.lower() == name.replace("_", "").lower():
            return value
    raise InvalidInput(f"{kind} `{name}`: {module.__name__} holds no class named {name.replace('_', '')} in any case")


def describe(name, kind=None, size=None, picture=None):
    """Text about the algorithm, problem, compressor or topology of this name: its docstring and its parameters.

    A topology is a name, the path of a .toml file or a generator; `size` is a number of ranks for it, and `picture` the
    path of a PNG file to draw it into.
    """
    kinds = [k for k in FOLDERS if name in names(k) and kind in (None, k)]
    if kind in (None, "topology") and not kinds and (name.endswith(".toml") or name in _generators()):
        kinds = ["topology"]
    if not kinds:
        known = [n for k in FOLDERS if kind in (None, k) for n in names(k)]
        known += [n for n in _generators() if kind in (None, "topology")]
        any_kind = "algorithm, problem, compressor or topology"
        raise InvalidInput(f"there is no {kind or any_kind} `{name}`{nearest(name, known)}")
    if "topology" not in kinds and (size or picture):
        raise InvalidInput(f"`{name}` is no topology, so it has no size and no picture")
    return "\n\n".join(_topology(name, size, picture) if k == "topology" else _described(k, name) for k in kinds)


def _generators():
    from mpibench.graphs import GENERATORS

    return GENERATORS


def _topology(name, size, picture):
    """A topology's file, or its generator's parameters; and its facts for this number of ranks."""
    from mpibench import portrait, topology

    if name in names("topology") or name.endswith(".toml"):
        file = path("topology", name) if name in names("topology") else Path(name)
        table, title = topology.read(file), file.stem
        text = [f"{title} (topology)", file.read_text(encoding="utf-8").rstrip()]
    else:
        generator, title = _generators()[name], name
        table = {"name": name}
        rows = [
            (key, words(hint) + ("; required" if default is inspect.Parameter.empty else f"; default {default}"))
            for key, (hint, default) in topology.parameters(generator).items()
        ]
        text = [f"{name} (generator of topologies)", inspect.cleandoc(generator.__doc__), _table(rows)]
        if missing := [key for key, said in rows if said.endswith("required")]:
            if picture:
                raise InvalidInput(f"{name} has no picture without {' and '.join(missing)}; describe a file with them")
            return "\n\n".join(text)
    if not (size := size or topology.size_of(table)):
        size = EXAMPLE
        text.append(f"With {size} ranks, for example (--size N for another number):")
    graph = topology.build(table, size, where=title)
    text.append(portrait.facts(graph))
    if picture:
        portrait.draw(graph, table, f"{title}: {size} ranks", picture)
    return "\n\n".join(text)


def _described(kind, name):
    cls = load(kind, name)
    hints = get_type_hints(cls, include_extras=True)
    comments = field_comments(cls)
    rows = []
    for field in fields(cls):
        if field.default is not MISSING:
            default = "optional" if field.default is None else f"default {as_toml(field.default)}"
        else:
            default = "required" if field.default_factory is MISSING else f"default {as_toml(field.default_factory())}"
        rows.append((field.name, f"{words(hints[field.name])}; {default}", comments.get(field.name, "")))
    docstring = inspect.cleandoc(inspect.getmodule(cls).__doc__ or cls.__doc__ or "")
    return "\n".join([f"{name} ({kind})", "", docstring, "", _table(rows)])


def _table(rows):
    """Parameters, one a row: (name, words, and a comment or nothing)."""
    width = max((len(row[0]) for row in rows), default=0)
    lines = [
        "\n".join([f"  {name:<{width}}  {said}", *(f"  {'':<{width}}  {text}" for text in comment if text)])
        for name, said, *comment in rows
    ]
    return "\n".join(["Parameters" if rows else "No parameters", *lines])


def as_toml(value):
    """A value as it is written in an experiment."""
    if is_dataclass(value):
        value = {k: v for k, v in vars(value).items() if v is not None}
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{k} = {as_toml(v)}' for k, v in value.items())} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(as_toml, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool)) else str(value)


def field_comments(cls):
    """The comment behind (or, on lines of its own, before) each field in the source of a dataclass and its bases."""
    comments = {}
    for base in reversed(cls.__mro__):
        if base.__module__ == "builtins" or not vars(base).get("__annotations__"):
            continue
        source = textwrap.dedent(inspect.getsource(base))
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
        text = {token.start[0]: token.string.lstrip("# ") for token in tokens}
        own_line = {token.start[0] for token in tokens if not token.line[: token.start[1]].strip()}
        for node in ast.parse(source).body[0].body:
            if isinstance(node, ast.AnnAssign):
                first, last = node.lineno, node.end_lineno
                above = []
                while first - 1 in own_line:
                    first -= 1
                    above.insert(0, text[first])
                below = [text[last]] if last in text and last not in own_line else []
                comments[node.target.id] = " ".join(above + below)
    return comments


def words(annotation):
    """What a field's annotation allows, in words: `a finite number > 0`."""
    if annotation == parameters.Threshold:
        return "a whole number >= 1, or inf"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _ranged(words(arguments[0]), arguments[1:])
    if origin is Literal:
        return f"one of {', '.join(as_toml(a) for a in arguments)}"
    if origin in (Union, UnionType):
        if set(arguments) == {int, float}:
            return words(float)
        return " or ".join(dict.fromkeys(words(a) for a in arguments if a is not NoneType))
    if origin in (tuple, list):
        return f"a list, each {words(arguments[0])}"
    if origin is dict:
        return f"a table, each {words(arguments[1])}"
    if kind := getattr(annotation, "catalogued", None):
        return f"a table with the `name` of a {kind}"
    return PLAIN_WORDS.get(annotation, "a table" if is_dataclass(annotation) else str(annotation))


def alternatives(annotation):
    """The types that a field's annotation allows, without ranges."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for a in get_args(annotation) for kind in alternatives(a)]
    return [annotation]


def takes_list(annotation):
    """Whether a field is a list itself, so that a list of values for it is no grid."""
    return any((get_origin(kind) or kind) in (list, tuple) for kind in alternatives(annotation))


def _ranged(noun, metadata):
    bounds = [f"{sign} {getattr(m, key):g}" for m in metadata for key, sign in _SIGNS.items() if hasattr(m, key)]
    if any(getattr(m, "func", None) is math.isfinite for m in metadata):
        noun = noun.replace("a number", "a finite number")
    shortest = next((m.min_length for m in metadata if getattr(m, "min_length", None)), 0)
    if shortest:
        noun = noun.replace("a list", f"a list of at least {shortest}")
    return " ".join([noun, " and ".join(bounds)]).strip()


_SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def check_keys(table, known, at, refuse):
    """Refuse what is no table, and a key that is not known."""
    if not isinstance(table, dict):
        refuse(at[:-1], f"{at[-1]} = {as_toml(table)} must be a table", at[-1])
    for key in table:
        if key not in known:
            refuse(at, f"has no key `{key}`{nearest(key, known)}", key)


def value(annotation, given, at, key, refuse):
    """The value that stands in a table for a field with this annotation."""
    from pydantic import ValidationError

    try:
        # JSON, because there pydantic is strict and still takes lists as tuples and whole numbers as floats
        return _validator(annotation).validate_json(json.dumps(given), strict=True)
    except (ValidationError, TypeError):  # JSON has no dates, and no field is one
        text = as_toml(given)
        text = text if len(text) < 100 else f"{text[:90]} ..."
        refuse(at, f"{key} = {text} must be {words(annotation)}", key)


def read(cls, table, at, refuse, also=()):
    """An object of a dataclass from a table that stands at the path `at`; `also` are keys the table may have besides.

    Whatever is wrong goes to `refuse(at, text, key)`, which raises: unknown and missing keys, wrong types, values out
    of range (also in tables within), and the ValueErrors of the class itself.
    """
    hints = get_type_hints(cls, include_extras=True)
    check_keys(table, [*(f.name for f in fields(cls)), *also], at, refuse)
    values = {}
    for field in fields(cls):
        name, hint = field.name, hints[field.name]
        if name not in table:
            if field.default is MISSING and field.default_factory is MISSING:
                refuse(at, f"lacks `{name}`, {words(hint)}", name)
        elif inner := [kind for kind in alternatives(hint) if is_dataclass(kind)]:
            place = table[name], (*at, name), refuse
            if kind := getattr(inner[0], "catalogued", None):
                one = named(kind, *place)
            else:
                one = inner[0] if len(inner) == 1 else variant(inner, *place)
            values[name] = read(one, *place)
        elif get_origin(hint) is dict:
            check_keys(table[name], table[name], (*at, name), refuse)
            values[name] = {k: value(get_args(hint)[1], v, at, k, refuse) for k, v in table[name].items()}
        else:
            values[name] = value(hint, table[name], at, name, refuse)
    try:
        return cls(**values)
    except ValueError as error:
        refuse(at, str(error))


def named(kind, table, at, refuse):
    """The class of the file that a table names; it has a field `name` as well."""
    check_keys(table, table, at, refuse)
    if "name" not in table:
        refuse(at, f"lacks `name`, that of a {kind}, of which `mpibench list` tells", "name")
    try:
        return load(kind, value(str, table["name"], at, "name", refuse))
    except InvalidInput as error:
        refuse(at, str(error), "name")


def variant(classes, table, at, refuse):
    """Of several dataclasses the one that a table means: they have a field in common that is a Literal, its name."""
    tagged = {}
    for cls in classes:
        hints = get_type_hints(cls, include_extras=True)
        key = next(f.name for f in fields(cls) if get_origin(hints[f.name]) is Literal)
        tagged[get_args(hints[key])[0]] = cls
    check_keys(table, table, at, refuse)
    if key not in table:
        refuse(at, f"lacks `{key}`, one of {', '.join(map(as_toml, tagged))}", key)
    if (name := value(str, table[key], at, key, refuse)) not in tagged:
        refuse(at, f"has no {key} {as_toml(name)}{nearest(name, tagged)}", key)
    return tagged[name]


@cache
def _validator(annotation):
    from pydantic import TypeAdapter

    return TypeAdapter(annotation)
