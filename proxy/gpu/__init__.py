"""Measurements on a machine with an NVIDIA GPU and PyTorch: ``make gpu``, or ``python -m proxy.gpu``.

In: a GPU, torch with CUDA, this package; no network. Out: one JSON file and a page. Without a GPU the same
code runs on the simulated NVML library and on torch for the CPU with a tiny model; the power is then that of
a model (:mod:`proxy.truth.machine`), and everything that is printed states SIMULATED.

The package is a program of its own: no other package imports it, and torch is imported nowhere else. It is in
``proxy`` rather than in ``deploy`` so that an installed wheel can run it on a machine without a checkout.

Files in reading order: ``__main__`` and ``parts`` (arguments, order and sizes of the parts), ``device`` (the
GPU or its substitute, which run steps and read joules), ``nvml_facts`` (part a), ``model``, ``engine`` and
``server`` (part b: an engine with continuous batching), ``composition``, ``measured`` and ``shapley`` (part
c: measured truth), ``occupancy`` and ``served`` (the policies of the proxy against it), ``closure``,
``forms`` (part d), ``curve`` and ``wire`` (part e), ``report``.
"""
