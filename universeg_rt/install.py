"""How a missing part is installed: the one place that words it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .errors import InputError


def install_hint(extra: str = "") -> str:
    """Return the command that installs the project with an extra of pyproject.toml.

    The project stands in no package index, so pip finds it in a clone only.
    """
    target = f"'.[{extra}]'" if extra else "."
    return f"run pip install {target} in a clone of the project"


def needed(module: str, extra: str, what: str) -> ModuleType:
    """The module of an extra, imported; InputError with `install_hint` where its package is missing.

    what: what needs it, as it begins the message ("NIfTI").
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(f"{what} needs the package {error.name}, which is missing; {install_hint(extra)}") from None
