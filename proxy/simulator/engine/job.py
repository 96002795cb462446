"""A request in the simulated engine, and its true joules."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Joules:
    """True joules of one request, by part."""

    static: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    context: float = 0.0

    @property
    def total(self) -> float:
        """Return the sum of the four parts."""
        return self.static + self.prefill + self.decode + self.context


@dataclass(slots=True)
class Job:
    """One sequence: its prompt, the number of tokens to generate, and its progress.

    Attributes:
        chain: A hash for each leading full block of the prompt that other prompts may share, over all text up
            to the end of the block.
        answered: Returns the chain extended by the first tokens of the output, for prompts that continue it;
            None: no prompt does.
        runs: Half-open ranges of the numbers of the steps at whose ends its tokens were generated; a step
            that generated several is in several ranges. The present range ends with the engine's step number.
    """

    name: str
    prompt_tokens: int
    output_tokens: int
    chain: tuple[Hashable, ...] = ()
    answered: Callable[[int], tuple[Hashable, ...]] | None = None
    left: int = 0  # prompt tokens still to compute; after preemption those of its answer too
    emitted: int = 0  # up to date in jobs that are not decoding: see Engine.emitted
    cached_tokens: int = 0  # of the prompt, when first scheduled
    preemptions: int = 0
    gained: int = 1  # tokens that came with its last step
    scheduled: int | None = None  # number of the first step it was in
    runs: list[tuple[int, int]] = field(default_factory=list)
    joules: Joules = field(default_factory=Joules)
    # Private to the engine:
    private: int = 0  # blocks held alone
    shared: int = 0  # leading blocks of the chain held with others
    joined: int | None = None  # number of its first step of decoding; None: not decoding
    marks: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        self.left = self.prompt_tokens

    @property
    def done(self) -> bool:
        """Return whether all output tokens were emitted."""
        return self.emitted >= self.output_tokens

    @property
    def computed(self) -> int:
        """Return the number of tokens whose keys and values are cached; valid while it is not decoding."""
        return self.prompt_tokens + self.emitted - self.left
