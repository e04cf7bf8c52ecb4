"""What the commands cost as a user types them: start, and `hf-task2vec select` from a cold start and from the cache.

    python -m benchmarks.speed.commands [--only startup select] [--runs 20] [--dataset ../shared/tasks/trashnet]

Starts are timed `--runs` times, the commands in turn so that a busy machine disturbs all alike; the first round, which
fills the file cache and writes byte code, is not counted. Targets: `import` 0.3 s and `help` 0.5 s. Both selections are
processes of their own, with an empty cache folder before the first. Raw outputs: results/startup.json and
results/select_cost.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import TASKS, parser, write

PROGRAM = str(Path(sys.executable).with_name("hf-task2vec"))
STARTS = {
    "bare": [sys.executable, "-c", "pass"],
    "import": [sys.executable, "-c", "import hf_task2vec"],
    "help": [PROGRAM, "--help"],
}


def run(command: list[str], environment: dict[str, str] | None = None) -> tuple[str, dict[str, float]]:
    """Run a command; return what it printed, and its cost."""
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    seconds, cpu_seconds = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
    return printed, {
        "seconds": round(seconds, 4),
        "cpu_seconds": round(cpu_seconds, 4),
        "peak_memory_mib": round(usage.ru_maxrss / 1024),
    }


def startup(runs: int) -> dict[str, Any]:
    """All times in seconds, their medians, and the medians' ratios to the bare interpreter."""
    rounds = [{name: run(command)[1]["seconds"] for name, command in STARTS.items()} for _ in range(runs + 1)][1:]
    times = {name: [row[name] for row in rounds] for name in STARTS}
    medians = {name: round(statistics.median(values), 4) for name, values in times.items()}
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "median_s": medians,
        "ratio_to_bare": {name: round(value / medians["bare"], 2) for name, value in medians.items()},
        "runs_s": times,
    }


def select_cost(dataset: Path) -> dict[str, Any]:
    """Select twice for one dataset."""
    result: dict[str, Any] = {"dataset": dataset.name, "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HF_HOME": home, "HF_TASK2VEC_CACHE": f"{home}/task2vec", "HF_HUB_OFFLINE": "1"}
        for which in ("cold", "cached"):
            printed, cost = run([PROGRAM, "select", str(dataset), "--json"], environment)
            answer = json.loads(printed)
            best = answer["candidates"][0]["hub_id"]
            result[which] = {**cost, "checkpoints_ranked": answer["n_ranked"], "best": best}
    return result


def main() -> None:
    """Run the parts asked for and write their raw outputs."""
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="*", choices=("startup", "select"), default=("startup", "select"))
    arguments.add_argument("--runs", type=int, default=20)
    arguments.add_argument("--dataset", type=Path, default=TASKS / "trashnet")
    args = arguments.parse_args()
    if "startup" in args.only:
        write("startup", found := startup(args.runs))
        print(json.dumps(found["median_s"]))
    if "select" in args.only:
        write("select_cost", found := select_cost(args.dataset))
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
