"""Parse the requests of clients of an image or video server as vLLM-Omni does (v0.30, captured)."""

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from proxy.simulator.engine.diffusion import DiffusionProfile, Shape
from proxy.simulator.server.text_requests import RefusedError

MOST_IMAGES: Final = 10
_MOST_STEPS: Final = 1000
_MOST_SIDE: Final = 4096
_MOST_FRAMES: Final = 1000
_SIZE: Final = "size must be in format 'WIDTHxHEIGHT' (e.g., '1024x1024')"


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A request that can be served."""

    samples: int
    shape: Shape
    fps: int
    seed: int


class _Body(msgspec.Struct):
    prompt: str | None = None
    model: str | None = None
    n: int = 1
    size: str | None = None
    num_inference_steps: int | None = None
    seed: int | None = None
    num_frames: int | None = None
    seconds: float | None = None
    fps: int | None = None


async def read(request: web.Request, profile: DiffusionProfile) -> ImageRequest:
    """Parse a request with a JSON or form body; raises :class:`RefusedError`."""
    if request.content_type == "application/json":
        raw = await request.read()
        try:
            fields = msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise RefusedError.invalid(f"{{'type': 'json_invalid', 'msg': '{error}'}}", "body") from error
    else:
        form = await request.post()
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
    try:
        body = msgspec.convert(fields, _Body, strict=False)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `$")
        place = "body" + where.rstrip("`")
        detail = f"{{'type': 'value_error', 'loc': '{place}', 'msg': '{text}'}}"
        raise RefusedError.invalid(detail, place) from error
    return _image_request(body, len(fields), profile)


def _image_request(body: _Body, items: int, profile: DiffusionProfile) -> ImageRequest:
    if body.prompt is None:
        detail = (
            "{'type': 'missing', 'loc': 'body.prompt', 'msg': 'Field required', "
            f"'input': '<dict of {items} items>'}}"
        )
        raise RefusedError.invalid(detail, "body.prompt")
    if body.model is not None and body.model != profile.model:
        text = f"Model mismatch: request specifies '{body.model}' but server is running '{profile.model}'."
        raise RefusedError(400, text, "Bad Request")
    _at_most(body.n, MOST_IMAGES, "n")
    width, height = _size(body.size, profile)
    fps = body.fps or profile.fps or 16
    frames = 1
    if profile.kind == "video":
        frames = body.num_frames or (round(body.seconds * fps) if body.seconds else profile.frames)
        _at_most(frames, _MOST_FRAMES, "num_frames")
    steps = body.num_inference_steps if body.num_inference_steps is not None else profile.steps
    _at_most(steps, _MOST_STEPS, "num_inference_steps")
    return ImageRequest(body.n, Shape(width, height, frames, steps), fps, body.seed or 0)


def _at_most(value: int, most: int, field: str) -> None:
    kind, word, sign, limit = ("less_than_equal", "less than", "le", most)
    if value < 1:
        kind, word, sign, limit = ("greater_than_equal", "greater than", "ge", 1)
    elif value <= most:
        return
    detail = (
        f"{{'type': '{kind}', 'loc': 'body.{field}', 'msg': 'Input should be {word} or equal to {limit}', "
        f"'input': '{value}', 'ctx': {{'{sign}': {limit}}}}}"
    )
    raise RefusedError.invalid(detail, f"body.{field}")


def _size(size: str | None, profile: DiffusionProfile) -> tuple[int, int]:
    if size is None or size == "auto":
        return profile.width, profile.height
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if found is None:
        detail = (
            f"{{'type': 'value_error', 'loc': 'body.size', 'msg': \"Value error, {_SIZE}\", "
            f"'input': '{size[:40]}', 'ctx': {{'error': ValueError(\"{_SIZE}\")}}}}"
        )
        raise RefusedError.invalid(detail, "body.size")
    width, height = int(found[1]), int(found[2])
    _at_most(width, _MOST_SIDE, "size")
    _at_most(height, _MOST_SIDE, "size")
    return width, height
