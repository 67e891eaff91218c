"""How often verdicts are right where the truth is known: simulated campaigns under each kind of noise.

    python bench/planted_truths.py [--campaigns 1000] [--blocks 9]

Each line is one kind of noise and one true ratio, and counts the verdicts of as many campaigns of one comparison, with
an A/A control; `interval` is how often the 95% interval holds the true ratio. Campaigns sample with the default budget,
64 blocks at most; `--blocks` fixes their number. tests/unit/comparison/test_planted_truths.py requires what
docs/method.md promises.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.noise import NOISES
from tests.support.planted_truths import NEGLIGIBLE, verdicts
from toolkit.comparison.verdict import EQUIVALENT, FASTER, INCONCLUSIVE, SLOWER

WORDS = (FASTER, SLOWER, NEGLIGIBLE, EQUIVALENT, INCONCLUSIVE)
TRUTHS = (1.0, 1.01, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--campaigns", type=int, default=1000)
    parser.add_argument("--blocks", type=int)
    options = parser.parse_args()
    rows = []
    for noise in NOISES:
        for truth in TRUTHS:
            made = verdicts(noise, truth, options.blocks, options.campaigns)
            counted = Counter(NEGLIGIBLE if one.is_negligible else one.word for one, _ in made)
            held = sum(interval.low <= truth <= interval.high for _, interval in made)
            rows.append([noise, truth, *(counted[word] for word in WORDS), f"{held / len(made):.1%}"])
    print(tabulate(rows, ["noise", "truth", *WORDS, "interval"], tablefmt="github"))


if __name__ == "__main__":
    main()
