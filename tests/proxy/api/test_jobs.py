"""States of jobs by the names of several servers, and the paths of their requests."""

import pytest

from proxy.api.jobs import JobPath, JobState, job_path_of, read_job


@pytest.mark.parametrize(
    ("method", "path", "job"),
    [
        ("GET", "/v1/videos/video_1", JobPath("video_1", True)),
        ("DELETE", "/v1/videos/video_1/", JobPath("video_1", True)),
        ("GET", "/videos/7", JobPath("7", True)),
        ("GET", "/openai/v1/videos/7", JobPath("7", True)),
        ("GET", "/v1/videos/7/content", JobPath("7", False)),
        ("POST", "/v1/videos/7/remix", JobPath("7", False)),
        ("GET", "/v1/videos", None),
        ("POST", "/v1/videos/edits", None),
        ("POST", "/v1/videos", None),
        ("GET", "/v1/videos/7/8/9", None),
        ("GET", "/v1/models/videos", None),
    ],
)
def test_requests_about_a_job_are_recognized(method: str, path: str, job: JobPath | None) -> None:
    assert job_path_of(method, path) == job


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ("queued", "waits"),
        ("PENDING", "waits"),
        ("in_progress", "runs"),
        ("denoising", "runs"),
        ("completed", "completed"),
        ("succeeded", "completed"),
        ("failed", "failed"),
        ("expired", "failed"),
        ("canceled", "cancelled"),
    ],
)
def test_states_have_a_meaning_under_all_their_names(status: str, found: str) -> None:
    state = read_job(b'{"id":"v","status":"%b"}' % status.encode())
    assert state is not None
    assert getattr(state, found)
    assert state.runs == (found in {"waits", "runs"})


def test_a_deleted_job_is_cancelled() -> None:
    state = read_job(b'{"id":"v","object":"video.deleted","deleted":true}')
    assert state is not None
    assert state.cancelled
    assert not state.runs


@pytest.mark.parametrize("body", [b"", b"{}", b'{"error":"x"}', b"[1]", b"\x00\x00\x00 ftypisom"])
def test_other_documents_have_no_state(body: bytes) -> None:
    assert read_job(body) is None


@pytest.mark.parametrize(
    ("progress", "fraction"), [(b"40", 0.4), (b'"40"', 0.4), (b"140", 1.0), (b"-3", 0.0), (b"null", None)]
)
def test_progress_is_a_fraction(progress: bytes, fraction: float | None) -> None:
    state = read_job(b'{"status":"in_progress","progress":%b}' % progress)
    assert state is not None
    assert state.done_fraction == fraction


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("video_1-a.b", True),
        ("a\r\nX: y", False),
        ("a/b", False),
        ("a?b", False),
        ("", False),
        ("x" * 501, False),
    ],
)
def test_an_id_that_is_no_path_segment_is_not_usable(name: str, usable: bool) -> None:
    assert JobState(id=name, status="queued").has_usable_id is usable
