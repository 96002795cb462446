"""Real engines behind the proxy: slow, not part of ``make test``."""
