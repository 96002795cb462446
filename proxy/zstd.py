"""zstd: the standard library's from Python 3.14 on (PEP 784), its backport before."""

import sys

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError, ZstdFile, compress, decompress
else:
    from backports.zstd import ZstdDecompressor, ZstdError, ZstdFile, compress, decompress

__all__ = ["ZstdDecompressor", "ZstdError", "ZstdFile", "compress", "decompress"]
