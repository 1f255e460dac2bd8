"""How long things take in fdiff, and beside it in torch, torch.compile and OpenVINO.

    python -m tests.benchmarks                         every case, an hour or two
    python -m tests.benchmarks unet32 t5 --rounds 7    some
    python -m tests.benchmarks --list                  what there is

The sides of a case run in turn, each in a process of its own that holds the same random weights, and waits while others
run. What was found is added to docs/benchmarks.json, and the tables of docs/benchmarks.md and README.md and a plot are
made of all that is in there (`--out` names another folder, where nothing but the three files is written). A side that
is not there, ends, or takes more than ten minutes to compile has its reason in the table.
"""

import argparse
import sys
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.case import Setting
from tests.benchmarks.cases import CASES
from tests.benchmarks.turns import child, measured

ROUNDS = 5


def main() -> None:
    """Run the cases that are named, or all."""
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = {case.name: case for case in CASES}
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases, all if none is given")
    parser.add_argument("--list", action="store_true", help="say what cases there are")
    parser.add_argument("--rounds", type=int, help=f"turns of each side, {ROUNDS} where a case does not say less")
    parser.add_argument("--sides", nargs="*", help="only these, such as fdiff torch")
    parser.add_argument("--beside", metavar="FOLDER", help="another checkout of fdiff, which is measured in turn too")
    parser.add_argument("--small", action="store_true", help="tiny networks, to see that all of it runs")
    parser.add_argument("--out", type=Path, help="a folder for results.json, table.md and plot.png")
    parser.add_argument("--report", action="store_true", help="only make the tables of what was found before")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--from", dest="checkout", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"there is no case {unknown[0]}; see --list")
    if options.side:
        if options.checkout:
            sys.path.insert(0, options.checkout)
            import convert
            import fdiff  # noqa: F401

            sys.path.pop(0)
            assert convert.__file__ and convert.__file__.startswith(options.checkout)
        child(names[options.names[0]], options.side, Setting(options.small, options.folder))
        return
    chosen = [names[name] for name in options.names] or CASES
    if options.list:
        for case in chosen:
            print(f"{case.name:18} {case.about} ({', '.join(case.sides)})")
        return
    for case in [] if options.report else chosen:
        sides = [side for side in case.sides if not options.sides or side in options.sides]
        sides += ["fdiff@"] if options.beside and "fdiff" in sides else []
        rounds = options.rounds or case.rounds or ROUNDS
        found = measured(case, sides, rounds, options.small, options.beside)
        print(report.line(case.name, found), flush=True)
        if not options.small or options.out:
            report.add(case.name, found, options.out)
    if options.report or options.out or not options.small:
        report.write(options.out)


if __name__ == "__main__":
    main()
