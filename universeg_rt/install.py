"""How a missing part is installed: the one place that words it."""

from __future__ import annotations


def install_hint(extra: str = "") -> str:
    """Return the command that installs the project with an extra of pyproject.toml.

    The project stands in no package index, so pip finds it in a clone only.
    """
    target = f"'.[{extra}]'" if extra else "."
    return f"run pip install {target} in a clone of the project"
