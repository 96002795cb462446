"""A real Ray cluster of two nodes on this machine, until standard input closes; prints its address.

Run by the interpreter of a virtual environment that has Ray and this project (``tests/engines/test_ray.py``).
"""

import sys

from ray.cluster_utils import Cluster

STORE_BYTES = 100 * 2**20


def main() -> None:
    """Head and one more node, of one CPU each."""
    head = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        sys.stdout.write(f"{cluster.address}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
