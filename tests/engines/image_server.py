"""A second engine: an OpenAI-style image server over a real diffusers pipeline with random weights.

Runs inside the engine's environment: ``python image_server.py PORT``. The U-Net, the VAE, the text
encoder and the scheduler are the real classes, made tiny, so that a 128x128 image of 8 steps takes
about a second on two cores. One image is computed at a time; others wait.
"""

import asyncio
import base64
import io
import sys
from typing import Any

import torch
from aiohttp import web
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

MODEL = "tiny-diffusion"
WIDTH = 32
END = "<|end|>"


def make_pipeline() -> Any:
    """Return the pipeline; seeded, with the same weights each time."""
    torch.manual_seed(20)
    pipeline = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text_encoder(),
        tokenizer=_tokenizer(),
        unet=_unet(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _tokenizer() -> Any:
    letters = (END, *map(chr, range(32, 127)))
    tokenizer = Tokenizer(
        models.WordLevel({letter: number for number, letter in enumerate(letters)}, unk_token=END)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=77,
    )


def _text_encoder() -> Any:
    config = CLIPTextConfig(
        vocab_size=128,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return CLIPTextModel(config)


def _unet() -> Any:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(WIDTH, 2 * WIDTH),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def _vae() -> Any:
    return AutoencoderKL(
        block_out_channels=(WIDTH,) * 4,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )


def _draw(pipeline: Any, asked: dict[str, Any], width: int, height: int) -> list[str]:
    with torch.inference_mode():
        images = pipeline(
            asked["prompt"],
            num_images_per_prompt=asked.get("n", 1),
            width=width,
            height=height,
            num_inference_steps=asked.get("num_inference_steps", 8),
            generator=torch.Generator().manual_seed(asked.get("seed", 0)),
        ).images
    return [_png(image) for image in images]


def _png(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _refuse(message: str, param: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": 400}
    return web.json_response({"error": error}, status=400)


def make_app() -> web.Application:
    """``/v1/images/generations``, ``/v1/models`` and ``/health``."""
    pipeline = make_pipeline()
    turn = asyncio.Lock()

    async def generate(request: web.Request) -> web.Response:
        asked = await request.json()
        if not asked.get("prompt"):
            return _refuse("prompt is required", "prompt")
        width, height = map(int, asked.get("size", "128x128").split("x"))
        if width % 8 or height % 8:
            return _refuse("width and height must be multiples of 8", "size")
        async with turn:
            images = await asyncio.to_thread(_draw, pipeline, asked, width, height)
        return web.json_response({"created": 0, "data": [{"b64_json": image} for image in images]})

    async def list_models(_: web.Request) -> web.Response:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}
        return web.json_response({"object": "list", "data": [model]})

    async def health(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/images/generations", generate)
    app.router.add_get("/v1/models", list_models)
    app.router.add_get("/health", health)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=int(sys.argv[1]), print=None)
