"""How often the 95 % intervals of `analysis` hold the true number, and how often its tests at 5 % find a difference
that is not there: synthetic runs whose truth is known (tests/coverage_cases.py).

Prints the table of docs/statistics.md. Takes minutes of CPU; --replications 500 for a first look.
"""

import argparse
import json
import sys

from harness import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from coverage_cases import CASES, LEVELS, coverage, level

BAR = 0.93  # of a nominal 95 % interval, at 10 and 20 runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=5000, help="of every case (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=1999, help="of every bootstrap (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    covered = [
        {"interval": case.name, "n": n, "coverage": share, "given": printed}
        for case in CASES
        for n in case.runs
        for share, printed in [coverage(case, n, given.replications, given.resamples)]
    ]
    levels = [{"test": name, "rejected": level(draw, given.replications)} for name, draw in LEVELS.items()]
    if given.json:
        print(json.dumps({"coverage": covered, "levels": levels, "replications": given.replications}))
        return
    print("| 95 % interval | n | coverage | given in |\n|---|---|---|---|")
    for row in covered:
        below = "" if row["coverage"] >= BAR else " (below the bar)"
        print(f"| {row['interval']} | {row['n']} | {row['coverage']:.3f}{below} | {100 * row['given']:.0f} % |")
    print("\n| test at 0.05, no difference | found one |\n|---|---|")
    for row in levels:
        print(f"| {row['test']} | {row['rejected']:.3f} |")


if __name__ == "__main__":
    main()
