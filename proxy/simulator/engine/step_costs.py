"""Duration and energy of steps: linear in the work of the step, except for experts, under a power cap.

A step of ``n`` decoding streams over ``c`` context tokens and of ``p`` prompt tokens costs
``static + n*decode + c*context + p*prefill + touched(n + p)*experts``, in seconds and in joules, and ``host``
when n is above the profile's ``graph_streams``. Speculation adds a draft pass for each drafted token to the
constant cost, and the verification of each drafted token, like that of a prompt token, to every stream.

The profile's power cap extends the duration until the energy above idle fits under it. A limit below the cap
lowers the clock: power above idle falls with the third power of the clock, and the step takes longer in
proportion.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from proxy.simulator.profiles.profile import CLOCK_EXPONENT, Costs, Profile, Speculation

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shares:
    """Joules of one step as charged to its requests: constant, per decoding stream, per context token."""

    static: float  # once for each step
    token: float  # a decoded token, experts included
    context: float
    prompt: float  # a prompt token, experts included


class StepCosts:
    """Computes the cost of steps of a profile; times in seconds, energy in joules of all devices together."""

    def __init__(self, profile: Profile) -> None:
        self._verified = profile.speculation.tokens if profile.speculation is not None else 0
        self._joules = _speculating(profile.joules, profile.speculation)
        self._seconds = _speculating(profile.seconds, profile.speculation)
        self._experts = profile.experts
        self._graph_streams = profile.graph_streams
        self._idle_watts = profile.idle_watts
        self._cap_watts = profile.cap_watts
        self.limit_watts = profile.limit_watts
        self.clock = 1.0  # of the last single step, over the unlimited one
        for name, watts in (("cap_watts", self._cap_watts), ("limit_watts", self.limit_watts)):
            if watts is not None and watts <= self._idle_watts:
                raise ValueError(f"{name} {watts:g} is not above idle_watts {self._idle_watts:g}")

    def step(self, decode: int, context: int, prompt: int) -> tuple[float, float]:
        """Return seconds and joules of one step."""
        seconds = self._linear(self._seconds, decode, prompt) + self._seconds.context * context
        joules = self._linear(self._joules, decode, prompt) + self._joules.context * context
        free = seconds
        if self._cap_watts is not None:
            ratio = self._above(seconds, joules, self._cap_watts)
            if ratio > 1.0:
                seconds, joules = seconds * ratio, self._cap_watts * seconds * ratio
        if self.limit_watts is not None:
            ratio = self._above(seconds, joules, self.limit_watts) ** (1.0 / CLOCK_EXPONENT)
            if ratio > 1.0:
                seconds, joules = seconds * ratio, self.limit_watts * seconds * ratio
        self.clock = free / seconds
        return seconds, joules

    def steps(self, decode: int, context: int, count: int) -> tuple[Floats, Floats]:
        """Return seconds and joules of ``count`` decoding steps, each adding a token to every stream."""
        contexts = context + decode * np.arange(count, dtype=np.float64)
        seconds = self._linear(self._seconds, decode, 0) + self._seconds.context * contexts
        joules = self._linear(self._joules, decode, 0) + self._joules.context * contexts
        for watts, exponent in ((self._cap_watts, 1.0), (self.limit_watts, CLOCK_EXPONENT)):
            if watts is not None:
                idle = self._idle_watts
                ratio = np.maximum((joules / seconds - idle) / (watts - idle), 1.0) ** (1.0 / exponent)
                seconds = seconds * ratio
                joules = np.where(ratio > 1.0, watts * seconds, joules)
        return seconds, joules

    def _above(self, seconds: float, joules: float, watts: float) -> float:
        """Return power above idle, relative to the part of ``watts`` above idle; at least 1."""
        return max((joules / seconds - self._idle_watts) / (watts - self._idle_watts), 1.0)

    def shares(self, decode: int, prompt: int) -> Shares:
        """Return how the joules of a step without power cap are divided."""
        each, tokens = self._joules, decode * (1 + self._verified) + prompt
        experts = each.experts * self._touched(tokens) / tokens
        return Shares(
            self._once(each, decode),
            each.decode + experts * (1 + self._verified),
            each.context,
            each.prefill + experts,
        )

    def _touched(self, tokens: int) -> float:
        return self._experts.touched(tokens) if self._experts is not None else 0.0

    def _once(self, each: Costs, decode: int) -> float:
        above = self._graph_streams is not None and decode > self._graph_streams
        return each.static + each.host if above else each.static

    def _linear(self, each: Costs, decode: int, prompt: int) -> float:
        """Return the cost without the part that grows with the context."""
        touched = self._touched(decode * (1 + self._verified) + prompt)
        each_token = each.decode * decode + each.prefill * prompt
        return self._once(each, decode) + each_token + each.experts * touched


def _speculating(each: Costs, how: Speculation | None) -> Costs:
    if how is None:
        return each
    static = each.static * (1.0 + how.tokens * how.draft)
    return replace(each, static=static, decode=each.decode + how.tokens * each.prefill)
