"""Plain values of YAML and JSON to dataclasses and back; what does not fit is refused with its place and name."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from pathlib import Path

from universeg_rt.errors import InputError, shown
from universeg_rt.storage.reading import reading

MAX_YAML = 1 << 17  # bytes, and values with aliases written out


def read_yaml(path: Path, what: str = "a YAML file"):
    """The plain values of a YAML file; InputError where it cannot be read as `what` it is, or is too large with its
    aliases."""
    import yaml

    with reading(what, path, cure="correct it, or write it again"):
        with open(path, "rb") as file:
            text = file.read(MAX_YAML + 1)
        if len(text) > MAX_YAML:
            raise InputError(f"{path} has more than {MAX_YAML} bytes; {what} is a text of a few pages")
        try:
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            if root is None:
                return None
            if _nodes(root) > MAX_YAML:
                raise InputError(f"{path} has aliases that make more than {MAX_YAML} values of it; write them out")
            return loader.construct_document(root)
        except yaml.YAMLError as error:
            raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def _nodes(root) -> int:
    """How many nodes a YAML document has with its aliases written out; infinite where one holds itself."""
    known: dict[int, float] = {}

    def count(node) -> float:
        if id(node) not in known:
            known[id(node)] = math.inf  # until it is counted: whoever asks before lies inside it
            inside = node.value if isinstance(node.value, list) else ()
            known[id(node)] = 1 + sum(
                count(n) for item in inside for n in (item if isinstance(item, tuple) else (item, )))
        return known[id(node)]

    return count(root)


def to_dict(config) -> dict:
    """Plain values for YAML and JSON; `from_dict` reads them back."""
    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value
    return plain(dataclasses.asdict(config))


def override(config, values: dict, where: str):
    """A config with some fields changed, given as nested plain values; a whole list or dict replaces the one before.

    Raises InputError for unknown fields and wrong types, saying where.
    """
    hints = typing.get_type_hints(type(config))
    if not isinstance(values, dict) or not set(values) <= set(hints):
        raise InputError(f"{where}: {shown(values)}; expected some of the fields {', '.join(hints)}")
    changes = {}
    for name, value in values.items():
        before, inside = getattr(config, name), f"{where}: {name}"
        nested = dataclasses.is_dataclass(before) and isinstance(value, dict)
        changes[name] = override(before, value, inside) if nested else _value(hints[name], value, inside)
    return dataclasses.replace(config, **changes)


def from_dict(kind, values, where: str):
    """A dataclass from nested plain values; InputError for unknown fields and wrong types, saying where."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a mapping of fields for {kind.__name__}, not {shown(values)}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(shown(name).strip("'") for name in set(values) - set(hints))
    if unknown:
        raise InputError(f"{where}: unknown fields {', '.join(unknown[:5])}; accepted: {', '.join(hints)}")
    try:
        return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in values.items()})
    except TypeError as error:
        raise InputError(f"{where}: {error}") from None


def _value(hint, value, where: str):
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        hint = next(a for a in arguments if a is not type(None))
        return _value(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or (arguments[-1] is not ... and len(value) != len(arguments)):
            raise InputError(f"{where} is {shown(value)}; expected a list" + (
                "" if arguments[-1] is ... else f" of {len(arguments)}"))
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else arguments
        return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value)))
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where} is {shown(value)}; expected a mapping")
        # str() refuses huge integers
        named = [(shown(k) if isinstance(k, int) else str(k), v) for k, v in value.items()]
        return {k: _value(arguments[1], v, f"{where}.{k[:40]}") for k, v in named}
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):  # YAML reads 1e-3 as text
        try:
            value = float(value)
        except (ValueError, OverflowError):
            pass
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{where} is {shown(value)}; expected {hint.__name__}")
    return value
