import importlib
import inspect

import pytest

from proxy.config import ConfigError
from proxy.config.sources import AUTO, NONE, SOURCES, SourceKind, names, split_sources, syntaxes
from proxy.energy.source import SourceOptions


@pytest.mark.parametrize("kind", SOURCES.values(), ids=SOURCES)
def test_the_factory_of_each_kind_exists_and_takes_the_options_of_a_source(kind: SourceKind) -> None:
    module, _, function = kind.factory.partition(":")
    (parameter,) = inspect.signature(getattr(importlib.import_module(module), function)).parameters.values()
    assert parameter.annotation in {SourceOptions, "SourceOptions"}


def test_syntaxes_are_those_of_the_help_and_hold_no_space() -> None:
    assert syntaxes()[:3] == (AUTO, "nvml", "zeus[:HOST:PORT]")
    assert syntaxes()[-1] == NONE
    assert not [syntax for syntax in syntaxes() if " " in syntax]
    assert len(names()) == len(SOURCES) + 2


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("auto", (("auto", ""),)),
        ("nvml,rapl", (("nvml", ""), ("rapl", ""))),
        ("zeus,zeus:gpuhost:4938", (("zeus", ""), ("zeus", "gpuhost:4938"))),
        ("replay:a,b.jsonl,nvml", (("replay", "a,b.jsonl"), ("nvml", ""))),
        (
            "agent:http://[::1]:9009,estimate:cpu=40..250",
            (("agent", "http://[::1]:9009"), ("estimate", "cpu=40..250")),
        ),
        ("prometheus:http://h:9400/metrics#power=w", (("prometheus", "http://h:9400/metrics#power=w"),)),
    ],
)
def test_a_comma_separates_only_before_the_name_of_a_source(
    text: str, kinds: tuple[tuple[str, str], ...]
) -> None:
    assert split_sources(text) == kinds


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "'' is not one of auto, nvml"),
        ("nvlm", "'nvlm' is not one of auto, nvml"),
        ("nvml:0", "nvml takes no argument"),
        ("auto:nvml", "auto takes no argument"),
        ("replay", "replay takes an argument"),
        ("agent:", "agent takes an argument"),
        ("agent:gpuhost", "agent: "),
        ("zeus:gpuhost", "zeus: "),
        ("nvml,none", "none is not one of several"),
    ],
)
def test_a_source_that_cannot_be_right_is_an_error_that_names_it(text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        split_sources(text)
