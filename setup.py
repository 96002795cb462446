"""The compiled build of the hot path: the same source as C extensions, by mypyc.

``JOULEPROXY_COMPILE=1 pip install .`` asks for it and needs a C compiler; else the package is pure Python.
All other settings are in pyproject.toml.
"""

import os
from typing import Final

from setuptools import setup

# What runs for every request and every chunk. A module that defines a msgspec.Struct cannot be among them:
# its fields are found at run time. A class is native, with attributes that are slots in C, unless it inherits
# from an interpreted one; a dataclass has an interpreted __init__. What every request makes is neither.
COMPILED: Final = (
    "loadgen/client/responses.py",
    "loadgen/drive/attack.py",
    "loadgen/drive/request.py",
    "loadgen/client/http_client.py",
    "loadgen/client/chunk_template.py",
    "loadgen/drive/pacer.py",
    "loadgen/client/transport.py",
    "loadgen/workload/request_bodies.py",
    "proxy/api/chunks.py",
    "proxy/api/edit.py",
    "proxy/api/endpoints.py",
    "proxy/api/forms.py",
    "proxy/api/sse.py",
    "proxy/api/stream_options.py",
    "proxy/api/tokens.py",
    "proxy/api/usage.py",
    "proxy/clock.py",
    "proxy/relay/again.py",
    "proxy/relay/answer.py",
    "proxy/relay/answers.py",
    "proxy/relay/balancer.py",
    "proxy/relay/call.py",
    "proxy/relay/client.py",
    "proxy/relay/exchange.py",
    "proxy/relay/framing.py",
    "proxy/relay/head.py",
    "proxy/relay/headers.py",
    "proxy/relay/health.py",
    "proxy/relay/lane.py",
    "proxy/relay/link.py",
    "proxy/relay/refusal.py",
    "proxy/relay/replay.py",
    "proxy/relay/request.py",
    "proxy/relay/shared.py",
    "proxy/relay/sink.py",
    "proxy/relay/stream_editor.py",
    "proxy/relay/trace.py",
    "proxy/relay/upstream.py",
)


if os.environ.get("JOULEPROXY_COMPILE") != "1":
    setup()
else:
    try:
        from mypyc.build import mypycify
    except ImportError as error:
        setup(setup_requires=["mypy>=1.18"])  # to pip's question what this build needs, this is the answer
        raise SystemExit("JOULEPROXY_COMPILE=1 needs mypy: pip install mypy") from error
    options = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent")
    modules = mypycify([*options, *COMPILED], opt_level="2", group_name="jouleproxy")
    setup(ext_modules=modules)
