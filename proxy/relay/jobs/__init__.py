"""Jobs: requests whose work goes on after their response (videos).

To the meter, a job is one request from its POST to its end: its record and its span cover all of its work.

- ``progress``: when its work began and will end, by the states that were seen.
- ``table``: which jobs run, which backend has them; poll those that no client polls.
- ``units``: what a job produces.
- ``poll``: read the response to a client's own request about a job.
"""
