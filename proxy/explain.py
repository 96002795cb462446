"""``jouleproxy explain``: show where the energy of a run went, and why two runs differ.

A run is a ledger file (``--ledger``) or a timeline (``--record``), distinguished by their first readable
line, plain or compressed. A timeline is attributed first, so that accounts of devices and fitted terms are
also available.

Two runs are compared by joules per output token. The difference is the exact sum of the differences of the
parts. The difference of the prompt's part is divided further: the difference in prompt tokens per output
token at the other run's price, and the rest, which is the difference in price.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from proxy.core.attribution import Attributor
from proxy.core.events import Arrive, End
from proxy.core.ledger import with_share
from proxy.core.timeline import TimelineError, TimelineReader
from proxy.schema import DeviceAccount, ModelTerms, Parts, RequestEnergy, decode_request, sum_parts
from proxy.timeline_file import FileError, lines, read_blocks
from proxy.units import NS_PER_SECOND, seconds_from_ns

PARTS: Final = Parts.__struct_fields__
_MOST: Final = 5  # rows of the most expensive requests; reports of unreadable lines
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True)
class Run:
    """The records of a run; of a timeline also the accounts of devices and the fitted terms."""

    name: str
    records: list[RequestEnergy]
    accounts: list[DeviceAccount] = field(default_factory=list)
    terms: list[ModelTerms] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # lines that could not be read


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the requests with completely known energy and output tokens.

    Attributes:
        requests: Their number.
        joules: Their energy.
        parts: Energy by part, without unknown parts; empty if the policy has no parts.
        output_tokens: Their output tokens.
        computed_tokens: Prompt tokens without those read from the prefix cache; None if unknown.
        at_once: Mean number of requests in progress; None if unknown.
    """

    requests: int
    joules: float
    parts: dict[str, float]
    output_tokens: int
    computed_tokens: int | None
    at_once: float | None

    def per_token(self, joules: float) -> float:
        """Return joules per output token."""
        return joules / self.output_tokens


def load(path: Path, policy: str) -> Run:
    """Read a ledger or a timeline; raises ``OSError``, :class:`FileError`."""
    if _is_ledger(path):
        return _ledger(path)
    try:
        return _timeline(path, policy)
    except TimelineError as error:
        raise FileError(f"{path}:{error.line}: {error.reason}") from error


def _is_ledger(path: Path) -> bool:
    """Return whether the first line that is a JSON object is a record; lines before it may be incomplete."""
    with contextlib.closing(lines(path)) as found:
        for line in found:
            try:
                keys = _OBJECT.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            return "request_id" in keys and "type" not in keys
    return False


def _ledger(path: Path) -> Run:
    """Read all valid lines: a crash or a full disk leaves an incomplete line in front of valid ones."""
    run = Run(path.name, [])
    skipped: list[str] = []
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            run.records.append(decode_request(line))
        except msgspec.ValidationError as error:
            skipped.append(f"{path.name}:{number}: not a record, skipped: {error}")
        except (msgspec.DecodeError, UnicodeDecodeError):
            skipped.append(f"{path.name}:{number}: incomplete line skipped")
    run.notes = skipped[:_MOST]
    if len(skipped) > _MOST:
        run.notes.append(f"{path.name}: {len(skipped)} lines were skipped in total")
    if not run.records:
        raise FileError(f"{path}: no line is a complete record: {skipped[0].partition(': ')[2]}")
    return run


def _timeline(path: Path, policy: str) -> Run:
    reader, core = TimelineReader(), Attributor(policy=policy)
    run = Run(path.name, [])
    open_: dict[str, RequestEnergy] = {}
    for events in read_blocks(path, reader):
        for event in events:
            match event:
                case Arrive():
                    open_[event.request] = _begun(event)
                case End() if event.request in open_:
                    open_[event.request] = _ended(open_[event.request], event)
            core.feed(event)
        _collect(run, core, open_)
    core.flush()
    _collect(run, core, open_)
    run.accounts = core.accounts()
    if reader.torn is not None:
        run.notes.append(f"{path.name}:{reader.torn}: incomplete line skipped")
    run.terms = core.terms() if policy == "steps" else []
    return run


def _collect(run: Run, core: Attributor, open_: dict[str, RequestEnergy]) -> None:
    for share in core.drain():
        run.records.append(with_share(open_.pop(share.request), share))


def _begun(arrive: Arrive) -> RequestEnergy:
    return RequestEnergy(
        request_id=arrive.request,
        route=arrive.route,
        model=arrive.model,
        backend=arrive.backend,
        tenant=arrive.tenant,
        start_unix_ns=arrive.t_ns,
    )


def _ended(record: RequestEnergy, end: End) -> RequestEnergy:
    return msgspec.structs.replace(
        record,
        status=end.status,
        duration_s=seconds_from_ns(end.t_ns - record.start_unix_ns),
        prompt_tokens=end.prompt_tokens,
        cached_tokens=end.cached_tokens,
        output_tokens=end.completion_tokens,
    )


def totals(records: list[RequestEnergy]) -> Totals | None:
    """Return the sums; None if no request has both known energy and output tokens."""
    known = [r for r in records if r.unknown is None and r.joules is not None and r.output_tokens]
    if not known:
        return None
    parted = [r.parts for r in known if r.parts is not None]
    summed = sum_parts(parted) if len(parted) == len(known) else None
    parts = {name: value for name in PARTS if (value := getattr(summed, name, None)) is not None}
    lived = [(r.start_unix_ns, r.duration_s) for r in known if r.duration_s is not None]
    computed = [_computed_tokens(r) for r in known]
    span = max((s + d * NS_PER_SECOND for s, d in lived), default=0) - min((s for s, _ in lived), default=0)
    return Totals(
        len(known),
        sum(r.joules or 0.0 for r in known),
        parts,
        sum(r.output_tokens or 0 for r in known),
        None if None in computed else sum(tokens or 0 for tokens in computed),
        sum(d for _, d in lived) * NS_PER_SECOND / span if span > 0 and len(lived) == len(known) else None,
    )


def _computed_tokens(record: RequestEnergy) -> int | None:
    """Return the prompt tokens without cached ones; None if the counts are missing or contradictory.

    An engine that reports no cached tokens counts as having none.
    """
    cached = record.cached_tokens or 0
    if record.prompt_tokens is None or cached > record.prompt_tokens:
        return None
    return record.prompt_tokens - cached


def describe(run: Run) -> Iterator[str]:
    """Yield the report of one run, line by line."""
    reasons = Counter(r.unknown for r in run.records if r.unknown is not None)
    names = {r.source for r in run.records if r.source} | {a.source for a in run.accounts if a.source}
    sources = ", ".join(sorted(names)) or "unknown"
    unknown = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    yield f"{run.name}: {len(run.records)} requests, energy source {sources}"
    if unknown:
        yield f"  energy unknown or only partly known: {unknown}"
    for account in run.accounts:
        if account.start_ns is None:
            yield f"  {account.device}: unknown, no energy was read"
            continue
        yield (
            f"  {account.device}: {account.measured_joules:.6g} J measured = requests "
            f"{account.requests_joules:.6g} + idle {account.idle_joules:.6g} + unattributed "
            f"{account.unattributed_joules:.6g}" + (f"; {len(account.gaps)} gaps" if account.gaps else "")
        )
    total = totals(run.records)
    if total is None:
        yield "  no request has both known energy and output tokens: nothing to explain"
        return
    if others := [
        r for r in run.records if r.unknown is None and r.joules is not None and not r.output_tokens
    ]:
        joules = sum(r.joules or 0.0 for r in others)
        yield f"  {len(others)} without output tokens: {joules:.6g} J, not included below"
    at_once = "" if total.at_once is None else f", {total.at_once:.3g} at once"
    yield (
        f"  {total.requests} known: {total.joules:.6g} J, {total.joules / total.requests:.4g} J/request, "
        f"{total.per_token(total.joules):.4g} J/output token{at_once}"
    )
    if total.parts:
        yield "  where they go:"
        for name, joules in total.parts.items():
            yield f"    {name:11} {joules:12.6g} J {100 * joules / (total.joules or 1.0):6.2f} %"
        if total.parts.get("unseparated"):
            yield "    unseparated: load or responses varied too little to divide this energy into its parts"
    else:
        yield "  the policy of these records has no parts"
    for terms in run.terms:
        yield from _fitted(terms)
    yield from _groups(run.records)
    yield from _most_expensive(run.records)


def _fitted(terms: ModelTerms) -> Iterator[str]:
    """Yield the fitted terms, and which of them this load cannot separate."""
    rows = {
        "static": (terms.static_j, terms.static_sd_j, "J/step"),
        "prefill": (terms.prefill_j, terms.prefill_sd_j, "J/computed prompt token"),
        "decode": (terms.decode_j, terms.decode_sd_j, "J/token"),
        "context": (terms.context_j, terms.context_sd_j, "J/token of context"),
    }
    yield f"  fitted terms of {terms.group}:"
    for name, (value, sd, unit) in rows.items():
        if value is None:
            yield f"    {name:8} unknown: {'never observed' if sd is None else 'not separable from others'}"
        else:
            yield f"    {name:8} {value:12.4g} +- {sd or 0.0:.2g} {unit}"
    if terms.unseparated:
        unsure = ", ".join(terms.unseparated)
        yield f"    load varied too little to separate {unsure} from the rest: only the sum is reliable"


def _groups(records: list[RequestEnergy]) -> Iterator[str]:
    for title, of in (("model", lambda r: r.model), ("tenant", lambda r: r.tenant)):
        yield from _group(title, records, of)


def _group(
    title: str, records: list[RequestEnergy], of: Callable[[RequestEnergy], str | None]
) -> Iterator[str]:
    names = {of(record) for record in records}
    if len(names) < 2:
        return
    yield f"  by {title}:"
    for name in sorted(names, key=str):
        total = totals([record for record in records if of(record) == name])
        if total is None:
            yield f"    {name or '-':24} unknown: no request has both known energy and output tokens"
        else:
            each = total.per_token(total.joules)
            yield f"    {name or '-':24} {total.joules:12.6g} J {each:10.4g} J/output token"


def _most_expensive(records: list[RequestEnergy]) -> Iterator[str]:
    known = sorted((r for r in records if r.joules is not None), key=lambda r: -(r.joules or 0.0))
    yield "  the most expensive requests:"
    for r in known[:_MOST]:
        prompt, output = ("-" if n is None else n for n in (r.prompt_tokens, r.output_tokens))
        tokens = f"{prompt} prompt, {output} output tokens"
        yield f"    {r.request_id:24} {r.joules:12.6g} J  {tokens}"


@dataclass(frozen=True, slots=True)
class Cause:
    """One row of a comparison: joules per output token of a part in both runs, and the reason."""

    name: str
    here: float
    there: float
    why: str = ""


def causes(here: Totals, there: Totals) -> list[Cause]:
    """Return the difference in joules per output token by part; the rows add up to it.

    Parts that are unknown in one or both runs are one row, ``unseparated``. Empty if a run has no parts.
    """
    if not here.parts or not there.parts:
        return []
    common = [name for name in PARTS if name in here.parts and name in there.parts and name != "unseparated"]
    found = []
    for name in common:
        ours, theirs = here.per_token(here.parts[name]), there.per_token(there.parts[name])
        why = {"static": _batching, "prefill": _prompts}.get(name)
        found.append(Cause(name, ours, theirs, why(here, there) if why else ""))
    rest = [sum(j for name, j in run.parts.items() if name not in common) for run in (here, there)]
    if any(rest):
        found.append(Cause("unseparated", here.per_token(rest[0]), there.per_token(rest[1])))
    return found


def _batching(here: Totals, there: Totals) -> str:
    if here.at_once is None or there.at_once is None:
        return ""
    return (
        f"{here.at_once:.3g} requests at once, there {there.at_once:.3g}: requests in a step share its cost"
    )


def _prompts(here: Totals, there: Totals) -> str:
    if here.computed_tokens is None or there.computed_tokens is None:
        return "the number of prompt tokens is unknown"
    ours, theirs = here.computed_tokens / here.output_tokens, there.computed_tokens / there.output_tokens
    if not here.computed_tokens or not there.computed_tokens:
        return f"{ours:.3g} computed prompt tokens each, there {theirs:.3g}"
    price = there.parts["prefill"] / there.computed_tokens
    amount = (ours - theirs) * price
    rest = here.per_token(here.parts["prefill"]) - there.per_token(there.parts["prefill"]) - amount
    return (
        f"{ours:.3g} computed prompt tokens each, there {theirs:.3g}: {amount:+.3g} by their number, "
        f"{rest:+.3g} by their price"
    )


def compare(run: Run, other: Run) -> Iterator[str]:
    """Yield the comparison of the energy per output token of two runs, line by line."""
    here, there = totals(run.records), totals(other.records)
    if here is None or there is None:
        yield "not comparable: one of the runs has no request with known energy and output tokens"
        return
    ours, theirs = here.per_token(here.joules), there.per_token(there.joules)
    change = f" ({100 * (ours / theirs - 1):+.1f} %)" if theirs else ""
    yield (
        f"{run.name} takes {ours:.4g} J/output token, {other.name} {theirs:.4g}: {ours - theirs:+.4g}{change}"
    )
    found = causes(here, there)
    for cause in found:
        row = f"  {cause.name:11} {cause.here:10.4g} {cause.there:10.4g} {cause.here - cause.there:+10.4g}"
        yield f"{row}  {cause.why}".rstrip()
    if not found:
        yield "  no parts to compare: use the policy steps or tokens"


def run(path: Path, other: Path | None, policy: str) -> int:
    """Run the command; return exit status 0, or 2 after ``file:line: reason`` on stderr."""
    try:
        runs = [load(one, policy) for one in (path, other) if one is not None]
    except FileError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or path}: {error.strerror or error}")
    for one in runs:
        sys.stderr.writelines(f"{note}\n" for note in one.notes)
    shown = [line for one in runs for line in describe(one)]
    shown += compare(*runs) if len(runs) == 2 else []
    sys.stdout.write("\n".join(shown) + "\n")
    return 0


def _fail(reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return 2
