# Compiled by mypyc: see setup.py.
"""The endpoints of engines: which are metered, whose bodies are read, which may be asked for usage.

A new endpoint is one entry in the table. Everything that is not in it passes unread and unmetered.

Sources: OpenAI's and Anthropic's API references; the routers of vLLM 0.11 (``entrypoints/openai``, and
SageMaker's ``/invocations``), SGLang 0.5 (``entrypoints/http_server.py``), llama.cpp's server
(``tools/server/README.md``), Text Embeddings Inference 1.8 and Text Generation Inference 3
(``router/src/server.rs``), and Ollama (``docs/api.md``).
"""

import re
from typing import Final

from proxy.api.native.dialect import Dialect
from proxy.api.native.llamacpp import LLAMACPP
from proxy.api.native.ollama import OLLAMA
from proxy.api.native.sglang import SGLANG
from proxy.api.native.tgi import TGI


class Endpoint:
    """How requests to one endpoint are treated.

    Attributes:
        route: Name of the kind of work in records, metrics and spans; None: not metered, because it does not
            compute on the accelerator. The body is read all the same: its model chooses the backend.
        asks_usage: Whether a stream understands ``stream_options.include_usage``.
        repeatable: Whether a request may be sent a second time although the backend may have processed the
            first: it computes a response and leaves nothing behind (RFC 9110, section 9.2.2: "some means to
            know that the request semantics are actually idempotent").
        streams: Whether a request that does not mention ``stream`` gets a stream.
        dialects: Those that its responses may be in, other than the OpenAI API's.
        creates_job: Whether the work goes on after the response (``proxy.api.jobs``).
    """

    __slots__ = ("asks_usage", "creates_job", "dialects", "repeatable", "route", "streams")

    def __init__(
        self,
        route: str | None,
        *,
        asks_usage: bool = False,
        repeatable: bool = True,
        streams: bool = False,
        dialects: tuple[Dialect, ...] = (),
        creates_job: bool = False,
    ) -> None:
        self.creates_job = creates_job
        self.route = route
        self.asks_usage = asks_usage
        self.repeatable = repeatable
        self.streams = streams
        self.dialects = dialects


_CHAT: Final = Endpoint("chat", asks_usage=True)
_COMPLETIONS: Final = Endpoint("completions", asks_usage=True)
_LLAMACPP: Final = Endpoint("completions", dialects=(LLAMACPP,))
_EMBEDDINGS: Final = Endpoint("embeddings")
_RERANK: Final = Endpoint("rerank")
_SCORE: Final = Endpoint("score")
_CLASSIFY: Final = Endpoint("classify")
_POOLING: Final = Endpoint("pooling")
_IMAGES: Final = Endpoint("images")
_AUDIO: Final = Endpoint("audio")
_VIDEOS: Final = Endpoint("videos", repeatable=False, creates_job=True)
_NO_WORK: Final = Endpoint(None)  # tokenizers and templates, on the CPU

# Paths without the version (/v1, /v2, /openai/v1, ...), which servers differ in.
_ENDPOINTS: Final = {
    # OpenAI's API; vLLM, SGLang, llama.cpp and others serve these
    "/chat/completions": _CHAT,
    "/completions": _COMPLETIONS,
    "/responses": Endpoint("responses", repeatable=False),  # stored under an id by default
    "/embeddings": _EMBEDDINGS,
    "/images/generations": _IMAGES,
    "/images/edits": _IMAGES,
    "/images/variations": _IMAGES,
    "/videos": _VIDEOS,
    "/audio/speech": _AUDIO,
    "/audio/transcriptions": _AUDIO,
    "/audio/translations": _AUDIO,
    "/moderations": _CLASSIFY,
    # Anthropic's
    "/messages": Endpoint("messages"),
    "/messages/count_tokens": _NO_WORK,
    # Jina's and Cohere's rerankers, scores and poolers of vLLM and SGLang
    "/rerank": _RERANK,
    "/reranking": _RERANK,  # llama.cpp
    "/score": _SCORE,
    "/similarity": _SCORE,  # Text Embeddings Inference
    "/generative_scoring": _SCORE,
    "/classify": _CLASSIFY,
    "/predict": _CLASSIFY,  # Text Embeddings Inference
    "/pooling": _POOLING,
    "/encode": _EMBEDDINGS,  # SGLang
    "/embedding": _EMBEDDINGS,  # llama.cpp
    "/embed": _EMBEDDINGS,  # Text Embeddings Inference, Cohere, Ollama
    "/embed_all": _EMBEDDINGS,
    "/embed_sparse": _EMBEDDINGS,
    # SageMaker's and Vertex's one path for all kinds of work
    "/invocations": Endpoint("invocations", asks_usage=True),
    "/vertex_generate": Endpoint("completions", dialects=(SGLANG,)),
    # the engines' own APIs
    "/generate": Endpoint("completions", dialects=(SGLANG, TGI)),  # also vLLM's example server
    "/generate_stream": Endpoint("completions", streams=True, dialects=(TGI,)),
    "/completion": _LLAMACPP,
    "/infill": _LLAMACPP,
    "/api/chat": Endpoint("chat", streams=True, dialects=(OLLAMA,)),
    "/api/generate": Endpoint("completions", streams=True, dialects=(OLLAMA,)),
    "/api/embed": Endpoint("embeddings", dialects=(OLLAMA,)),
    "/api/embeddings": _EMBEDDINGS,
    # on the CPU
    "/tokenize": _NO_WORK,
    "/detokenize": _NO_WORK,
    "/chat_tokenize": _NO_WORK,
    "/decode": _NO_WORK,  # Text Embeddings Inference: token ids into text
    "/apply-template": _NO_WORK,
    "/chat/completions/render": _NO_WORK,
    "/completions/render": _NO_WORK,
}
# Families whose further paths are of the same kind of work.
_FAMILIES: Final = {"/audio/": _AUDIO}
# Routes that compute a prompt and make no tokens.
PROMPT_ONLY_ROUTES: Final = frozenset(("embeddings", "rerank", "score", "classify", "pooling"))

_SLASHES: Final = re.compile(r"//+")
# Azure OpenAI, and gateways that follow it, put the deployment's name before the endpoint's.
_VERSION: Final = re.compile(r"/(?:v[0-9]+[a-z0-9]*|openai)(?:/(?:deployments|engines)/[^/]+)?(?=/)")


def endpoint_of(method: str, path: str) -> Endpoint | None:
    """Return the endpoint of a request; None where it is passed on unread.

    ``path`` is without the query. Repeated and trailing slashes do not matter, and neither does what precedes
    the name of an endpoint up to its version: ``/v1/score``, ``/openai/v1/score`` and ``/score`` are one.
    """
    if method != "POST":
        return None
    if "//" in path:
        path = _SLASHES.sub("/", path)
    path = path.rstrip("/")
    endpoint = _ENDPOINTS.get(path)
    if endpoint is not None:
        return endpoint
    name = path
    for version in _VERSION.finditer(path):
        name = path[version.end() :]
    endpoint = _ENDPOINTS.get(name)
    if endpoint is None:
        if name.startswith("/videos/") and name.endswith("/remix"):
            return _VIDEOS
        for family, endpoint_of_family in _FAMILIES.items():
            if name.startswith(family):
                return endpoint_of_family
    return endpoint
