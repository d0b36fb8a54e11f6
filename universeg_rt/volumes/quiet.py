"""Keeps libraries from printing and logging what they find in a header, which may name a patient."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("nibabel.global", "pydicom", "highdicom")


@contextmanager
def quiet() -> Iterator[None]:
    """Around calls of the libraries that read and write volumes: they neither log nor warn."""
    before = [(logger, logger.level) for logger in map(logging.getLogger, LOGGERS)]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in before:
            logger.setLevel(level)
