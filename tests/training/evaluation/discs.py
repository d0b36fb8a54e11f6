"""What the commands are tested on."""

from __future__ import annotations

from pathlib import Path

from ...conftest import disc_data_set


def on_discs(folder: Path, bundle: Path) -> list[str]:
    """Arguments that name a data set of discs, written to the folder, and the bundle."""
    return [str(disc_data_set(folder)), "--data-root", str(folder), "--bundle", str(bundle)]
