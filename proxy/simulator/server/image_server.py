"""Serve images and videos as vLLM-Omni does, on the simulated diffusion engine.

``/v1/images/generations`` and ``/v1/images/edits`` respond when the images are complete; ``/v1/videos``
creates a job that clients poll, whose ``/content`` is an MP4. The files are valid and small, and do not
depend on the prompt.
"""

import asyncio
import base64
import uuid
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from proxy.clock import now_ns
from proxy.simulator.engine.diffusion import DenoisingStep, DiffusionEngine, DiffusionJob, DiffusionProfile
from proxy.simulator.gpu.board import Board
from proxy.simulator.server import mp4, png, responses
from proxy.simulator.server.image_requests import ImageRequest, read
from proxy.simulator.server.metrics import CONTENT_TYPE, Histogram
from proxy.simulator.server.runner import Draw, Runner
from proxy.simulator.server.text_requests import BUSY, RefusedError
from proxy.simulator.server.web_app import Break, FailedError, WebApp, as_json, refused
from proxy.units import MS_PER_SECOND, seconds_from_ns

_KEEP_FILMS: Final = 1000
_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)


class ImageMetrics:
    """Counts under vLLM-Omni's names."""

    def __init__(self, model: str) -> None:
        self._labels = f'model_name="{model}"'
        self.success = 0
        self.images = 0
        self.left = 0
        self.latency = Histogram(_BUCKETS)
        self.queue = Histogram(_BUCKETS)
        self.step_time = Histogram(_BUCKETS)

    def step(self, _plan: DenoisingStep, seconds: float) -> None:
        """Count a denoising step."""
        self.step_time.observe(seconds)

    def scheduled(self, _job: DiffusionJob, waited: float) -> None:
        """Record how long a job waited for its first step."""
        self.queue.observe(waited)

    def first(self, _job: DiffusionJob, _waited: float, _computed: float) -> None:
        """All of a diffusion job comes at its end."""

    def ended(self, job: DiffusionJob, duration: float, _after_first: float) -> None:
        """Record the duration of a job that has ended."""
        self.success += 1
        self.images += job.samples
        self.latency.observe(duration)

    def aborted(self) -> None:
        """Count a client that disconnected."""
        self.left += 1

    def text(self, engine: DiffusionEngine) -> str:
        """Return the metrics in Prometheus' text format."""
        own = self._labels
        lines = [
            "# TYPE vllm_omni:num_requests_running gauge",
            f"vllm_omni:num_requests_running{{{own}}} {float(engine.running)}",
            "# TYPE vllm_omni:num_requests_waiting gauge",
            f"vllm_omni:num_requests_waiting{{{own}}} {float(engine.waiting)}",
            "# TYPE vllm_omni:requests_success_total counter",
            f'vllm_omni:requests_success_total{{finished_reason="stop",{own}}} {float(self.success)}',
            "# TYPE vllm_omni:requests_failed_total counter",
            f'vllm_omni:requests_failed_total{{{own},reason="client_disconnect"}} {float(self.left)}',
            "# TYPE vllm_omni:image_count_total counter",
            f"vllm_omni:image_count_total{{{own}}} {float(self.images)}",
        ]
        for name, histogram in (
            ("vllm_omni:e2e_request_latency_s", self.latency),
            ("vllm_omni:request_queue_wait_s", self.queue),
            ("vllm_omni:denoise_step_latency_s", self.step_time),
        ):
            lines += [f"# TYPE {name} histogram", *histogram.lines(name, own)]
        return "\n".join((*lines, ""))


@dataclass(slots=True)
class _Film:
    """A video job; its times in Unix seconds."""

    id: str
    job: DiffusionJob
    image_request: ImageRequest
    created: int
    ended: "asyncio.Future[bool]"
    completed: int | None = None


class ImageServer(WebApp[DiffusionJob, DenoisingStep]):
    """The application and its engine; ``port`` after ``start``."""

    def __init__(
        self, profile: DiffusionProfile, draw: Draw, fault: Break | None = None, board: Board | None = None
    ) -> None:
        self._profile = profile
        self.engine = DiffusionEngine(profile)
        self.metrics = ImageMetrics(profile.model)
        super().__init__(Runner(self.engine, self.metrics, board or Board(profile.idle_watts), draw), fault)
        self._films: dict[str, _Film] = {}

    def routes(self) -> list[web.RouteDef]:
        """Images or videos, by the kind of model; models and metrics."""
        common = [web.get("/v1/models", self._models), web.get("/metrics", self._metrics)]
        if self._profile.kind == "image":
            paths = ("/v1/images/generations", "/v1/images/edits")
            return [*common, *(web.post(path, self._images) for path in paths)]
        one = "/v1/videos/{id}"
        return [
            *common,
            web.post("/v1/videos", self._new_film),
            web.get("/v1/videos", self._all_films),
            web.get(one, self._one_film),
            web.delete(one, self._delete_film),
            web.get(f"{one}/content", self._content),
        ]

    async def _models(self, _request: web.Request) -> web.Response:
        return as_json(responses.models(self._profile.model, self.now(), None))

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = self.metrics.text(self.engine)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    def _submit(self, image_request: ImageRequest, name: str) -> "tuple[DiffusionJob, asyncio.Future[bool]]":
        """Queue a request; the future is False when the engine fails."""
        if self.engine.full:
            raise RefusedError(503, BUSY, "Service Unavailable")
        job = DiffusionJob(f"{name}/{uuid.uuid4().hex}", image_request.samples, image_request.shape)
        self.remember(name, [job.joules])
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def sink(more: bool | None) -> None:
            if not ended.done():
                ended.set_result(more is not None)

        self.runner.submit(job, sink)
        return job, ended

    async def _images(self, request: web.Request) -> web.Response:
        name = request.headers.get("X-Request-Id") or uuid.uuid4().hex
        start = now_ns()
        try:
            image_request = await read(request, self._profile)
            job, ended = self._submit(image_request, name)
        except RefusedError as error:
            return refused(error)
        try:
            if not await ended:
                raise FailedError
        except FailedError:
            return refused(RefusedError(500, "EngineCore encountered an issue.", "InternalServerError"))
        finally:
            self.runner.leave(job)
        shape = image_request.shape
        pictures = (
            png.image(shape.width, shape.height, image_request.seed + i) for i in range(image_request.samples)
        )
        data = [
            {"b64_json": base64.b64encode(picture).decode(), "url": None, "revised_prompt": None}
            for picture in pictures
        ]
        spent = seconds_from_ns(now_ns() - start) * MS_PER_SECOND
        body = {
            "created": self.now(),
            "data": data,
            "output_format": "png",
            "size": f"{shape.width}x{shape.height}",
            "cot_output": None,
            "metrics": {"stage_durations": {"stage_0_gen_ms": spent}, "peak_memory_mb": None},
        }
        return as_json(msgspec.json.encode(body), {"X-Request-Id": name})

    async def _new_film(self, request: web.Request) -> web.Response:
        name = request.headers.get("X-Request-Id") or uuid.uuid4().hex
        try:
            image_request = await read(request, self._profile)
            job, ended = self._submit(image_request, name)
        except RefusedError as error:
            return refused(error)
        film = _Film(f"video_{name}", job, image_request, self.now(), ended)
        ended.add_done_callback(lambda _: self._completed(film))
        self._films[film.id] = film
        if len(self._films) > _KEEP_FILMS:
            del self._films[next(iter(self._films))]
        return as_json(msgspec.json.encode(self._shown(film)), {"X-Request-Id": name})

    def _completed(self, film: _Film) -> None:
        film.completed = self.now()
        self.runner.leave(film.job)

    def _shown(self, film: _Film) -> dict[str, Any]:
        """Return the job as a video object of OpenAI's API."""
        shape, job = film.image_request.shape, film.job
        failed = film.ended.done() and not film.ended.result()
        status = "failed" if failed else "completed" if job.done else "in_progress"
        if status == "in_progress" and not job.steps_done:
            status = "queued"
        return {
            "id": film.id,
            "object": "video",
            "model": self._profile.model,
            "status": status,
            "progress": 100 * job.steps_done // shape.steps,
            "created_at": film.created,
            "completed_at": film.completed,
            "expires_at": None,
            "size": f"{shape.width}x{shape.height}",
            "seconds": f"{shape.frames / film.image_request.fps:g}",
            "error": {"code": "engine", "message": "EngineCore encountered an issue."} if failed else None,
        }

    def _film(self, request: web.Request) -> _Film:
        film = self._films.get(request.match_info["id"])
        if film is None:
            raise RefusedError(404, "Video not found", "NotFoundError", "video_id")
        return film

    async def _all_films(self, _request: web.Request) -> web.Response:
        shown = [self._shown(film) for film in reversed(self._films.values())]
        return as_json(msgspec.json.encode({"object": "list", "data": shown}))

    async def _one_film(self, request: web.Request) -> web.Response:
        try:
            return as_json(msgspec.json.encode(self._shown(self._film(request))))
        except RefusedError as error:
            return refused(error)

    async def _delete_film(self, request: web.Request) -> web.Response:
        try:
            film = self._film(request)
        except RefusedError as error:
            return refused(error)
        self.runner.leave(film.job)
        del self._films[film.id]
        gone = {"id": film.id, "object": "video.deleted", "deleted": True}
        return as_json(msgspec.json.encode(gone))

    async def _content(self, request: web.Request) -> web.Response:
        try:
            film = self._film(request)
            if not film.job.done:
                status = self._shown(film)["status"]
                raise RefusedError(400, f"Video is not ready: it is {status}.", "BadRequestError", "video_id")
        except RefusedError as error:
            return refused(error)
        return web.Response(
            body=mp4.film(film.image_request.shape.frames, film.image_request.fps), content_type="video/mp4"
        )
