"""HTTP servers that run a simulated engine in real time, with the API and the metrics of vLLM.

In: HTTP requests in OpenAI's format. Out: responses, Prometheus metrics, OpenTelemetry spans, the true joules
(``GET /truth``), and power over time through a callback.

In reading order: ``runner`` (runs an engine's steps in real time), ``web_app`` (routes of all servers),
``text_requests`` and ``image_requests`` (parse and validate), ``responses`` (the JSON of vLLM's responses),
``output`` (streamed and non-streamed delivery), ``text_server`` and ``image_server`` (the two servers),
``metrics`` (``/metrics``), ``spans`` (OTLP), ``png`` and ``mp4`` (valid files without content).
"""
