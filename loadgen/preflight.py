"""Before the run: is there a server, does it know the model, does one request work."""

import msgspec

from loadgen.call import new_answer
from loadgen.client import Client
from loadgen.config import Config
from loadgen.lengths import Fixed, Lengths
from loadgen.vision import parse_size
from loadgen.workload import PATHS, Style, Workload

_LONGEST = 200
_MODELS_LIMIT_S = 10


class PreflightError(Exception):
    """The run cannot start; the text says what to do."""


class _Error(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    error: _Error


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model] = []


async def find_model(client: Client, config: Config) -> str:
    """The model asked for, or the server's first; raises :class:`PreflightError`."""
    spec = config.spec
    try:
        code, body = await client.fetch(
            "GET", "/v1/models", headers=config.header_lines(), limit_s=_MODELS_LIMIT_S
        )
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer in {_MODELS_LIMIT_S} s"
        raise PreflightError(
            f"no server at {spec.url} ({why}): start it, or give --url{_scheme_hint(client)}"
        ) from error
    _check_auth(code, config)
    try:
        names = [model.id for model in msgspec.json.decode(body, type=_Models).data]
    except msgspec.MsgspecError:
        names = []
    if code != 200 or not names:
        if spec.model:
            return spec.model
        raise PreflightError(
            f"{spec.url}/v1/models answered HTTP {code} without a model: give --model NAME,"
            " and check that --url has no path but the one before /v1"
        )
    if spec.model and spec.model not in names:
        raise PreflightError(f"no model {spec.model!r} at {spec.url}: it has {', '.join(names)}")
    return spec.model or names[0]


async def try_one(client: Client, config: Config, model: str) -> None:
    """One small request of the kind the run will send; raises :class:`PreflightError`."""
    spec = config.spec
    tiny = Lengths(Fixed(4), Fixed(2))
    # A model may stop before the second token; only the protocol is tried here.
    picture = parse_size(spec.picture, "--picture") if spec.picture else None
    style = Style(stream=spec.stream, exact=False, picture=picture)
    work = Workload(spec.endpoint, model, tiny, style=style)
    path = PATHS[spec.endpoint]
    try:
        code, body = await client.fetch(
            "POST", path, headers=config.header_lines(), body=work.body(0),
            limit_s=spec.try_seconds,
            content_type=work.content_type,
        )  # fmt: skip
    except (OSError, TimeoutError) as error:
        raise PreflightError(
            f"{spec.url}{path}: {str(error) or f'no answer in {spec.try_seconds:g} s'}"
        ) from error
    _check_auth(code, config)
    if code in {404, 405}:
        raise PreflightError(
            f"{spec.url}{path} answered HTTP {code}: the server lacks it, or the model {model!r};"
            " try --endpoint, --model or --url"
        )
    if code not in range(200, 300):
        said = _message(body)
        raise PreflightError(f"{spec.url}{path} answered HTTP {code} to a request of 4 tokens{said}")
    answer = new_answer(work)
    answer.feed(body, 1)
    if wrong := answer.outcome():
        raise PreflightError(f"{spec.url}{path}: {wrong}")


def _message(body: bytes) -> str:
    """The server's own words, where it says them as OpenAI does."""
    try:
        words = msgspec.json.decode(body, type=_Refusal).error.message
    except msgspec.MsgspecError:
        return ""
    return ": " + " ".join(words.split())[:_LONGEST]


def _check_auth(code: int, config: Config) -> None:
    if code not in {401, 403}:
        return
    advice = "give --api-key KEY (or set OPENAI_API_KEY)"
    if config.api_key:
        advice = "it does not accept the key of --api-key or OPENAI_API_KEY: give another one"
    raise PreflightError(f"{config.spec.url} answered HTTP {code}: {advice}")


def _scheme_hint(client: Client) -> str:
    """The wrong scheme shows as a connection that breaks: under TLS before it stands, without after."""
    if client.target.tls:
        return "" if client.opened else "; one without TLS is http://"
    return "; one with TLS is https://" if client.opened else ""
