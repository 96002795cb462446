"""Reconstruct the steps of an engine from the times of output chunks.

In: the outputs and requests of one engine. Out: its ``Work``: who was in which step. Read in this order:
``bursts``, ``phase_lock``, ``chunk_tokens`` and ``clustering`` (which step each chunk belongs to),
``non_streamed`` and ``unread`` (responses whose chunks were not seen), ``prefill`` (where prompts were
computed), ``neighbours`` (engines that share a device), ``cached`` (prompts that were cached),
``cells``, ``steps`` (all of it together), ``engine_steps`` (steps that the engine reports), ``overlap``.
"""
