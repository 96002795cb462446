"""Simulated inference engines on simulated GPUs, whose true energy per request is known.

In: a profile (the costs of a model on GPUs) and requests, over HTTP in real time or as JSON lines in virtual
time. Out: responses as vLLM sends them, the power of the GPUs where NVML is expected, and the true joules.

Packages, in reading order:

- ``profiles``: the constants of a model on GPUs, and the TOML files that hold them.
- ``engine``: scheduling and step costs; pure, without clock or I/O.
- ``gpu``: boards, data sheets and the NVML library that reports the simulated power.
- ``server``: the HTTP servers that run an engine in real time.

Modules: ``hardware`` (connect the servers of a fleet to their devices), ``__main__`` (command line of the
servers), ``virtual`` (command line in virtual time, used by ``loadgen sweep --simulate``).

The constants in the profiles are fitted by ``tests/calibration``, which is not installed.
"""
