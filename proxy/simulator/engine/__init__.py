"""The simulated engines: which requests a step runs, how long it takes and how much energy it uses.

In: a profile, and jobs. Out: steps with seconds and joules, and each job's Shapley value of the energy.
No module reads a clock or does I/O; callers pass the time.

In reading order: ``job`` (a request in the engine), ``kv_cache`` (paged cache with shared prefixes),
``step_costs`` (seconds and joules of a step), ``batching`` (continuous batching as in vLLM v1),
``energy_trace`` (cumulative energy of a run in virtual time), ``diffusion`` (the engine of image and video
models, with its profiles).
"""
