"""What scanning 100,000 listed repositories costs, with a Hub on this machine: time of our own, and memory.

    python -m benchmarks.speed.harvest [--repositories 100000] [--lacking 0.3]

Of `lacking` of them the card has to be read by itself. The Hub is a process of its own that answers at once, so the
time is what we need, not what the network does. Raw output: results/harvest.json.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from benchmarks.common import ROOT, parser, write

BASE = "google/vit-base-patch16-224-in21k"
LINES = "".join(f"| 0.{i} | {i}.0 | {i * 100} | 0.4 | 0.9{i} |\n" for i in range(10))
CARD = (
    f"---\nbase_model: {BASE}\n---\nThis model is a fine-tuned version of [{BASE}](https://huggingface.co/{BASE}) "
    f"on the food101 dataset.\n\n- Loss: 0.2\n- Accuracy: 0.91\n\n- learning_rate: 5e-05\n- num_epochs: 3\n\n{LINES}"
)


def item(i: int, lacking: float) -> dict[str, object]:
    """Return what the list says of repository `i`."""
    card: dict[str, object] = {"license": "apache-2.0", "tags": ["generated_from_trainer"], "base_model": BASE}
    name = f"data{i % 2000}"
    if i % 100 >= 100 * lacking:
        dataset = {"name": name, "type": name, "config": "default", "split": "train", "args": "default"}
        metrics = [{"name": "Accuracy", "type": "accuracy", "value": 0.5 + (i % 4999) / 10000}]
        task = {"name": "Image Classification", "type": "image-classification"}
        card["model-index"] = [{"name": "net", "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]
    tags = ["transformers", "pytorch", f"base_model:{BASE}", f"base_model:finetune:{BASE}", "region:us"] * 2
    facts = {"sha": f"{i:040x}", "lastModified": "2026-01-01T00:00:00.000Z", "private": False, "tags": tags}
    return {"_id": f"{i:024x}", "id": f"user{i % 30000}/net-{i}", "cardData": card, **facts}


def serve(count: int, lacking: float) -> None:
    """Answer as the Hub does, on a port that is printed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            split = urlsplit(self.path)
            link, body = "", CARD.encode()
            if split.path == "/api/models":
                start = int(parse_qs(split.query).get("cursor", ["0"])[0])
                stop = min(start + 500, count)
                body = json.dumps([item(i, lacking) for i in range(start, stop)]).encode()
                link = f'<http://127.0.0.1:{server.server_port}/api/models?cursor={stop}>; rel="next"' * (stop < count)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            if link:
                self.send_header("Link", link)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


def measure(count: int) -> None:
    """Harvest, and print what it took."""
    from hf_task2vec import ZooIndex
    from hf_task2vec.evidence import harvest

    index = ZooIndex.load()
    with tempfile.TemporaryDirectory() as folder:
        began, cpu = time.perf_counter(), time.process_time()
        found = harvest(index, state=Path(folder, "state"))
        seconds, own = time.perf_counter() - began, time.process_time() - cpu
        again = time.perf_counter()
        harvest(index, state=Path(folder, "state"), since="2027-01-01")
        again = time.perf_counter() - again
        size = Path(folder, "state").stat().st_size
    assert (found.listed, found.finished) == (count, True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
    facts = {
        "seconds": seconds,
        "cpu_seconds": own,
        "seconds_of_the_next": again,
        "peak_gb": peak,
        "state_mb": size / 1e6,
    }
    print(json.dumps({**facts, "cards_read": found.cards, "outcomes": found.outcomes, "rows": found.rows}))


def main() -> None:
    """Command line."""
    arguments = parser(__doc__)
    arguments.add_argument("--repositories", type=int, default=100_000)
    arguments.add_argument("--lacking", type=float, default=0.3)
    arguments.add_argument("--role", choices=("serve", "measure"))
    args = arguments.parse_args()
    if args.role == "serve":
        serve(args.repositories, args.lacking)
    if args.role == "measure":
        measure(args.repositories)
    if args.role:
        return
    command = [sys.executable, "-m", "benchmarks.speed.harvest", "--repositories", str(args.repositories)]
    command += ["--lacking", str(args.lacking), "--role"]
    with subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.stdout.readline().strip()}"}
        done = subprocess.run(
            [*command, "measure"], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        server.kill()
    found = {"repositories": args.repositories, "lacking": args.lacking, **json.loads(done.stdout)}
    write("harvest", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
