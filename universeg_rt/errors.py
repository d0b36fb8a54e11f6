"""The errors that the project raises on purpose. Each says what was given, what is accepted, and the cure."""

from __future__ import annotations

import reprlib


class UniverSegError(Exception):
    """Base of all errors below. A command prints it as one line and exits with a non-zero status."""


class InputError(UniverSegError, ValueError):
    """An image, label, support set or option that does not meet the input contract."""


class SeveralError(InputError):
    """A file or folder holds several volumes, and nothing says which one is meant."""


class GeometryError(InputError):
    """A label that does not lie on the pixels or voxels of its image."""


class TruthError(InputError):
    """A truth of several labels, where nothing says which of them was segmented."""


class BlankError(InputError):
    """An image with nothing to see in it, all one value; as a query it has an empty mask. short: what it is, without
    the cure."""

    def __init__(self, short: str, cure: str) -> None:
        super().__init__(f"{short}{cure}")
        self.short = short

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.short, str(self)[len(self.short) :])


class NoiseError(BlankError):
    """A slice of a volume that holds nothing but noise, such as air beside the patient."""


class BundleError(UniverSegError):
    """A bundle that is missing, altered, truncated, or written by a newer version."""


class CheckpointError(UniverSegError):
    """A weights file that cannot be read safely or does not fit the network it is loaded into."""


class SpecError(UniverSegError, ValueError):
    """A network specification that no network can be built from."""


class ParityError(UniverSegError):
    """An exported model that differs from the reference network by more than its tolerance."""


class RunnerError(UniverSegError):
    """A runner that is unknown, cannot start here or fails; names what to install. short: the reason in a few words."""

    def __init__(self, message: str, *, short: str | None = None) -> None:
        super().__init__(message)
        self.short = short


class EngineError(UniverSegError):
    """An engine that cannot be built, or was built for another machine, library or model; names what differs."""


class OutputError(UniverSegError, OSError):
    """A file or folder that cannot be written."""


class TrainingError(UniverSegError):
    """A training run that cannot start or go on; nothing already written is lost."""


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """As usual; a number too long for Python to write in decimal is cut from its hexadecimal digits."""
        if x.bit_length() < LONG_BITS:
            return super().repr_int(x, level)
        digits, end = hex(x), self.maxlong // 2
        return f"{digits[:end - 2]}...{digits[-end + 1:]}"


LONG_BITS = 2000  # Python may be set to write no more than 640 decimal digits
_REPR = _Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80


def shown(value: object) -> str:
    """A value in a message: its repr in some hundred characters, however long or deeply nested it is."""
    return _REPR.repr(value)


def first_line(error: BaseException) -> str:
    """What an engine's own error says, without what it says beyond the first line; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
