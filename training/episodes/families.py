"""The families of synthetic label maps by name, and what sets some of them apart."""

from __future__ import annotations

from universeg_rt.training.episodes import shapes
from universeg_rt.training.episodes.nested import nested

COARSE = {"regions": shapes.regions, "anatomy": shapes.anatomy, "nested": nested, "layers": shapes.layers}
FINE = {
    "anatomy": shapes.anatomy, "blobs": shapes.blobs, "cells": shapes.cells, "vessels": shapes.vessels,
    "retina": shapes.retina, "membranes": shapes.membranes, "curves": shapes.curves}
FAMILIES = {**COARSE, **FINE}
THIN = ("vessels", "retina", "curves", "membranes")  # families in which a target may be a pixel across
FULL = ("regions", "nested", "layers", "retina")     # families that bring what lies behind their targets
