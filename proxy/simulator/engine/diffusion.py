"""Simulate diffusion models: denoising step by step, with the true joules of each request.

One batch at a time, first come first served; waiting requests of the same shape (size, frames, steps) join
the next batch up to its limit. A step of ``b`` samples of ``k`` thousand latent tokens costs ``static + b *
(token * k + attention * k * k)``, in seconds and in joules, so a request's Shapley value is exact: an equal
share of ``static`` and its own samples. A request whose client leaves is computed to its end, as vLLM-Omni
does. Pure.
"""

import tomllib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final, Literal

import msgspec

from proxy.simulator.engine.job import Joules
from proxy.simulator.profiles.profile import ProfileError

PIXELS_PER_TOKEN: Final = 256  # latents are 1/8 in each direction, patches 2 x 2
FRAMES_PER_LATENT: Final = 4
_THOUSAND: Final = 1000.0


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Cost of a denoising step: constant, per sample and thousand tokens, and per their square."""

    static: float
    token: float
    attention: float

    def sample(self, tokens: float) -> float:
        """Cost of one sample."""
        thousands = tokens / _THOUSAND
        return self.token * thousands + self.attention * thousands * thousands


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of an output: pixels, frames (1: an image), denoising steps."""

    width: int
    height: int
    frames: int
    steps: int

    @property
    def tokens(self) -> float:
        """Latent tokens of one sample."""
        latents = 1 + (self.frames - 1) // FRAMES_PER_LATENT
        return self.width * self.height / PIXELS_PER_TOKEN * latents


@dataclass(frozen=True, slots=True)
class DiffusionProfile:
    """One diffusion model on GPUs; ``width`` to ``steps`` are as measured, and its server's defaults."""

    model: str
    device: str
    kind: Literal["image", "video"]
    devices: int
    idle_watts: float
    width: int
    height: int
    frames: int
    fps: int
    steps: int
    max_batch: int
    seconds: StepCosts
    joules: StepCosts
    source: str = ""
    max_waiting: int | None = None


@dataclass(slots=True)
class DiffusionJob:
    """A request for ``samples`` images or videos of one shape."""

    name: str
    samples: int
    shape: Shape
    joules: Joules = field(default_factory=Joules)
    done: bool = False
    steps_done: int = 0


@dataclass(frozen=True, slots=True)
class DenoisingStep:
    """One step of a batch; its cost is in tuples of one, for the runner."""

    jobs: tuple[DiffusionJob, ...]
    seconds: tuple[float, ...]
    joules: tuple[float, ...]


class DiffusionEngine:
    """Scheduler of one engine: ``submit`` jobs, ``plan`` a step, ``take`` it.

    The energy of a job has two parts, ``static`` and, for its own samples, ``decode``.
    """

    def __init__(self, profile: DiffusionProfile) -> None:
        self._profile = profile
        self._waiting: deque[DiffusionJob] = deque()
        self._batch: tuple[DiffusionJob, ...] = ()

    @property
    def running(self) -> int:
        """Number of jobs in the batch."""
        return len(self._batch)

    @property
    def waiting(self) -> int:
        """Number of jobs in the queue."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether there are no jobs."""
        return not self._batch and not self._waiting

    @property
    def full(self) -> bool:
        """Whether the queue is full."""
        most = self._profile.max_waiting
        return most is not None and len(self._waiting) >= most

    def submit(self, job: DiffusionJob) -> None:
        """Queue a job; raises ``ValueError`` for one without samples or steps."""
        if job.samples < 1 or job.shape.steps < 1:
            raise ValueError(f"job {job.name}: at least one sample and one step are needed")
        self._waiting.append(job)

    def cancel(self, job: DiffusionJob) -> None:
        """Remove a waiting job; one in the batch is computed to its end."""
        if job in self._waiting:
            self._waiting.remove(job)

    def plan(self) -> DenoisingStep | None:
        """Return the next step; None if there is no job."""
        if not self._batch:
            self._batch = self._next()
        if not self._batch:
            return None
        samples, tokens = sum(job.samples for job in self._batch), self._batch[0].shape.tokens

        def cost(each: StepCosts) -> float:
            return each.static + samples * each.sample(tokens)

        return DenoisingStep(self._batch, (cost(self._profile.seconds),), (cost(self._profile.joules),))

    def begun(self, plan: DenoisingStep) -> Iterable[DiffusionJob]:
        """Return the jobs of a step."""
        return plan.jobs

    def take(self, plan: DenoisingStep, scale: float) -> tuple[list[DiffusionJob], list[DiffusionJob]]:
        """Charge a step that used ``scale`` times its energy; return the jobs that it completed, twice."""
        each = self._profile.joules
        done = []
        for job in plan.jobs:
            job.joules.static += scale * each.static / len(plan.jobs)
            job.joules.decode += scale * each.sample(job.shape.tokens) * job.samples
            job.steps_done += 1
            if job.steps_done >= job.shape.steps:
                job.done = True
                done.append(job)
        if done:
            self._batch = ()
        return done, done

    def _next(self) -> tuple[DiffusionJob, ...]:
        """Return the first job of the queue and those of its shape that fit into the batch with it.

        A job that exceeds the batch limit runs alone.
        """
        batch: list[DiffusionJob] = []
        samples = 0
        for job in tuple(self._waiting):
            same = not batch or job.shape == batch[0].shape
            if same and (not batch or samples + job.samples <= self._profile.max_batch):
                batch.append(job)
                samples += job.samples
                self._waiting.remove(job)
        return tuple(batch)


def folder() -> Path:
    """Return the folder of this package's profiles."""
    return Path(str(resources.files("proxy.simulator"))) / "profiles" / "diffusion"


def names() -> list[str]:
    """Return the names of the diffusion profiles of this package."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def load(name: str) -> DiffusionProfile:
    """Load a profile by name or from a TOML file; raises :class:`ProfileError`."""
    path = Path(name) if name.endswith(".toml") else folder() / f"{name}.toml"
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), DiffusionProfile)
    except FileNotFoundError as error:
        raise ProfileError(f"profile {name}: no such profile; there is {', '.join(names())}") from error
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ProfileError(f"profile {name}: {error}") from error
