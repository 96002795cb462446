"""Profiles: the constants of one model on GPUs.

In: the name of a profile or the path of a TOML file. Out: an immutable ``Profile``.

``profile`` defines and loads them. ``*.toml`` are text, embedding and multimodal models; ``diffusion/*.toml``
are image and video models, loaded by ``proxy.simulator.engine.diffusion``.
"""
