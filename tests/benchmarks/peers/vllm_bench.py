"""Runs ``vllm bench serve`` several times in one process, by the Python of the environment that has vLLM.

``python vllm_bench.py`` reads a JSON list of option lists and writes a JSON list of results: TTFTs in s,
requests, output chunks, seconds. Only the standard library and vLLM are imported here.
"""

import contextlib
import json
import sys

from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser


def run(options: list[str]) -> dict[str, object]:
    """Run once, without its output."""
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    with contextlib.redirect_stdout(sys.stderr):
        found = main(parser.parse_args(options))
    return {
        "ttfts": [ttft for ttft in found["ttfts"] if ttft],
        "requests": found["completed"],
        "chunks": sum(len(gaps) + 1 for gaps in found["itls"]),
        "seconds": found["duration"],
    }


if __name__ == "__main__":
    json.dump([run(options) for options in json.load(sys.stdin)], sys.stdout)
