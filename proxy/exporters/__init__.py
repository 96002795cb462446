"""Exporters: finished requests (``Finished``) in, spans, metrics and ledger lines out.

Reading order:

- ``base``: the protocol ``Exporter``, its frozen record ``Finished``, and ``Exporters``, which calls all.
- ``metrics``: the register of Prometheus metrics; ``prometheus`` counts and renders them, ``labels`` limits
  the number of label values.
- ``otel``: spans and metrics by OTLP; ``conventions`` has their names, ``otel_settings`` the environment.
- ``store``: the ledger file, one JSON record per line.
"""
