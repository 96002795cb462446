"""A decoder of a language model with random weights and a static KV cache, on torch.

The architecture is that of Llama 3 (RMSNorm, rotary positions, grouped queries, SwiGLU); weights are random,
because the time of a step does not depend on their values. One forward pass computes all tokens of a step
together: decoding requests and chunks of prompts share the matrix products, attention is per request for
chunks and in one batch for decoding. This is the only file that imports torch (2.5 or newer).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from proxy.gpu.composition import Entry

_ROTARY_BASE: Final = 500_000.0
_EPSILON: Final = 1e-5
_CACHE_SHARE: Final = 0.6  # of the memory that is free beside the weights


@dataclass(frozen=True, slots=True)
class Size:
    """Dimensions of a model; ``inner`` is that of the feed-forward layers."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int = 32_768

    @property
    def parameters(self) -> int:
        """Number of weights."""
        head = self.hidden // self.heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_heads * head
        return self.layers * (attention + 3 * self.hidden * self.inner) + 2 * self.vocabulary * self.hidden


SIZES: Final[dict[str, Size]] = {
    "tiny": Size(2, 64, 4, 2, 128, 512),
    "1b": Size(16, 2048, 32, 8, 8192),
    "3b": Size(28, 3072, 24, 8, 8192),
    "8b": Size(32, 4096, 32, 8, 14336),
}


def has_cuda() -> bool:
    """Return whether torch can use a GPU."""
    return bool(torch.cuda.is_available())


def uuid() -> str | None:
    """Return NVML's UUID of the GPU that torch uses; None where this version of torch has none."""
    found = getattr(torch.cuda.get_device_properties(0), "uuid", None)
    return None if found is None else f"GPU-{found}"


def synchronise() -> None:
    """Wait until the GPU has finished."""
    torch.cuda.synchronize()


def fitting_size() -> str:
    """Return the name of the largest size that fits this GPU with room for its cache."""
    if not has_cuda():
        return "tiny"
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    return "8b" if gib >= 40 else "3b" if gib >= 16 else "1b"


def versions() -> dict[str, str]:
    """Return the versions of torch and CUDA and the name of the GPU."""
    return {
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "device": torch.cuda.get_device_name(0) if has_cuda() else "cpu",
    }


class Bursts:
    """Known loads of about 20 ms on a data-centre GPU: matrix products and copies."""

    def __init__(self) -> None:
        """Allocate 1.1 GB."""
        self.square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        self.block = torch.empty(1 << 29, device="cuda", dtype=torch.uint8)
        self.other = torch.empty_like(self.block)

    def run(self, kind: str) -> None:
        """Queue one burst, ``matmul`` or ``copy``."""
        if kind == "matmul":
            for _ in range(10):
                torch.mm(self.square, self.square)
        else:
            for _ in range(40):
                self.other.copy_(self.block)


class Decoder:
    """Weights and cache. ``forward`` is not safe for several threads."""

    def __init__(self, size: Size, slots: int, length: int) -> None:
        """Allocate ``slots`` caches of ``length`` tokens, fewer if the memory is too small."""
        self.size, self.length = size, length
        self.place = "cuda" if has_cuda() else "cpu"
        self.kind = torch.bfloat16 if has_cuda() else torch.float32
        if not has_cuda():
            torch.set_num_threads(1)
        torch.manual_seed(0)
        head = size.hidden // size.heads
        self.head = head
        self.embedding = self._random(size.vocabulary, size.hidden)
        self.output = self._random(size.hidden, size.vocabulary)
        self.layers = [self._layer() for _ in range(size.layers)]
        frequencies = _ROTARY_BASE ** (-torch.arange(0, head, 2, device=self.place) / head)
        angles = torch.arange(length, device=self.place)[:, None] * frequencies
        self.cosine, self.sine = angles.cos().to(self.kind), angles.sin().to(self.kind)
        self.slots = self._affordable(slots)
        shape = (size.layers, 2, self.slots, length, size.kv_heads, head)
        self.cache = torch.zeros(shape, device=self.place, dtype=self.kind)

    def _random(self, *shape: int) -> Any:
        return torch.randn(*shape, device=self.place, dtype=self.kind) * 0.02

    def _layer(self) -> dict[str, Any]:
        size, kv = self.size, self.size.kv_heads * self.head
        return {
            "qkv": self._random(size.hidden, size.hidden + 2 * kv),
            "out": self._random(size.hidden, size.hidden),
            "gate_up": self._random(size.hidden, 2 * size.inner),
            "down": self._random(size.inner, size.hidden),
        }

    def _affordable(self, slots: int) -> int:
        if not has_cuda():
            return slots
        free, _ = torch.cuda.mem_get_info()
        one = 2 * 2 * self.size.layers * self.length * self.size.kv_heads * self.head
        return max(1, min(slots, int(free * _CACHE_SHARE) // one))

    def fill(self) -> None:
        """Fill the cache with random values, as if all its tokens had been computed."""
        self.cache.normal_()

    def forward(self, entries: Sequence[Entry]) -> list[int]:
        """Compute one step; return the next token of each entry."""
        with torch.inference_mode():
            return self._forward(entries)

    def _forward(self, entries: Sequence[Entry]) -> list[int]:
        numbers = [token for entry in entries for token in entry.tokens]
        places = [entry.context + i for entry in entries for i in range(len(entry.tokens))]
        slots = [entry.slot for entry in entries for _ in entry.tokens]
        position = torch.tensor(places, device=self.place)
        slot = torch.tensor(slots, device=self.place)
        masks = _Masks(entries, self.place)
        x = self.embedding[torch.tensor(numbers, device=self.place)]
        for layer, cache in zip(self.layers, self.cache, strict=True):
            x = x + self._attention(layer, cache, x, position, slot, masks) @ layer["out"]
            gate, up = (self._norm(x) @ layer["gate_up"]).chunk(2, dim=-1)
            x = x + (functional.silu(gate) * up) @ layer["down"]
        tokens: list[int] = (self._norm(x[masks.last]) @ self.output).argmax(dim=-1).tolist()
        return tokens

    def _norm(self, x: Any) -> Any:
        return functional.rms_norm(x, (self.size.hidden,), eps=_EPSILON)

    def _attention(self, layer: Any, cache: Any, x: Any, position: Any, slot: Any, masks: "_Masks") -> Any:
        size, kv = self.size, self.size.kv_heads * self.head
        q, k, v = (self._norm(x) @ layer["qkv"]).split((size.hidden, kv, kv), dim=-1)
        q = self._rotated(q.view(-1, size.heads, self.head), position)
        k = self._rotated(k.view(-1, size.kv_heads, self.head), position)
        cache[0, slot, position] = k
        cache[1, slot, position] = v.view(-1, size.kv_heads, self.head)
        out = torch.empty_like(q)
        if masks.decode is not None:
            rows, slots, longest, mask = masks.decode
            keys, values = (cache[i, slots, :longest].transpose(1, 2) for i in (0, 1))
            # The queries that share a key are the rows of one attention: no key is copied for each of them.
            query = q[rows].view(len(rows), size.kv_heads, -1, self.head)
            found = functional.scaled_dot_product_attention(query, keys, values, mask)
            out[rows] = found.reshape(len(rows), size.heads, self.head)
        for first, last, number, end, mask in masks.chunks:
            keys, values = (cache[i, number, :end].transpose(0, 1)[None] for i in (0, 1))
            query = q[first:last].transpose(0, 1)[None]
            found = functional.scaled_dot_product_attention(
                query, keys, values, mask, is_causal=mask is None, enable_gqa=True
            )
            out[first:last] = found[0].transpose(0, 1)
        return out.reshape(-1, size.hidden)

    def _rotated(self, x: Any, position: Any) -> Any:
        cosine, sine = self.cosine[position, None], self.sine[position, None]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1).flatten(-2)


class _Masks:
    """Which rows of a step belong to which entry, and what each may attend to; the same for all layers."""

    def __init__(self, entries: Sequence[Entry], place: str) -> None:
        rows, slots, ends, last, row = [], [], [], [], 0
        self.chunks: list[tuple[int, int, int, int, Any]] = []
        for entry in entries:
            count = len(entry.tokens)
            end = entry.context + count
            if count == 1:
                rows.append(row)
                slots.append(entry.slot)
                ends.append(end)
            else:
                mask = None  # at the begin of a prompt the plain causal mask, which has a faster kernel
                if entry.context:
                    queries = torch.arange(entry.context, end, device=place)[:, None]
                    mask = torch.arange(end, device=place)[None] <= queries
                self.chunks.append((row, row + count, entry.slot, end, mask))
            row += count
            last.append(row - 1)
        self.last = torch.tensor(last, device=place)
        self.decode: Any = None
        if rows:
            longest = max(ends)
            mask = torch.arange(longest, device=place)[None] < torch.tensor(ends, device=place)[:, None]
            indices = (torch.tensor(rows, device=place), torch.tensor(slots, device=place))
            self.decode = (*indices, longest, mask[:, None, None])
