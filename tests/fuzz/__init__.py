"""Mutation fuzzing of everything that the project reads: damaged or odd input gives a result or a typed error, never
else.

    python -m tests.fuzz --cases 1000 --seed 0 configs data_sets     (from the checkout; all modules where none is
    named)

A module of this folder takes part when it has

    def cases(rng: random.Random, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]

an endless stream of cases: a description that lets a reader make the case again, and a callable that runs it. All that
is random is drawn from `rng` before a case is given out, nothing in the callable, so that a run goes on behind a case
that killed its process. `folder` is a temporary folder of the module's own.

A case passes when its callable returns or raises one of `universeg_rt.errors`. All else is a defect: another exception
(an AssertionError of the callable's own too), a death, more than SECONDS of wall time, or more than MEMORY bytes asked
for, also where a typed error covers the MemoryError.
"""

SECONDS = 10.0
MEMORY = 1 << 30
