"""Options and the specification of a run.

In: command-line arguments. Out: a checked ``Spec``, which determines the measurement and is saved with it,
and a ``Config``, which adds credentials and output options. Invalid values raise ``ValueError`` with the
option and an example of a valid value.

- ``options``: the table of command-line options
- ``spec``: ``Spec`` and ``Config``, and the checks across options
- ``levels``: load levels, such as ``1..64``
- ``slo``: service level objectives, such as ``p95:ttft=200ms``
"""
