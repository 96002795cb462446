"""Engines behind one backend: how many there are, whom each serves, and which devices are whose.

Replicas behind one URL, or a prefill and a decode engine, look like one backend to the proxy. Attributed as
one engine, requests on one device would be charged for steps, and idle time, of another. So where a backend
has several devices, its streams are looked at:

1. Streams that emit together are one engine's (``coherence``). First chunks that do not come with the chunks
   of other streams, though later ones do, were computed by another engine: prefill and decode are apart.
2. Each candidate engine gets its own :class:`Group` and its steps are rebuilt as usual.
3. The energy of each device must be explained by the work of one engine clearly better than by the work of
   the others (``engine_devices``). Only then the backend is split; else it stays one engine on all devices.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proxy.core.activity.tracks import Group, Role, Track
from proxy.core.activity.work import Work
from proxy.core.energy.accounts import Account
from proxy.core.numerics.order_statistics import median
from proxy.core.policies import Policy
from proxy.core.reconstruct.bursts import Floats
from proxy.core.replicas.beside import (
    Life,
    clearly_nearest,
    later_chunks,
    life_of,
    mean_at,
    mean_distance,
    prefill_is_apart,
    running_at,
)
from proxy.core.replicas.coherence import APART, LEAST_CHUNKS, distances, engines_among, together
from proxy.core.replicas.engine_devices import are_unlike, devices_of_engines
from proxy.units import NS_PER_SECOND

GroupWork = tuple[Group, list[Track], Work]

_MOMENTS: Final = (0.25, 0.5, 0.75)  # of the chunks of a block, at which the streams running are compared
_STREAMS: Final = 24  # compared at a moment, at most
_MOST_ENGINES: Final = 8  # of one backend: all matchings of engines and devices are tried
_FEW_STREAMS: Final = 5  # at a moment: nothing is concluded from fewer
_STRICT: Final = 3.0  # times the usual distance within an engine: streams nearer than that are sure to be its
_CLEAN: Final = 0.05  # distance within engines, below which a single chunk identifies its engine
_STRICT_FLOOR: Final = 0.02
_REFINEMENTS: Final = 4  # rounds, at most
_ENOUGH: Final = 24  # chunks after which a running stream is assigned
_LOOK_NS: Final = (5 * NS_PER_SECOND, 60 * NS_PER_SECOND)  # least and most time between two looks


class Engines:
    """The engines of one backend; none while it is taken to be one."""

    __slots__ = ("_engine_of", "_group", "_next_look_ns", "_since_ns", "_within", "members")

    def __init__(self, group: Group) -> None:
        self._group = group
        self.members: list[Group] = []
        self._engine_of: dict[int, int] = {}  # by slot of its requests
        self._within = 0.0  # usual distance of streams of one engine
        self._since_ns: int | None = None
        self._next_look_ns = 0

    def groups(self) -> list[Group]:
        """Return the groups that hold the outputs of the backend."""
        return [self._group, *self.members]

    @property
    def count(self) -> int | None:
        """Return how many engines were found; None if there are several that could not be separated."""
        return None if self._group.unresolved and not self.members else max(len(self.members), 1)

    def works(
        self, policy: Policy, accounts: Sequence[Account], start_ns: int, end_ns: int
    ) -> list[GroupWork]:
        """Return the work of each engine in [start_ns, end_ns), looking for engines where none were found."""
        group = self._group
        if self._since_ns is None:
            self._since_ns = self._next_look_ns = start_ns
        if self.members:
            self._assign(end_ns)
            return _works(self.members, policy, start_ns, end_ns)
        several = policy.needs_usage and len(group.devices) > 1 and not group.steps
        if several and end_ns >= self._next_look_ns:
            least, most = _LOOK_NS
            self._next_look_ns = end_ns + min(max(end_ns - self._since_ns, least), most)
            if (works := self._several(policy, accounts, start_ns, end_ns)) is not None:
                return works
        if several and (unlike := are_unlike(group.devices, accounts, end_ns)) is not None:
            group.unresolved = unlike
        return _works([group], policy, start_ns, end_ns)

    def _several(
        self, policy: Policy, accounts: Sequence[Account], start_ns: int, end_ns: int
    ) -> list[GroupWork] | None:
        """Split the backend if streams and energy agree on several engines; return their work, else None."""
        found = self._look()
        if found is None:
            return None
        group = self._group
        outputs, columns = group.outputs.copy(), group.streams.columns()
        self._split(found, end_ns)
        works = _works(self.members, policy, start_ns, end_ns)
        # An engine without a request before ``end_ns`` cannot be confirmed yet.
        complete = len(works) == len(self.members)
        devices = devices_of_engines(group.devices, works, accounts, end_ns) if complete else None
        if devices is None:
            for member in self.members:
                policy.forget(member)
            self.members = []
            self._engine_of.clear()
            # Also the chunks of responses that were not streamed were estimated in steps of these engines.
            group.outputs.replace_by(outputs)
            group.streams.restore(columns)
            return None
        for member, own in zip(self.members, devices, strict=True):
            member.devices = own
        group.engines, group.unresolved = self.members, False
        return works

    def forget(self, policy: Policy, end_ns: int) -> None:
        """Drop what is no longer needed once windows are closed up to ``end_ns``."""
        for member in self.members or [self._group]:
            forget(member, policy, end_ns)
        if self.members:
            self._group.forget(min(member.kept_ns for member in self.members))

    def close(self, slot: int) -> None:
        """Forget a request that is final."""
        self._engine_of.pop(slot, None)
        for member in self.members:
            member.tracks.pop(slot, None)

    def _look(self) -> dict[int, int] | Role | None:
        """Return the engine of some slots, a role where prefill is apart, or None where one engine fits."""
        chunks = later_chunks(self._group)
        if not chunks:
            return None
        if (found := self._look_at_moments(chunks)) is not None:
            return found
        return Role.PREFILL if prefill_is_apart(self._group, chunks) else None

    def _look_at_moments(self, chunks: dict[int, Floats]) -> dict[int, int] | None:
        """Return the engine of some slots if the streams of most moments show the same picture."""
        stamps = np.sort(np.concatenate([*chunks.values()]))
        found: list[tuple[dict[int, int], float]] = []
        looked = 0
        for share in _MOMENTS:
            slots = running_at(chunks, stamps[int(share * (len(stamps) - 1))])[:_STREAMS]
            if len(slots) < _FEW_STREAMS:
                continue
            looked += 1
            apart = distances([chunks[slot] for slot in slots])
            labels = engines_among(apart, min(len(self._group.devices), _MOST_ENGINES))
            if labels is not None:
                same = (labels[:, None] == labels[None, :]) & (labels >= 0) & ~np.eye(len(labels), dtype=bool)
                engines = {s: e for s, e in zip(slots, labels.tolist(), strict=True) if e >= 0}
                found.append((engines, float(np.nanmean(apart[same]))))
        if not found or 2 * len(found) <= looked:
            return None
        best, self._within = max(found, key=lambda f: (len(set(f[0].values())), len(f[0])))
        return best

    def _split(self, found: dict[int, int] | Role, end_ns: int) -> None:
        """Make a group of each engine, and give each its requests and their outputs."""
        group = self._group
        count = 2 if isinstance(found, Role) else len(set(found.values()))
        for number in range(1, count + 1):
            member = Group((*group.key, f"engine {number}"), group.devices, group.streams)
            member.neighbours, member.kept_ns = group.neighbours, group.kept_ns
            member.step_seconds = group.step_seconds
            self.members.append(member)
        if isinstance(found, Role):
            self.members[0].role, self.members[1].role = Role.PREFILL, Role.DECODE
        else:
            for slot, engine in found.items():
                self._place(slot, engine)
        self._assign(end_ns)

    def _place(self, slot: int, engine: int) -> None:
        """Assign a request to an engine."""
        self._engine_of[slot] = engine
        self.members[engine].tracks[slot] = self._group.tracks[slot]

    def _assign(self, end_ns: int) -> None:
        """Assign requests to engines, and hand over their outputs."""
        for slot, engine in list(self._engine_of.items()):  # jobs leave, and their slots are used again
            if self._group.tracks.get(slot) is not self.members[engine].tracks[slot]:
                self.close(slot)
        if self.members[0].role is not Role.BOTH:
            for member in self.members:
                member.tracks = self._group.tracks
            self._hand_over_by_role()
            return
        self._hand_over()
        chunks = later_chunks(self._group)
        for member in self.members:
            chunks.update(later_chunks(member))
        fresh = [
            s
            for s, t in self._group.tracks.items()
            if s not in self._engine_of and _is_due(t, chunks, end_ns)
        ]
        # Those with many chunks first: they are sure, and the others are compared with them.
        sure = [s for s in fresh if len(chunks.get(s, ())) >= LEAST_CHUNKS]
        seeds = [s for s in self._engine_of if s in chunks]
        if seeds:
            middle = median(np.array([chunks[s][0] for s in seeds]))
            sure.sort(key=lambda s: (abs(float(chunks[s][0]) - middle), s))
        partners = self._partners(chunks)
        for least in (_STRICT * self._within + _STRICT_FLOOR, 0.5 * (self._within + APART)):
            sure = self._place_near(sure, chunks, partners, min(least, 0.5 * (self._within + APART)))
        if self._within >= _CLEAN:
            self._refine([s for s in fresh if s in self._engine_of], chunks)
            partners = self._partners(chunks)
        unsure = sure + [s for s in fresh if len(chunks.get(s, ())) < LEAST_CHUNKS]
        for slot in unsure:
            self._place(slot, self._nearest(slot, chunks, partners))
        self._hand_over()

    def _partners(self, chunks: dict[int, Floats]) -> list[list[Life]]:
        """Return the streams of each engine."""
        found: list[list[Life]] = [[] for _ in self.members]
        for slot, engine in self._engine_of.items():
            if slot in chunks:
                found[engine].append(life_of(chunks[slot]))
        return found

    def _refine(self, slots: list[int], chunks: dict[int, Floats]) -> None:
        """Assign streams anew, now that all of their partners are known; the first ones had few.

        With delays as long as steps, a few partners are not enough.
        """
        for _ in range(_REFINEMENTS):
            partners = self._partners(chunks)
            moved = 0
            for slot in slots:
                mean = [mean_distance(chunks[slot], others) for others in partners]
                best = together(mean, np.inf)
                if best >= 0 and best != self._engine_of[slot]:
                    self.members[self._engine_of[slot]].tracks.pop(slot)
                    self._place(slot, best)
                    moved += 1
            if not moved:
                break

    def _place_near(
        self, slots: list[int], chunks: dict[int, Floats], partners: list[list[Life]], most: float
    ) -> list[int]:
        """Assign streams that are nearer than ``most`` to one engine; return the others.

        Each one placed is a partner of those after it, so there are rounds until nothing changes.
        """
        while True:
            left = []
            for slot in slots:
                engine = together([mean_distance(chunks[slot], others) for others in partners], most)
                if engine < 0:
                    left.append(slot)
                    continue
                self._place(slot, engine)
                partners[engine].append(life_of(chunks[slot]))
            if len(left) == len(slots) or not left:
                return left
            slots = left

    def _nearest(self, slot: int, chunks: dict[int, Floats], partners: list[list[Life]]) -> int:
        """Return the engine in whose steps a request of few chunks emitted them, else the least loaded."""
        first, end = int(self._group.streams.first_ns[slot]), self._group.tracks[slot].end_ns
        stamps = [float(t) for t in chunks.get(slot, ())]
        if first >= 0:
            stamps.append(float(first))
        elif end is not None:
            stamps.append(float(end))  # with its last token
        if stamps and self._within < _CLEAN:
            engine = clearly_nearest(stamps, partners, 0.5)
            if engine >= 0:
                return engine
        elif stamps:
            means = np.array([mean_at(stamps, others) for others in partners])
            if means.min() < 0.5 * (self._within + APART):
                return int(np.argmin(means))
        self._group.tracks[slot].engine_guessed = True
        return int(np.argmin([len(member.tracks) for member in self.members]))

    def _hand_over(self) -> None:
        """Move the outputs of assigned requests to their engines; the backend keeps the others."""
        outputs = self._group.outputs
        table = np.full(len(self._group.streams.start_ns), -1, np.int64)
        slots = np.fromiter(self._engine_of, np.int64, len(self._engine_of))
        table[slots] = np.fromiter(self._engine_of.values(), np.int64, len(slots))
        engine = table[outputs.slot]
        for index, member in enumerate(self.members):
            _copy(self._group, member, engine == index)
        _keep(self._group, engine < 0)

    def _hand_over_by_role(self) -> None:
        """Move first chunks to the prefill engine, and the others to the decode engine."""
        outputs = self._group.outputs
        first = outputs.t_ns == self._group.streams.first_ns[outputs.slot]
        prefill, decode = self.members
        _copy(self._group, prefill, first)
        _copy(self._group, decode, ~first)
        _keep(self._group, np.zeros(len(first), bool))


def forget(group: Group, policy: Policy, end_ns: int) -> None:
    """Drop outputs of an engine that no window still open needs."""
    running = any(t.end is None or t.end.t_ns > end_ns for t in group.tracks.values())
    group.forget(group.view(end_ns)[0] if running and policy.needs_usage else end_ns)


def _works(groups: Sequence[Group], policy: Policy, start_ns: int, end_ns: int) -> list[GroupWork]:
    """Return the work of engines that have any requests in [start_ns, end_ns)."""
    found = []
    # Decoding first: it finds the first tokens of responses that were not streamed, which end their prefill.
    for group in sorted(groups, key=lambda group: group.role is Role.PREFILL):
        if group.role is Role.PREFILL:
            _share_first_chunks(groups[1], group)
        if tracks := group.within(min(start_ns, group.kept_ns), end_ns):
            found.append((group, tracks, policy.work(group, tracks, start_ns, end_ns)))
    order = {id(group): place for place, group in enumerate(groups)}
    return sorted(found, key=lambda work: order[id(work[0])])


def _share_first_chunks(decode: Group, prefill: Group) -> None:
    """Move first chunks that were estimated in the decode engine to the engine that computed them."""
    outputs = decode.outputs
    first = outputs.t_ns == decode.streams.first_ns[outputs.slot]
    _copy(decode, prefill, first)
    _keep(decode, ~first)


def _copy(source: Group, target: Group, which: NDArray[np.bool_]) -> None:
    """Copy the outputs ``which``, (E,), to another group."""
    outputs = source.outputs
    if which.any():
        target.outputs.insert(outputs.t_ns[which], outputs.slot[which], outputs.tokens[which])


def _keep(group: Group, which: NDArray[np.bool_]) -> None:
    """Drop all outputs but ``which``, (E,)."""
    outputs = group.outputs
    outputs.t_ns, outputs.slot, outputs.tokens = (
        outputs.t_ns[which],
        outputs.slot[which],
        outputs.tokens[which],
    )


def _is_due(track: Track, chunks: dict[int, Floats], end_ns: int) -> bool:
    """Return whether a request must be assigned, or can be."""
    if track.end is not None or track.start_ns < end_ns:
        return True
    return len(chunks.get(track.slot, ())) >= _ENOUGH
