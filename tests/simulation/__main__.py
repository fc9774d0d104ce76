"""Histories by hand: `.venv/bin/python -m tests.simulation --seeds 20000`, or one of them: `--seed 17 --trace`."""

import argparse
import os
import sys
import time
from collections import Counter

from tests.simulation.run import STEPS, many, tell


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this one alone, with its trace")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each history, before everything heals")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stop", action="store_true", help="at the first failure")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        told = tell(arguments.seed, arguments.steps)
        print(*told.trace, told.failure or "it holds", sep="\n")
        return 1 if told.failure else 0
    began = time.monotonic()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    found = many(seeds, arguments.steps, arguments.jobs, stop=arguments.stop)
    print(f"{found.histories} histories in {time.monotonic() - began:.0f} s: {dict(sorted(found.counts.items()))}")
    for told in found.failures[:20]:
        print(f"seed {told.seed}: {told.failure[:1000]}")
    print(f"{len(found.failures)} failed: {dict(Counter(told.failure.split(':')[0] for told in found.failures))}")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
