"""What the fuzzers have in common: damage to the bytes of a file, and odd values in nested plain ones."""

from __future__ import annotations

import copy
import datetime
import math
import random
import re

import yaml

# What a field may be given by mistake or malice, of every type that JSON, YAML and Python callers know.
ODD_VALUES = (None, True, False, 0, 1, -1, 2, 3, 7, 255, 256, 65536, 2**31 - 1, 2**31, 2**63, 10**30, 0.0, -0.0, 0.5,
              -1.5, 1e-320, 1e30, 1.7e308, math.nan, math.inf, -math.inf, "", "x", "0", "1e-3", "nan", "-inf", "1_000",
              "\0", "é\ud800", "../../etc/passwd", "/dev/null", "x" * 5000, [], [[]], [None], [1, 2, 3], [1.0, "x"], {},
              {"x": 1}, {1: 2}, b"bytes", datetime.date(2020, 1, 1), (), (1, 2))


def damaged(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """(what was done, the bytes of a file with one to three kinds of damage)."""
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        how = rng.choice(_DAMAGES)
        detail, data = how(rng, data)
        done.append(f"{how.__name__[1:]} {detail}")
    return ", ".join(done), data


def changed(rng: random.Random, value: object, odd: tuple = ODD_VALUES) -> tuple[str, object]:
    """What was done, and a deep copy of nested dicts and lists, changed in type, range or structure
    in one to three places."""
    value, done = copy.deepcopy(value), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place, value = _change(rng, value, odd)
        done.append(place)
    return ", ".join(done), value


def dumped(values: object) -> bytes:
    """As YAML; what nests too deep for that as a text that does too."""
    try:
        return yaml.dump(values, sort_keys=False).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b"name: " + b"[" * 2000


def _position(rng: random.Random, data: bytes) -> int:
    """Headers stand at the beginning of a file, directories at its end: half of all positions are there."""
    size = max(1, len(data))
    near = min(size, rng.choice((16, 128, 1024)))
    return rng.choice((rng.randrange(size), rng.randrange(size), rng.randrange(near), size - 1 - rng.randrange(near)))


def _flip(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    out, places = bytearray(data), []
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        at, bit = _position(rng, data), rng.randrange(8)
        out[at] ^= 1 << bit
        places.append(f"{at}.{bit}")
    return " ".join(places[:8]), bytes(out)


def _truncate(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    at = _position(rng, data)
    return f"at {at}", data[:at]


def _overwrite(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    new = rng.choice((b"\0", b"\xff", b"\x7f")) * rng.choice((1, 4, 8, 64))
    if rng.random() < 0.5:
        new = rng.choice(
            (0, 1, 2**16, 2**31 - 1, 2**32 - 1, 2**62, 2**63, 2**64 - 1)).to_bytes(8, rng.choice(("little", "big")))
    at = _position(rng, data)
    return f"at {at} with {new[:8].hex()}", data[:at] + new + data[at + len(new):]


def _cut_out(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    at, length = _position(rng, data), rng.choice((1, 4, 100, 4096))
    return f"{length} at {at}", data[:at] + data[at + length:]


def _repeat(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    at, length = _position(rng, data), rng.choice((1, 8, 100, 4096))
    return f"{length} at {at}", data[:at + length] + data[at:]


def _swap(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    first, second = sorted((_position(rng, data), _position(rng, data)))
    length = min(rng.choice((1, 4, 64)), second - first)
    a, b = data[first:first + length], data[second:second + length]
    return f"{length} at {first} and {second}", data[:first] + b + data[first + length:second] + a + data[second +
                                                                                                          length:]


def _renumber(rng: random.Random, data: bytes) -> tuple[str, bytes]:
    """Numbers written as text: shapes of .npy headers, JSON, YAML."""
    found = list(re.finditer(rb"\d+", data[:65536]))
    if not found:
        return _flip(rng, data)
    match = rng.choice(found[:rng.choice((8, 64, len(found)))])
    new = rng.choice(
        (b"0", b"-1", b"1", b"99999", b"4294967296", b"9" * 19, b"9" * 30, b"1.5", b"NaN", b"1e999", b"null"))
    return f"{match.group()[:20]!r} at {match.start()} to {new[:20]!r}", data[:match.start()] + new + data[match.end():]


_DAMAGES = (_flip, _flip, _truncate, _overwrite, _cut_out, _repeat, _swap, _renumber)


def _places(value: object, path: tuple = ()) -> list[tuple]:
    """Paths of the values inside nested dicts and lists, outermost first, as deep as sensible input goes."""
    out = [path]
    if len(path) >= 12:
        return out
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        out += _places(inner, (*path, key))
    return out


def _change(rng: random.Random, value: object, odd: tuple) -> tuple[str, object]:
    path = rng.choice(_places(value))
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]] if path else value
    how, new = _instead(rng, old, odd)
    where = ".".join(map(str, path)) or "the whole"
    if not path:
        return f"{where}: {how}", new
    if rng.random() < 0.1:
        del holder[path[-1]]
        return f"{where}: left out", value
    holder[path[-1]] = new
    return f"{where}: {how}", value


def _instead(rng: random.Random, old: object, odd: tuple) -> tuple[str, object]:
    kind = rng.random()
    if isinstance(old, (int, float)) and not isinstance(old, bool) and kind < 0.4:
        new = rng.choice((-old, old + 1, old - 1, old * 10, old * 1000, old / 3, old // 2, float(old), str(old)))
    elif isinstance(old, list) and kind < 0.5:
        new = rng.choice((old[:-1], old + old, old[::-1], old + [None], old * 50, old[0] if old else None, [old]))
    elif isinstance(old, dict) and kind < 0.5:
        new = rng.choice((list(old), list(old.values()), {**old, "surprise": 1}, {**old, 3: None},
                          {str(k) + " ": v
                           for k, v in old.items()}, [old]))
    elif isinstance(old, str) and kind < 0.4:
        new = rng.choice(
            (old.upper(), old[:-1], old + "\n", old * 20, [old], old + "/..", old.replace("/", "\0"), old[::-1]))
    elif kind < 0.6:
        new, deep = old, rng.choice((1, 3, 2000))
        for _ in range(deep):
            new = [new]
        return f"into {deep} lists", new
    else:
        new = copy.deepcopy(rng.choice(odd))
    return "to " + ("nested lists" if isinstance(new, (list, dict)) else repr(new)[:60]), new
