"""A sweep on a Ray cluster of several nodes on this machine, one of which is killed in the middle."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_task2vec.errors import DistributedError
from hf_task2vec.evidence.build import Cluster, build_index
from tests.support.synthetic import files_in

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra [ray] is not installed")

# Runs a build on a head without CPUs and two nodes with one each, in a process of its own: Ray asks for this machine's
# address in ways that the guard of these tests takes for connections to the outside, and its daemons shall die with it.
DRIVER = """
import atexit, json, os, pathlib, signal, sys, threading, time
from ray.cluster_utils import Cluster as LocalCluster
from hf_task2vec.evidence.build import Cluster, Checkpoint, build_index
from hf_task2vec.errors import DistributedError

out, cache, kill, tasks, nets = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(","), sys.argv[5].split(",")


def too_late(*_):
    raise TimeoutError("the machine is too busy")


def start():
    for left in reversed(range(5)):  # Ray gives a node 30 s to start, which a busy machine may exceed
        local = LocalCluster(initialize_head=False)
        try:
            local.add_node(num_cpus=0, include_dashboard=False)
            return local, [local.add_node(num_cpus=1) for _ in range(2)]
        except BaseException as error:
            local.shutdown()
            if not left or isinstance(error, TimeoutError):
                raise


signal.signal(signal.SIGALRM, too_late)  # so that the daemons are ended in any case
signal.alarm(900)
local, nodes = start()
atexit.register(local.shutdown)


def slow(checkpoint, flag):
    from hf_task2vec.probes.probe import Probe
    open(f"{flag}.{os.getpid()}", "w").close()
    time.sleep(4)
    return Probe.from_pretrained(checkpoint)


def crash():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_a_node():
    # While a slow cell is in work on every node, one of them goes.
    while len([name for name in os.listdir(os.path.dirname(out)) if name.startswith("loading.")]) < 2:
        time.sleep(0.05)
    done = len(list(pathlib.Path(cache).glob("cells/*/*.json")))
    local.remove_node(nodes[0], allow_graceful=False)
    with open(os.path.join(os.path.dirname(out), "done-when-killed"), "w") as handle:
        handle.write(str(done))


flag = os.path.join(os.path.dirname(out), "loading")
nets = [Checkpoint("local:" + os.path.basename(net), {"net": os.path.basename(net)}, lambda net=net: slow(net, flag),
                   {"library": "timm", "architecture": "test_resnet"}) for net in nets]
if kill == "crash":
    nets.append(Checkpoint("local:crash", {"net": "crash"}, crash))
cluster = Cluster(local.address, max_retries=1)
if kill == "kill":
    threading.Thread(target=kill_a_node, daemon=True).start()
report = build_index(out, tasks, nets, cache=cache, embed=False, cluster=cluster)
refused = ""
try:
    build_index(out + "2", tasks, nets, cache=cache + "2", embed=False,
                cluster=Cluster(local.address, gpus_per_cell=0.25))
except DistributedError as error:
    refused = str(error)
alive = sum(node["Alive"] for node in __import__("ray").nodes()) if __import__("ray").is_initialized() else None
print(json.dumps({"connected_after": alive, "refused": refused, **report.to_dict()}))
"""


def on_cluster(tasks: list[str], nets: list[str], folder: Path, mode: str) -> dict[str, Any]:
    folder.mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    inputs = [",".join(tasks), ",".join(nets[:2])]
    command = [sys.executable, "-c", DRIVER, str(folder / "out"), str(folder / "cells"), mode, *inputs]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1000)
    assert result.returncode == 0, result.stderr[-4000:]
    document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return document


@with_ray
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_node_killed_in_the_middle_changes_no_byte(tasks: list[str], nets: list[str], tmp_path: Path) -> None:
    whole = on_cluster(tasks, nets, tmp_path / "whole", "leave")
    killed = on_cluster(tasks, nets, tmp_path / "killed", "kill")
    for report in (whole, killed):
        assert (report["done"], report["failed"]) == (4, 0)
        assert report["connected_after"] is None
        assert "no node of the cluster can run a cell of 1 CPUs and 0.25 GPUs" in report["refused"]
    assert int((tmp_path / "killed" / "done-when-killed").read_text()) < 4  # it was in the middle
    assert files_in(tmp_path / "killed" / "out") == files_in(tmp_path / "whole" / "out")
    assert files_in(tmp_path / "killed" / "out")["scores.csv"].count(b"\n") == 1 + 4


@with_ray
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_cell_that_kills_its_process_fails_alone(tasks: list[str], nets: list[str], tmp_path: Path) -> None:
    report = on_cluster(tasks, nets, tmp_path / "run", "crash")
    assert (report["done"], report["failed"]) == (4, 2)
    assert {failure["checkpoint"] for failure in report["failures"]} == {"local:crash"}
    assert "its node or process died, as at every retry" in report["failures"][0]["reason"]


def test_without_ray(tasks: list[str], nets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DistributedError, match=r"needs Ray: pip install 'hf-task2vec\[ray\]'"):
        build_index(tmp_path / "out", tasks[:1], nets[:1], cache=tmp_path / "cells", embed=False, cluster=Cluster())


def test_nodes_that_can_run_a_cell() -> None:
    node = {"CPU": 16.0, "GPU": 2.0, "memory": 1e9}
    assert Cluster(gpus_per_cell=0.25).fits(node)
    assert Cluster(gpus_per_cell=2.0, cpus_per_cell=16.0).fits(node)
    assert not Cluster(cpus_per_cell=17.0).fits(node)
    assert not Cluster(gpus_per_cell=0.25).fits({"CPU": 4.0})


def test_nothing_left_needs_no_cluster(tasks: list[str], nets: list[str], tmp_path: Path) -> None:
    given: dict[str, Any] = {"cache": tmp_path / "cells", "embed": False, "device": "cpu"}
    build_index(tmp_path / "out", tasks[:1], nets[:1], **given)
    assert build_index(tmp_path / "out", tasks[:1], nets[:1], **given, cluster=Cluster("127.0.0.1:1")).done == 1
