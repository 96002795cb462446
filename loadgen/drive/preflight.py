"""Checks before the first point: the server is reachable, has the model, and serves one small request."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadgen.client.http_client import Client
from loadgen.client.responses import error_of
from loadgen.config.spec import Config
from loadgen.drive.request import new_reader
from loadgen.workload.images import parse_size
from loadgen.workload.lengths import Fixed, Lengths
from loadgen.workload.request_bodies import PATHS, Style, Workload
from proxy.api.fields import MODEL, MODEL_LIST, RESPONSE, ResponseBody

_SHOWN = 10  # models in a message
_MODELS_LIMIT_S = 10


class PreflightError(Exception):
    """The run cannot start; the message contains the remedy."""


@dataclass(frozen=True, slots=True)
class Found:
    """The model of the run, and the models that the server lists."""

    name: str
    listed: Sequence[str] = ()

    @property
    def is_listed(self) -> bool:
        """Whether the server lists the model."""
        return self.name in self.listed

    def others(self) -> str:
        """Return the listed names, shortened for a message."""
        more = len(self.listed) - _SHOWN
        return ", ".join(self.listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


async def find_model(client: Client, config: Config) -> Found:
    """Return the model of ``--model``, or the first one of the server; raises :class:`PreflightError`.

    A model that is not listed is no error: gateways serve wildcards and aliases, servers load adapters on
    demand. The test request decides.
    """
    spec = config.spec
    try:
        code, body = await client.fetch(
            "GET", "/v1/models", headers=config.header_lines(), limit_s=_MODELS_LIMIT_S
        )
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no response within {_MODELS_LIMIT_S} s"
        raise PreflightError(
            f"no server at {spec.url} ({why}): start it, or give --url{_scheme_hint(client)}"
        ) from error
    _check_auth(code, config)
    names = _names(body) if code == 200 else []
    if spec.model:
        return Found(spec.model, names)
    # Gateways list wildcards such as ``openai/*``, which are not models.
    name = next((name for name in names if "*" not in name), None)
    if name is None:
        raise PreflightError(
            f"{spec.url}/v1/models answered HTTP {code} without a model: give --model NAME,"
            " and check that --url has no path but the one before /v1"
        )
    return Found(name, names)


def _names(body: bytes) -> list[str]:
    """Return the names in a list of models; malformed entries are ignored."""
    found = MODEL_LIST.decode(body, [])
    models = [MODEL.decode(bytes(raw), []) for raw in (found and found.data) or ()]
    return [model.id for model in models if model is not None and model.id]


async def try_one(client: Client, config: Config, found: Found) -> None:
    """Send one small request of the kind the run will send; raises :class:`PreflightError`."""
    spec, model = config.spec, found.name
    tiny = Lengths(Fixed(4), Fixed(2))
    # Not exact: a model may stop before the second token; only the protocol is tested here.
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
            f"{spec.url}{path}: {str(error) or f'no response within {spec.try_seconds:g} s'}"
        ) from error
    _check_auth(code, config)
    hint = "" if found.is_listed or not found.listed else f"; no model {model!r}? It lists {found.others()}"
    if code in {404, 405}:
        raise PreflightError(
            f"{spec.url}{path} answered HTTP {code}: the server lacks it, or the model {model!r};"
            f" try --endpoint, --model or --url{hint}"
        )
    if code not in range(200, 300):
        message = _message(body)
        raise PreflightError(f"{spec.url}{path} answered HTTP {code} to a request of 4 tokens{message}{hint}")
    reader = new_reader(work)
    reader.feed(body, 1)
    if wrong := reader.outcome():
        raise PreflightError(f"{spec.url}{path}: {wrong}")


def _message(body: bytes) -> str:
    """Return the error message of the server, if it has the form of OpenAI's API."""
    error = error_of(RESPONSE.decode(body, []) or ResponseBody())
    words = error and error.partition(": ")[2]
    return f": {words}" if words else ""


def _check_auth(code: int, config: Config) -> None:
    if code not in {401, 403}:
        return
    advice = "give --api-key KEY (or set OPENAI_API_KEY)"
    if config.api_key:
        advice = "it does not accept the key of --api-key or OPENAI_API_KEY: give another one"
    raise PreflightError(f"{config.spec.url} answered HTTP {code}: {advice}")


def _scheme_hint(client: Client) -> str:
    """Return a hint if the failure looks like the wrong scheme.

    ``https://`` to a plain server fails before the connection is established, ``http://`` to a TLS server
    after.
    """
    if client.target.tls:
        return "" if client.opened else "; one without TLS is http://"
    return "; one with TLS is https://" if client.opened else ""
