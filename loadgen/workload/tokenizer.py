"""Token counts by a local tokenizer file (Hugging Face's ``tokenizer.json``) instead of the server's usage.

Nothing is downloaded. The library is the extra ``tokenizer``.
"""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any


class Tokenizer:
    """Counts tokens; special tokens (begin, end) are not counted."""

    def __init__(self, path: Path) -> None:
        """Load the file; raises ``ValueError`` with the reason if that fails."""
        try:
            from tokenizers import Tokenizer as Loaded  # noqa: PLC0415  # an extra
        except ModuleNotFoundError as error:
            raise ValueError("--tokenizer needs a library: pip install 'jouleproxy[tokenizer]'") from error
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(f"--tokenizer {path}: {error.strerror}") from error
        try:
            self._tokenizer: Any = Loaded.from_buffer(data)
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"--tokenizer {path}: not a tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(one.ids) for one in found]

    def running(self, words: Sequence[str]) -> list[int]:
        """Return the cumulative tokens of a text: before each word, and of all words (one value more)."""
        counted = self.count([words[0], *(f" {word}" for word in words[1:])])
        return [0, *accumulate(counted)]
