"""What a network costs, as written (reference) and folded: FLOP and bytes per support entry and per query.

A FLOP is one multiplication or addition; bytes are feature maps and images read and written in float32 by operations
that must touch memory (weights apart, activations and additions fused into what stands before them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import BY_FORM, NOT_TAKEN, STATIC_FOLDS
from .folded import FoldedBlock, FoldedNetwork, FoldNote


@dataclass(frozen=True)
class Cost:
    """FLOP and bytes; adds up."""

    flop: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flop + other.flop, self.bytes + other.bytes)


@dataclass(frozen=True)
class BlockCost:
    """One block's cost for each support entry and for each query, reference and folded."""

    block: str
    reference_entry: Cost
    reference_query: Cost
    folded_entry: Cost
    folded_query: Cost


def network_cost(network: FoldedNetwork, height: int = 128, width: int = 128) -> list[BlockCost]:
    """The cost of each block of a folded network at an image size, in the order in which they run."""
    return [_block_cost(network, block, height, width) for block in network.blocks]


def total(rows: list[BlockCost], side: str, support_size: int) -> Cost:
    """The whole network's cost of one query with one support set; side is `reference` or `folded`."""
    out = Cost()
    for row in rows:
        entry, query = getattr(row, f"{side}_entry"), getattr(row, f"{side}_query")
        out += Cost(entry.flop * support_size + query.flop, entry.bytes * support_size + query.bytes)
    return out


def _block_cost(network: FoldedNetwork, block: FoldedBlock, height: int, width: int) -> BlockCost:
    spec, pixels = block.spec, (height >> block.spec.level) * (width >> block.spec.level)
    cu, cv, c = spec.query_channels, spec.support_channels, spec.features
    last, down = spec.is_last, spec.is_halved

    def conv(inputs: int, outputs: int, taps: int = 9) -> Cost:
        return Cost(2.0 * taps * inputs * outputs * pixels, 4.0 * pixels * (inputs + outputs))

    def touch(maps: float) -> Cost:
        """Maps of c channels read or written by a pooling or a mean."""
        return Cost(0.0, 4.0 * pixels * c * maps)

    # Reference: cross convolution of every entry with the query repeated, the mean, the support convolution, the pool.
    reference_entry = conv(cu + cv, c) + touch(1) + conv(c, c) + (touch(1.25) if down else Cost())
    reference_query = conv(c, c) + touch(1)
    if spec.is_decoder:  # up ‖ skip is written once and read by the convolution
        reference_entry += Cost(0.0, 4.0 * pixels * (cv + cv / 2))

    mean_first = block.mean_before_convolution
    folded_query = conv(cu, c) + conv(c, c)
    folded_entry = Cost()
    if mean_first:
        folded_query += conv(cv, c)
    if block.reads_entries:
        if block.support_weight is not None and mean_first:
            folded_query += conv(c, c)
        if block.composed_weight is not None:
            folded_entry += conv(cv, c, 25)
        else:
            folded_entry += conv(cv, c)
            if block.support_weight is not None:
                folded_entry += conv(c, c)
        folded_entry += touch(1)  # the support-mean operation reads its input; what it writes is read by a later block
        folded_entry += touch(0.25 if down else 0) + touch(1 if network.entries_are_read(block) else 0)
        if spec.is_decoder:
            folded_entry += Cost(0.0, 4.0 * pixels * (cv + cv / 2))
    if last:
        head = Cost(2.0 * c * pixels, 4.0 * pixels * (c + 1))
        reference_query += head
        folded_query += head
    return BlockCost(spec.name, reference_entry, reference_query, folded_entry, folded_query)


def table(network: FoldedNetwork, height: int = 128, width: int = 128, support_sizes=(1, 16, 64)) -> str:
    """The cost table and the folds behind it, as text (`universeg-export --explain`)."""
    rows = network_cost(network, height, width)
    lines = [
        f"{height}x{width}, float32; GFLOP and MB (feature maps read and written), for each support entry and each "
        "query",
        f"{'':14}{'reference':>30}{'folded':>32}", f"{'block':14}{'entry':>16}{'query':>16}{'entry':>16}{'query':>16}"
    ]

    def cell(cost: Cost) -> str:
        return f"{cost.flop / 1e9:8.3f} {cost.bytes / 1e6:6.1f} "

    for row in rows:
        cells = (row.reference_entry, row.reference_query, row.folded_entry, row.folded_query)
        lines.append(f"{row.block:14}" + "".join(map(cell, cells)))
    sums = [sum((getattr(r, f) for r in rows), Cost())
            for f in ("reference_entry", "reference_query", "folded_entry", "folded_query")]
    lines.append(f"{'sum':14}" + "".join(map(cell, sums)))
    lines.append("")
    for size in support_sizes:
        reference, folded = total(rows, "reference", size), total(rows, "folded", size)
        lines.append(
            f"S = {size:3}: {reference.flop / 1e9:7.1f} -> {folded.flop / 1e9:6.1f} GFLOP "
            f"({reference.flop / folded.flop:.1f} times less), "
            f"{reference.bytes / 1e9:6.2f} -> {folded.bytes / 1e9:5.2f} GB")
    static = network
    for module in STATIC_FOLDS:
        static = module.apply(static)
    lines += ["", "folds", *_said(network.notes)]
    lines += ["  of the static network, once a task is frozen", *_said(static.notes[len(network.notes):])]
    lines += ["  taken by some forms of the network"] + [f"    {name}: {reason}" for name, reason in BY_FORM.items()]
    lines += ["  not taken, though exact"] + [f"    {name}: {reason}" for name, reason in NOT_TAKEN.items()]
    return "\n".join(lines)


def _said(every: Sequence[FoldNote]) -> list[str]:
    """What each fold did, blocks with the same reason in one line."""
    lines = []
    for name in dict.fromkeys(note.fold for note in every):
        notes = [n for n in every if n.fold == name]
        lines.append(f"  {name}")
        for reason in dict.fromkeys(n.reason for n in notes):
            blocks = [n for n in notes if n.reason == reason]
            verb = "applied" if blocks[0].applied else "not applied"
            lines.append(f"    {verb} to {', '.join(n.block for n in blocks)}: {reason}")
    return lines
