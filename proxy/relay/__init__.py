"""The relay: bytes through, events out."""
