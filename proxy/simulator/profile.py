"""Profiles: the constants of a model on a GPU, read from TOML files of this package or of the user's."""

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

DEFAULT: Final = "h100-llama-3.1-8b"


class ProfileError(ValueError):
    """A profile cannot be used; ``str`` names the file and the key."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a step costs: once, per decoding stream, per context token it reads, per prompt token."""

    static: float
    decode: float
    context: float
    prefill: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The scheduler's limits: streams at once, tokens a step, tokens in the KV cache."""

    max_num_seqs: int
    max_batched_tokens: int
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class Profile:
    """One model on one GPU: joules and seconds of a step."""

    model: str
    device: str
    idle_watts: float
    joules: Costs
    seconds: Costs
    limits: Limits


def load(name: str) -> Profile:
    """The profile of a name (``h100-llama-3.1-8b``) or of a path; raises :class:`ProfileError`."""
    path = Path(name)
    try:
        if path.suffix == ".toml":
            text = path.read_text("utf-8")
        else:
            folder = resources.files("proxy.simulator") / "profiles"
            text = (folder / f"{name}.toml").read_text("utf-8")
        return msgspec.convert(tomllib.loads(text), Profile)
    except FileNotFoundError as error:
        raise ProfileError(f"profile {name}: no such profile; there is {', '.join(names())}") from error
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ProfileError(f"profile {name}: {error}") from error


def names() -> list[str]:
    """The profiles of this package."""
    folder = resources.files("proxy.simulator") / "profiles"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))
