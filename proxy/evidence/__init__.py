"""Evidence of work that did not pass through the proxy: engine metrics and process lists in, ``Outside`` out.

Reading order: ``watch`` polls; ``engine_metrics`` compares an engine's counters with ``own_view``, the
proxy's count of its own requests; ``processes`` finds the processes that compute on a device.
"""
