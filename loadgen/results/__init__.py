"""The records of a run and their files.

In: requests, points and a verdict. Out: ``run.json`` and ``requests.jsonl.zst``, and back.

- ``records``: ``Record`` (a request), ``Point``, ``Knee`` and ``Run``, and their encodings
- ``output_files``: claim of an output directory, atomic writes
- ``run_directory``: save, load and resume of a run
"""
