"""Suspension of the garbage collector while a point is measured."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Disable garbage collection: with millions of records, one would pause every stream.

    Reference counting still frees almost everything; what exists at the start is excluded from later
    collections meanwhile (``gc.freeze``).
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
