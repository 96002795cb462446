"""Selection of the event loop: uvloop where it is installed, else asyncio's own."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def run_event_loop(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end on a new event loop and return its result."""
    try:
        import uvloop  # noqa: PLC0415  # not available on every platform
    except ImportError:
        return asyncio.run(main)
    result: _T = uvloop.run(main)
    return result
