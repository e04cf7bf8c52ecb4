"""How long the package takes to start, beside a bare interpreter.

    python benchmarks/startup.py                                  # prints the JSON document
    python benchmarks/startup.py --output benchmarks/results/startup.json

Each command runs `--runs` times, the commands in turn so that a busy machine disturbs all alike; the first round, which
fills the file cache and writes byte code, is not counted. Targets: `import` 0.3 s and `help` 0.5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "bare": [sys.executable, "-c", "pass"],
    "import": [sys.executable, "-c", "import hf_task2vec"],
    "help": [str(Path(sys.executable).with_name("hf-task2vec")), "--help"],
}


def seconds(command: list[str]) -> float:
    """Return the wall-clock seconds of one run."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measure(runs: int) -> dict[str, object]:
    """Return all times in seconds, their medians, and the medians' ratios to the bare interpreter."""
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(runs + 1)][1:]
    times = {name: [round(row[name], 4) for row in rounds] for name in COMMANDS}
    medians = {name: round(statistics.median(values), 4) for name, values in times.items()}
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "median_s": medians,
        "ratio_to_bare": {name: round(value / medians["bare"], 2) for name, value in medians.items()},
        "runs_s": times,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--output", type=Path, help="file for the JSON document (default: standard output)")
    arguments = parser.parse_args()
    text = json.dumps(measure(arguments.runs), indent=2) + "\n"
    if arguments.output is None:
        print(text, end="")
    else:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
