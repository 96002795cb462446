"""The paged KV cache: blocks held by requests, and blocks of prompts that later prompts may share.

As vLLM's: a full block of a computed prompt stays, under the hash of all text up to its end, until its room
is needed (least recently used first); a prompt that starts with the same blocks does not compute them again.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class KvCache:
    """Counts blocks; which they are matters only for shared ones. Pure."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.private = 0  # held by one request each
        self._users: dict[Hashable, int] = {}  # shared blocks in use, by requests
        self._unused: OrderedDict[Hashable, None] = OrderedDict()  # shared, in no use: room when needed

    @property
    def used(self) -> int:
        """Blocks that requests hold."""
        return self.private + len(self._users)

    @property
    def room(self) -> int:
        """Blocks that can be taken, by forgetting unused ones if need be."""
        return self.blocks - self.used

    def take(self, count: int) -> bool:
        """Hold ``count`` more private blocks; False, and nothing held, without room."""
        if count > self.room:
            return False
        self.private += count
        self._evict()
        return True

    def give(self, count: int) -> None:
        """Free private blocks."""
        self.private -= count

    def known(self, chain: Sequence[Hashable]) -> int:
        """How many leading blocks of a chain are here."""
        for number, block in enumerate(chain):
            if block not in self._users and block not in self._unused:
                return number
        return len(chain)

    def share(self, chain: Sequence[Hashable]) -> None:
        """Use blocks that are ``known``."""
        for block in chain:
            self._unused.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1

    def publish(self, chain: Sequence[Hashable]) -> int:
        """Make private blocks of one request shared; how many leading ones (it stops at a known one)."""
        for number, block in enumerate(chain):
            if block in self._users or block in self._unused:
                return number
            self.private -= 1
            self._users[block] = 1
        return len(chain)

    def release(self, chain: Sequence[Hashable]) -> None:
        """Use shared blocks no more; the last of a chain is forgotten first."""
        for block in reversed(chain):
            left = self._users.pop(block) - 1
            if left:
                self._users[block] = left
            else:
                self._unused[block] = None

    def _evict(self) -> None:
        while self.used + len(self._unused) > self.blocks:
            self._unused.popitem(last=False)
