"""What `hf-task2vec select` costs as a user types it: time and peak memory, from a cold start and from the cache.

    python benchmarks/select_cost.py [--dataset ../shared/tasks/trashnet]

Both runs are processes of their own with an empty cache folder before the first. Raw output: results/select_cost.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(dataset: str, environment: dict[str, str]) -> dict[str, float]:
    """Run the command once."""
    command = [str(Path(sys.executable).with_name("hf-task2vec")), "select", dataset, "--json"]
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    document = json.loads(answer)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_memory_mib": round(usage.ru_maxrss / 1024),
        "checkpoints_ranked": document["n_ranked"],
        "best": document["candidates"][0]["hub_id"],
    }


def main() -> None:
    """Run twice and write the raw output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=str(ROOT.parent / "shared" / "tasks" / "trashnet"))
    args = parser.parse_args()
    home = tempfile.mkdtemp()
    try:
        environment = {**os.environ, "HF_HOME": home, "HF_HUB_OFFLINE": "1"}
        result = {
            "dataset": Path(args.dataset).name,
            "cores": len(os.sched_getaffinity(0)),
            "cold": run(args.dataset, environment),
            "cached": run(args.dataset, environment),
        }
    finally:
        shutil.rmtree(home)
    path = ROOT / "benchmarks" / "results" / "select_cost.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
