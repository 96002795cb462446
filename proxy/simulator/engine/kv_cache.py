"""The paged KV cache: blocks held by requests, and blocks of prompts that later prompts may share.

It works as the prefix cache of vLLM v1: a full block of a computed prompt stays cached under the hash of all
text up to its end, until its space is needed (least recently used first). A prompt that starts with the same
blocks does not compute them again. Only counts are kept; the position of a block in memory has no effect.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class KvCache:
    """Block accounting of one engine. Private blocks are counted, shared ones identified by hash."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.private = 0  # held by one request each
        self._users: dict[Hashable, int] = {}  # shared blocks in use, by requests
        self._unused: OrderedDict[Hashable, None] = OrderedDict()  # shared, in no use: room when needed

    @property
    def used(self) -> int:
        """Return the number of blocks that requests hold."""
        return self.private + len(self._users)

    @property
    def room(self) -> int:
        """Return the number of blocks that can be allocated, including cached blocks that can be evicted."""
        return self.blocks - self.used

    def take(self, count: int) -> bool:
        """Allocate ``count`` private blocks; return False, without allocating any, if space is short."""
        if count > self.room:
            return False
        self.private += count
        self._evict()
        return True

    def give(self, count: int) -> None:
        """Free private blocks."""
        self.private -= count

    def known(self, chain: Sequence[Hashable]) -> int:
        """Return how many leading blocks of ``chain`` are cached."""
        for number, block in enumerate(chain):
            if block not in self._users and block not in self._unused:
                return number
        return len(chain)

    def share(self, chain: Sequence[Hashable]) -> None:
        """Add one user to each block of ``chain``; all of them must be cached (see ``known``)."""
        for block in chain:
            self._unused.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1

    def publish(self, chain: Sequence[Hashable]) -> int:
        """Turn private blocks of one request into shared ones, up to the first cached; return how many."""
        for number, block in enumerate(chain):
            if block in self._users or block in self._unused:
                return number
            self.private -= 1
            self._users[block] = 1
        return len(chain)

    def release(self, chain: Sequence[Hashable]) -> None:
        """Remove one user from each block; of unused blocks the last of a chain is evicted first."""
        for block in reversed(chain):
            left = self._users.pop(block) - 1
            if left:
                self._users[block] = left
            else:
                self._unused[block] = None

    def _evict(self) -> None:
        while self.used + len(self._unused) > self.blocks:
            self._unused.popitem(last=False)
