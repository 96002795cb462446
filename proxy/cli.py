"""The command line ``jouleproxy``: parse arguments, call one function for each command, return its status."""

import argparse
import errno
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from proxy import stdio
from proxy.config import ConfigError, MeterConfig
from proxy.config.settings import OPTIONS, load, nearest, parse_address
from proxy.config.sources import syntaxes

_HELP: Final = """\
jouleproxy: measures the joules of each request to an OpenAI-compatible model server.

  jouleproxy --upstream http://127.0.0.1:8000   relay to a server; clients point at http://127.0.0.1:9000
  jouleproxy serve --config jouleproxy.toml     settings from a file
  jouleproxy demo                               simulated GPU and engine: nothing else needed
  jouleproxy attribute TIMELINE [--policy P] [--out F]   joules of a recorded timeline, as JSON lines
  jouleproxy explain LEDGER|TIMELINE [--against OTHER]   where the joules go; why two runs differ
  jouleproxy truth list|make|score|run           score attribution on simulated engines of known truth
  jouleproxy devices [--json]                   what can be measured here
  jouleproxy agent --listen HOST:PORT           serve this host's energy samples to proxies elsewhere

serve options (each also a TOML key and a variable JOULEPROXY_NAME; flag > variable > file > default):
  --upstream URL                the server to relay to
  --listen HOST:PORT            data port, default 127.0.0.1:9000
  --admin HOST:PORT             metrics, records, dashboard; default 127.0.0.1:9001
  --admin-token TOKEN           required beyond this host
  --devices auto|0,1|UUID|none  what the backends compute on, default auto
  --source SOURCE[,SOURCE...]   energy sources, default auto; SOURCE is one of:
{sources}
  --host-energy off|reported|attributed   CPUs and memory (RAPL): a second account
  --policy steps|tokens|overlap rule of sharing, default steps
  --energy-in-response off|on|wait
  --record FILE  --ledger FILE  keep the timeline, the records
  --otlp URL                    where spans go
  --workers N                   relay processes, default 1
  --sticky off|session|prefix   several backends: what stays with one
  --log-level debug|info|warning|error
  --config FILE   --no-check-upstream   --help-all lists the limits and waits
"""


def _help() -> str:
    """Return the text of ``--help``, with the energy sources of the register."""
    indent = " " * 32
    words = " ".join(syntaxes())
    lines = textwrap.wrap(words, 110, initial_indent=indent, subsequent_indent=indent)
    return _HELP.format(sources="\n".join(lines))


_TRUTH_HELP: Final = """\
jouleproxy truth: scores attribution on simulated engines whose fair share of each request is known.

  jouleproxy truth list                           the cases and their parameters
  jouleproxy truth make CASE --seed S --out F     a timeline F and its truth beside it
  jouleproxy truth score OUT TRUTH                score the output of a tool
  jouleproxy truth run [--policy P|all] [--case C]   a table of errors; default: steps on all cases
  jouleproxy truth run --command 'TOOL {timeline} {out}' [--case C]   score a program
  run also takes --seed S, --jobs N, --json FILE and --page FILE
"""


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors that name the nearest option."""

    def error(self, message: str) -> NoReturn:
        word = message.partition("unrecognized arguments: ")[2].split(" ", maxsplit=1)[0].split("=")[0]
        if word:
            flags = [flag for action in self._actions for flag in action.option_strings]
            message = f"unknown option {word}{nearest(word, flags)}"
        sys.stderr.write(f"{self.prog}: {message}\n")
        raise SystemExit(2)


def _parser(command: str) -> _Parser:
    return _Parser(f"jouleproxy {command}".strip(), add_help=command != "serve", allow_abbrev=False)


def _serve(arguments: Sequence[str]) -> int:
    parser = _parser("serve")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--help-all", action="store_true")
    parser.add_argument("--upstream")
    parser.add_argument("--config")
    for option in OPTIONS.values():
        if option.kind is bool:
            parser.add_argument(option.flag, dest=option.name, action="store_const", const="true")
            negative = option.flag.replace("--", "--no-", 1)
            parser.add_argument(negative, dest=option.name, action="store_const", const="false")
        else:
            parser.add_argument(option.flag)
    given = vars(parser.parse_args(arguments))
    if given.pop("help") | given["help_all"]:
        sys.stdout.write(_help() + (_all_options() if given["help_all"] else ""))
        return 0
    flags = {name: value for name, value in given.items() if isinstance(value, str)}
    from proxy.supervisor import serve  # noqa: PLC0415 - the other commands need none of it

    warned: set[str] = set()  # settings are read again at SIGHUP, by each process

    def warn(line: str) -> None:
        if line not in warned:
            warned.add(line)
            sys.stderr.write(f"jouleproxy: {line}\n")

    return serve(lambda: load(flags, os.environ, warn=warn))


def _all_options() -> str:
    lines = [f"  {o.flag:34} {o.default if o.default is not None else '-'}" for o in OPTIONS.values()]
    return "\nEvery option and its default:\n" + "\n".join(lines) + "\n"


def _attribute(arguments: Sequence[str]) -> int:
    parser = _parser("attribute")
    parser.add_argument("timeline", type=Path, help="a timeline file, .zst if compressed")
    parser.add_argument("--policy", choices=OPTIONS["policy"].choices, default=OPTIONS["policy"].default)
    parser.add_argument(
        "--out", type=Path, help="write to this file instead of stdout; it is complete or does not exist"
    )
    given = parser.parse_args(arguments)
    from proxy.attribute import run  # noqa: PLC0415 - numpy is not for every command

    return run(given.timeline, given.policy, given.out)


def _explain(arguments: Sequence[str]) -> int:
    parser = _parser("explain")
    parser.add_argument("run", type=Path, help="a ledger file or a timeline, .zst if compressed")
    parser.add_argument("--against", type=Path, help="another run, to show why they differ")
    parser.add_argument("--policy", choices=OPTIONS["policy"].choices, default=OPTIONS["policy"].default)
    given = parser.parse_args(arguments)
    from proxy.explain import run  # noqa: PLC0415 - numpy is not for every command

    return run(given.run, given.against, given.policy)


def _energy_parser(command: str) -> _Parser:
    """Return a parser with the options of energy sources, as of ``serve``."""
    parser = _parser(command)
    parser.add_argument("--devices", default="auto", help="indices or UUIDs, comma-separated")
    parser.add_argument("--source", default="auto", help="see serve")
    parser.add_argument("--host-energy", default="off", choices=OPTIONS["host_energy"].choices)
    parser.add_argument("--agent-token", default=os.environ.get("JOULEPROXY_AGENT_TOKEN"))
    return parser


def _devices(arguments: Sequence[str]) -> int:
    parser = _energy_parser("devices")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = vars(parser.parse_args(arguments))
    as_json = given.pop("json")
    from proxy.devices import run  # noqa: PLC0415 - may load a driver's library

    return run(MeterConfig(**given), sys.stdout, as_json=as_json)


def _agent(arguments: Sequence[str]) -> int:
    parser = _energy_parser("agent")
    parser.add_argument("--listen", default="127.0.0.1:9009", help="HOST:PORT")
    given = vars(parser.parse_args(arguments))
    where = given.pop("listen")
    try:
        listen = parse_address(where)
    except ConfigError as error:
        raise ConfigError(f"--listen {where!r}: must be HOST:PORT, as 127.0.0.1:9009 ({error})") from error
    from proxy.agent import run  # noqa: PLC0415 - the other commands need none of it

    return run(MeterConfig(**given), listen)


def _demo(arguments: Sequence[str]) -> int:
    parser = _parser("demo")
    parser.add_argument("--once", action="store_true", help="one sweep: a table and a curve, then stop")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where the run is written")
    parser.add_argument("--concurrency", default="1..64", help="levels of --once, as 1..64 or 1,8")
    given = parser.parse_args(arguments)
    from proxy.demo import run  # noqa: PLC0415 - the simulator is for the demo alone

    return run(given.out, once=given.once, levels=given.concurrency)


def _truth(arguments: Sequence[str]) -> int:
    verbs = {"list": _truth_list, "make": _truth_make, "score": _truth_score, "run": _truth_run}
    words = list(arguments)
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_TRUTH_HELP)
        return 0
    if not words or words[0] not in verbs:
        hint = nearest(words[0], verbs) if words and not words[0].startswith("-") else ""
        sys.stderr.write(f"jouleproxy truth: give list, make, score or run{hint}\n")
        return 2
    return verbs[words[0]](words[1:])


def _truth_list(arguments: Sequence[str]) -> int:
    _parser("truth list").parse_args(arguments)
    from proxy.truth.command import list_cases  # noqa: PLC0415 - numpy is not for every command

    return list_cases()


def _truth_make(arguments: Sequence[str]) -> int:
    parser = _parser("truth make")
    parser.add_argument("case", help="a name from `jouleproxy truth list`")
    parser.add_argument("--seed", type=_seed, default=1, help="0 or more")
    parser.add_argument(
        "--out", type=Path, required=True, help="the timeline; its truth is written beside it"
    )
    given = parser.parse_args(arguments)
    from proxy.truth.command import make  # noqa: PLC0415

    return make(_truth_case(parser, given.case), given.seed, given.out)


def _truth_score(arguments: Sequence[str]) -> int:
    parser = _parser("truth score")
    parser.add_argument("out", type=Path, help="JSON lines with request and joules")
    parser.add_argument("truth", type=Path, help="the truth file that `truth make` wrote")
    given = parser.parse_args(arguments)
    from proxy.truth.command import score_file  # noqa: PLC0415

    return score_file(given.out, given.truth)


def _truth_run(arguments: Sequence[str]) -> int:
    from proxy.truth import catalogue, command, estimators  # noqa: PLC0415

    parser = _parser("truth run")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--policy", action="append", choices=[*estimators.NAMES, "all"], help="default steps")
    how.add_argument("--command", help="a program to score: 'TOOL {timeline} {out}'")
    parser.add_argument("--case", action="append", help="only this case; may be repeated")
    parser.add_argument("--seed", type=_seed, default=1, help="0 or more")
    parser.add_argument("--jobs", type=int, help="parallel processes, default one for each core")
    parser.add_argument("--json", type=Path, help="write all scores to this file")
    parser.add_argument("--page", type=Path, help="write a Markdown page that compares the policies")
    given = parser.parse_args(arguments)
    cases = [_truth_case(parser, word) for word in given.case or catalogue.names()]
    policies = given.policy or ["steps"]
    words = None
    try:
        words = estimators.command_words(given.command) if given.command is not None else None
    except ValueError as error:
        parser.error(f"--command {given.command!r}: {error}")
    if given.jobs is not None and given.jobs < 1:
        parser.error(f"--jobs {given.jobs}: must be 1 or more")
    for path in (given.json, given.page):  # found now, not after minutes of work
        if path is not None and not path.parent.is_dir():
            parser.error(f"{path}: no directory {path.parent}")
    names = estimators.NAMES if "all" in policies else policies
    return command.run(cases, names, words, given.seed, given.jobs, given.json, given.page)


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return number


def _truth_case(parser: _Parser, word: str) -> str:
    """Return the name of a case; exit with status 2 if there is none."""
    from proxy.truth import catalogue  # noqa: PLC0415

    name = catalogue.find(word)
    if name is None:
        slugs = [catalogue.slug(known) for known in catalogue.names()]
        parser.error(f"no case {word!r}{nearest(word, slugs)}; `jouleproxy truth list` shows all")
    return name


_RUN: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "serve": _serve,
    "attribute": _attribute,
    "explain": _explain,
    "devices": _devices,
    "agent": _agent,
    "demo": _demo,
    "truth": _truth,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console script; return the exit status.

    Args:
        arguments: Command line without the program's name; None: ``sys.argv``, and the standard streams of
            the process are protected.
    """
    if arguments is None:
        stdio.protect()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] == "--version":
        from importlib.metadata import version  # noqa: PLC0415 - slow, and rarely asked

        sys.stdout.write(f"jouleproxy {version('jouleproxy')}\n")
        return 0
    if not words or words[0] == "help":
        sys.stdout.write(_help())
        return 0 if words else 2
    command = "serve" if words[0].startswith("-") else words.pop(0)
    if command not in _RUN:
        sys.stderr.write(f"jouleproxy: unknown command {command}{nearest(command, _RUN)}\n")
        return 2
    try:
        status = _RUN[command](words)
    except ConfigError as error:
        sys.stderr.write(f"jouleproxy: {error}\n")
        return 2
    lost = stdio.failure(sys.stdout)
    if lost is None or lost.errno == errno.EPIPE:  # a reader that has closed the pipe is not a failure
        return status
    sys.stderr.write(f"jouleproxy: standard output: {lost.strerror}\n")
    return status if command == "serve" else status or 2
