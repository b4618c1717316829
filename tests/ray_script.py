"""A sweep on a Ray cluster of two nodes of one CPU each, started here; one node is killed in the middle.

Arguments: the folder with the model and the data, and the output folder. What came of every point is
written to `said.json` beside the model, as threads of Ray write to stdout when they like.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray's workers give way to all other processes, so that beside other tests they would hardly run.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112

from ray.cluster_utils import Cluster

from sparsebert.recipe.load import load_recipe
from sparsebert.runs.claim import RECIPE_FILE
from sparsebert.runs.executors.cluster import STORE_BYTES
from sparsebert.runs.sweep import Point, sweep

LIMIT_S = 240
SMALL = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}


def main() -> None:
    """Two of the three points run at once when the second node dies."""
    home, out = map(Path, sys.argv[1:])
    cluster = Cluster(initialize_head=True, head_node_args=SMALL)
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    todo = [
        Point(f"seed={seed}", load_recipe(home / "recipe.yaml", seed=seed, model=str(home / "model"), data="data"))
        for seed in range(3)
    ]
    os.chdir(home)
    killer = threading.Thread(target=kill_in_the_middle, args=(cluster, node, out), daemon=True)
    killer.start()
    found = {}
    for point, record in sweep(todo, out, "test", keep_models=False, on=f"ray://{cluster.address}"):
        found[point.name] = [record.status, [score.value for score in record.models[-1].scores], record.notes]
    killer.join(LIMIT_S)
    said = {"records": found, "killed": not killer.is_alive(), "nodes": len(cluster.list_all_nodes())}
    (home / "said.json").write_text(json.dumps(said), encoding="utf-8")
    cluster.shutdown()


def kill_in_the_middle(cluster: Cluster, node: object, out: Path) -> None:
    """As soon as both have begun with a run."""
    end = time.monotonic() + LIMIT_S
    while len(list(out.glob(f"*/{RECIPE_FILE}"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)


if __name__ == "__main__":
    main()
