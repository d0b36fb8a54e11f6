"""`universeg-evaluate`: the paper's protocol on any bundle and runner (section 5.1), beside what needs no network.

Queries are the images of a split, supports are drawn with replacement from the support split, anew for every query;
predictions of K supports of S entries are averaged. Dice is averaged over the images of a task, the tasks of a data
set, and the data sets. Beside it stand the Dice of an atlas of the same supports (their mean label, over a threshold
chosen by leave-one-out on the support) and of a copy (the label of the entry whose image correlates most with the
query's). The same seeds draw the same supports, so bundles, precisions, runners and kinds meet the same tasks. Data
sets of a few images have no splits worth the name: with --leave-one-out each subject is a query once, and all others
its support.

Choices are made on the dev splits of the group tune. The group report is for final figures: --open-report opens it, and
the results keep the date, the command and the weights.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from universeg_rt import Segmenter
from universeg_rt.cli.common import run_command
from universeg_rt.ensemble import POLICIES, RANDOM
from universeg_rt.errors import InputError
from universeg_rt.frozen.record import AUTO, EXACT, FORMAT, STATIC
from universeg_rt.storage.atomic import write_file
from universeg_rt.training.evaluation.measure import digest_of, measure
from universeg_rt.training.evaluation.plots import plot
from universeg_rt.training.evaluation.pools import PoolProtocol, evaluate_pools, pool_plot, pool_table, summarise_pools
from universeg_rt.training.evaluation.protocol import GROUPS, QUERY_SPLITS, Protocol, check_open, files_of
from universeg_rt.training.evaluation.record import read_results, this_run, write_results
from universeg_rt.training.evaluation.static import AutoSegmenter, StaticSegmenter
from universeg_rt.training.evaluation.summary import MEANINGS, csv_text, measures_table, summarise, table
from universeg_rt.training.tasks.datasets import Absent, load_absent, load_dataset
from universeg_rt.training.tasks.tasks import Task

PROGRAM = "universeg-evaluate"
EXAMPLE = """example:
  universeg-evaluate --group tune --data-root DATA --support-sizes 16 --members 1 --output tune.json
  universeg-evaluate --group tune --data-root DATA --kind exact static --output both.json --resume
  universeg-evaluate --group report --split test --open-report --data-root DATA --output report.json"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=PROGRAM, epilog=EXAMPLE, description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("datasets", type=Path, nargs="*", help="YAML files of data sets (training/README.md)")
    p.add_argument("--group", choices=sorted(f.name for f in GROUPS.iterdir() if f.is_dir()),
                   help="all data sets of a group of training/data_sets")
    p.add_argument("--split", nargs="+", choices=QUERY_SPLITS, default=["dev"], help="whose images are queries (dev)")
    p.add_argument("--open-report", action="store_true", help="allow data sets of the group report, on record")
    p.add_argument("--data-root", default=os.environ.get("UNIVERSEG_RT_DATA", ""),
                   help="folder of their files (or UNIVERSEG_RT_DATA)")
    p.add_argument("--bundle", type=Path, help="bundle folder (the shipped one)")
    p.add_argument("--kind", nargs="+", choices=(EXACT, STATIC, AUTO), default=[EXACT],
                   help="ways of running, on the same queries: exact; static: frozen tasks, natively; auto: static "
                   "where freezing takes it by its price, else exact (exact)")
    p.add_argument("--runner", default="auto", help="of the exact way")
    p.add_argument("--precision", default="auto", help="of the exact way")
    p.add_argument("--threads", type=int)
    p.add_argument("--tasks", nargs="+", metavar="NAME", help="only these tasks")
    p.add_argument("--support-sizes", type=int, nargs="+", default=[64], metavar="S")
    p.add_argument("--members", type=int, nargs="+", default=[5], metavar="K")
    p.add_argument("--policy", choices=POLICIES, default=RANDOM,
                   help="the entries that a query gets: drawn at random with replacement, the nearest to it, or all "
                   "(random)")
    p.add_argument("--queries", type=int, help="at most so many images a task (all)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--leave-one-out", action="store_true",
                   help="for a few images: each subject a query, all others its support")
    p.add_argument("--pools", type=int, nargs="+", metavar="N",
                   help="instead, Dice with only N labelled examples, all of them the support (Fig. 8)")
    p.add_argument("--repetitions", type=int, default=20, help="pools drawn for each N (20)")
    p.add_argument("--output", type=Path, help="JSON file for all figures, written task by task")
    p.add_argument("--resume", action="store_true", help="go on with --output: tasks in it are not measured again")
    p.add_argument("--csv", type=Path, help="CSV file, a row for each task, S, K and method")
    p.add_argument("--plot", type=Path,
                   help="PNG of every task, or of Dice against support size where there are several, or against N")
    return p


def main(arguments: list[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda args: _main(args, [PROGRAM, *given]), parser(), arguments)


def _main(args: argparse.Namespace, command: Sequence[str]) -> int:
    splits = tuple(dict.fromkeys(args.split))
    protocol = Protocol(tuple(args.support_sizes), tuple(args.members), args.queries, args.seed, splits,
                        args.leave_one_out, args.policy)
    pools = PoolProtocol(tuple(args.pools), args.repetitions, args.queries, args.seed, splits) if args.pools else None
    if not args.data_root:
        raise InputError("say where the data sets' files are with --data-root or UNIVERSEG_RT_DATA")
    if args.resume and (args.output is None or pools):
        raise InputError("--resume goes on with the file of --output, and not with --pools")
    if args.csv and pools:
        raise InputError("--csv is of tasks, not of --pools; their figures are in --output")
    files = files_of(args.group, args.datasets)
    check_open(files, args.open_report, args.output is not None)
    tasks, absent = _load(files, args.data_root, args.tasks)
    ways = _ways(args)
    if pools:
        return _pools(args, ways, tasks, pools, command)
    return _evaluate(args, ways, tasks, absent, protocol, command)


def _load(
    files: Sequence[Path], root: str, wanted: Sequence[str] | None
) -> tuple[list[Task], dict[str, Absent]]:
    """The tasks of the files, or those `wanted` by name, and by their names the images without their target."""
    tasks = [task for path in files for task in load_dataset(path, root)]
    names = [t.name for t in tasks]
    if len(set(names)) < len(names):
        raise InputError(f"tasks {', '.join(sorted({n for n in names if names.count(n) > 1}))} are named twice")
    unknown = set(wanted or ()) - set(names)
    if unknown:
        raise InputError(f"no tasks {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    absent = {name: found for path in files for name, found in load_absent(path, root).items()}
    return [t for t in tasks if not wanted or t.name in wanted], absent


def _ways(args: argparse.Namespace) -> dict[str, Segmenter]:
    """A segmenter for each kind asked for, in their order."""
    exact = Segmenter.open(args.bundle, runner=args.runner, precision=args.precision, threads=args.threads)
    kinds = dict.fromkeys(args.kind)
    ways = {EXACT: exact} if EXACT in kinds else {}
    for segmenter in (StaticSegmenter, AutoSegmenter):
        if segmenter.kind in kinds:
            ways[segmenter.kind] = segmenter.open(args.bundle, runner="native", threads=args.threads)
    return ways


def _setup(ways: dict[str, Segmenter], protocol: dict) -> dict:
    """What figures depend on, beside the data."""
    bundle = next(iter(ways.values())).bundle
    return {"bundle": bundle.manifest.name, "bundle_sha256": bundle.sha256,
            "weights_sha256": bundle.manifest.weights_sha256,
            "kinds": {name: {"runner": way.runner.name, "precision": way.runner.precision}
                      | ({"frozen_format": FORMAT} if isinstance(way, StaticSegmenter) else {})
                      for name, way in ways.items()},
            "protocol": protocol}


def _evaluate(args: argparse.Namespace, ways: dict[str, Segmenter], tasks: list[Task], absent: dict[str, Absent],
              protocol: Protocol, command: Sequence[str]) -> int:
    from tqdm import tqdm

    setup = _setup(ways, {
        "support_sizes": list(protocol.support_sizes), "members": list(protocol.members), "queries": protocol.queries,
        "seed": protocol.seed, "queries_from": protocol.queries_from,
        "replacement": protocol.policy == RANDOM, "policy": protocol.policy})
    runs, known = read_results(args.output, setup) if args.resume else ([], {})
    runs = [*runs, this_run(command, args.open_report)]
    results = []
    for task in tqdm(tasks, desc="tasks", unit="task"):
        done = known.get(task.name)
        if done is None or done.digest != digest_of(task, absent.get(task.name)):
            done = measure(ways, task, protocol, absent.get(task.name))
        results.append(done)
        if args.output:
            names = {r.task for r in results}
            write_results(args.output, setup, runs, [*results, *(m for m in known.values() if m.task not in names)], {})
    summary = summarise(results, protocol)
    print(f"{table(summary)}\n\n{measures_table(summary)}\n\n{MEANINGS}")
    if args.output:
        write_results(args.output, setup, runs, results, summary)
    if args.csv:
        with write_file(args.csv) as file:
            file.write(csv_text(summary).encode())
    if args.plot:
        plot(summary, args.plot)
    return 0


def _pools(args: argparse.Namespace, ways: dict[str, Segmenter], tasks: list[Task], pools: PoolProtocol,
           command: Sequence[str]) -> int:
    from tqdm import tqdm

    if len(ways) > 1:
        raise InputError("--pools takes one --kind at a time")
    segmenter = next(iter(ways.values()))
    scores = {task.name: evaluate_pools(segmenter, task, pools) for task in tqdm(tasks, desc="tasks", unit="task")}
    summary = summarise_pools(scores, {t.name: t.dataset or t.name for t in tasks}, pools)
    print(pool_table(summary, pools.sizes))
    if args.output:
        setup = _setup(ways, {
            "pools": list(pools.sizes), "repetitions": pools.repetitions, "queries": pools.queries, "seed": pools.seed,
            "queries_from": " and ".join(pools.splits)})
        write_results(args.output, setup, [this_run(command, args.open_report)], [], summary)
    if args.plot:
        pool_plot(summary, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
