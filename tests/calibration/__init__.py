"""Calibration of the simulator: fit its constants to published measurements, and report how far it is off.

Not installed with the package; run it from a checkout as ``python -m tests.calibration.NAME``.

In: tables of published measurements (ML.ENERGY Leaderboard v3), or the ``run.json`` of a sweep. Out: profiles
(TOML), and the generated tables and pictures of ``docs/simulator.md``.

In reading order: ``published`` (read a table), ``models`` (published facts about models and tasks),
``least_squares`` (non-negative fit of relative errors), ``group_fit`` (one setting's constants),
``roofline`` (constants from a data sheet, for models that were never measured), ``diffusion_fit``,
``steady_state`` (measure the simulator as the benchmark measured), ``point_errors``. Commands: ``fit``,
``diffusion_fit``, ``predict``, ``report`` (with ``plots``), ``headlines`` (with ``findings`` and
``tool_benchmarks``). Their tests are in ``tests/calibration/tests``.
"""
