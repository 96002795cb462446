"""Profiles: the constants of a model on a GPU, read from TOML files of this package or of the user's."""

import difflib
import tomllib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

DEFAULT: Final = "h100-llama-3.1-8b"
# Power above idle over the clock: voltage falls with it, and CMOS draws C * V**2 * f.
CLOCK_EXPONENT: Final = 3.0


class ProfileError(ValueError):
    """A profile cannot be used; ``str`` names the file and the key."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Cost of a step: constant, per decoding stream, per context token that it reads, per prompt token.

    ``experts`` is the cost of reading the weights of all experts; a step has the share of the experts that
    its tokens are routed to. ``host`` is an additional constant for steps of more streams than
    ``graph_streams``.
    """

    static: float
    decode: float
    context: float
    prefill: float
    experts: float = 0.0
    host: float = 0.0


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts: how many a layer has, and how many one token is routed to."""

    count: int
    routed: int

    def touched(self, tokens: int) -> float:
        """Share of a layer's experts that ``tokens`` tokens need, routed evenly: 1 - (1 - k/E)**tokens."""
        share: float = 1.0 - (1.0 - self.routed / self.count) ** tokens
        return share


@dataclass(frozen=True, slots=True)
class Speculation:
    """Speculative decoding: ``tokens`` are drafted for each stream in every step, and verified in it.

    Each is accepted with probability ``acceptance``, up to the first that is not. ``draft``: what a pass of
    the draft model costs, over the model's ``static``.
    """

    tokens: int
    acceptance: float
    draft: float = 0.05

    def __post_init__(self) -> None:
        if self.tokens < 1 or not 0 <= self.acceptance <= 1 or self.draft < 0:
            raise ValueError(
                f"speculation of {self.tokens} tokens, acceptance {self.acceptance:g}, draft {self.draft:g}: "
                "at least one token, an acceptance from 0 to 1 and a draft of 0 or more are needed"
            )

    @property
    def mean(self) -> float:
        """Tokens a stream gets in a step, on average: 1 + a + a**2 + ... + a**k."""
        return sum(self.acceptance**number for number in range(self.tokens + 1))


@dataclass(frozen=True, slots=True)
class Limits:
    """The scheduler's limits: streams at once, tokens a step, tokens in the KV cache, in the queue."""

    max_num_seqs: int
    max_batched_tokens: int
    kv_tokens: int
    max_model_len: int = 131_072
    max_waiting: int | None = None

    def __post_init__(self) -> None:
        if self.max_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"limits.max_batched_tokens is {self.max_batched_tokens}, at least max_num_seqs "
                f"({self.max_num_seqs}) is needed: every stream decodes a token a step"
            )


@dataclass(frozen=True, slots=True)
class Profile:
    """One model on one or several GPUs: joules (of all of them together) and seconds of a step.

    ``cap_watts``: the GPUs together draw no more; a step that would takes longer instead, as fitted.
    ``limit_watts``: a limit set below it lowers the clock (:data:`CLOCK_EXPONENT`). ``graph_streams``:
    published runs of small models on fast GPUs jump in time above some batch, as when the host launches the
    kernels that a graph launched before; see ``Costs.host``. ``embedding_size``: it answers with vectors of
    so many numbers, not with text. ``source``: where the constants are from, and which of them were assumed.
    """

    model: str
    device: str
    idle_watts: float
    joules: Costs
    seconds: Costs
    limits: Limits
    devices: int = 1
    cap_watts: float | None = None
    limit_watts: float | None = None
    experts: Experts | None = None
    graph_streams: int | None = None
    speculation: Speculation | None = None
    embedding_size: int | None = None
    source: str = ""


def load(name: str) -> Profile:
    """Load a profile by name (``h100-llama-3.1-8b``) or from a file; raises :class:`ProfileError`."""
    path = Path(name)
    try:
        if path.suffix == ".toml":
            text = path.read_text("utf-8")
        else:
            folder = resources.files("proxy.simulator") / "profiles"
            text = (folder / f"{name}.toml").read_text("utf-8")
        return msgspec.convert(tomllib.loads(text), Profile)
    except FileNotFoundError as error:
        known = names()
        near = difflib.get_close_matches(name, known, 3, 0.5)
        meant = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(known)}"
        raise ProfileError(f"profile {name}: no such profile; {meant}") from error
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ProfileError(f"profile {name}: {error}") from error


def adjusted(
    profile: Profile,
    *,
    max_num_seqs: int | None = None,
    max_waiting: int | None = None,
    cap_watts: float | None = None,
    speculation: Speculation | None = None,
) -> Profile:
    """Return the profile with the given limits; raises :class:`ProfileError` for values out of range."""
    limits = profile.limits
    if max_num_seqs is not None:
        if max_num_seqs < 1:
            raise ProfileError(f"max_num_seqs is {max_num_seqs}, at least 1 is needed")
        budget = max(max_num_seqs, limits.max_batched_tokens)
        limits = replace(limits, max_num_seqs=max_num_seqs, max_batched_tokens=budget)
    if max_waiting is not None:
        limits = replace(limits, max_waiting=max_waiting)
    if cap_watts is not None:
        if cap_watts <= profile.idle_watts:
            raise ProfileError(f"cap_watts {cap_watts:g} is not above idle_watts {profile.idle_watts:g}")
        profile = replace(profile, limit_watts=cap_watts)
    if speculation is not None:
        profile = replace(profile, speculation=speculation)
    return replace(profile, limits=limits)


def speculation(text: str) -> Speculation:
    """``TOKENS,ACCEPTANCE[,DRAFT]``, as of an option; raises ``ValueError``."""
    tokens, acceptance, *draft = text.split(",")
    return Speculation(int(tokens), float(acceptance), *map(float, draft[:1]))


def names() -> list[str]:
    """Return the names of the profiles of this package."""
    folder = resources.files("proxy.simulator") / "profiles"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))
