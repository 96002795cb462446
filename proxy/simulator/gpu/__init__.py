"""Simulated GPUs: physics of the board, and the sensors through which monitoring tools see them.

In: power over time, as an engine draws it. Out: NVML readings (energy counter, power, temperature).

In reading order: ``datasheets`` (published values of real GPUs), ``board`` (power limit, ramps, heat),
``fake_nvml`` (builds the library and writes its shared file), ``fake_nvml.c`` (the library,
``libnvidia-ml.so.1``).
"""
