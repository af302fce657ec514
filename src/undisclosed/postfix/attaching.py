"""`undisclosed postfix attach | detach | status`.

attach puts our milter first in smtpd_milters and non_smtpd_milters, turns long queue ids on, and writes the listener
for released mail into master.cf (`master_cf.py`). detach undoes it, except for settings that were changed
since. status checks whether mail can bypass our milter.

attach keeps a record beside main.cf (`undisclosed-attach.json`): the text of main.cf without our settings, and a digest
of the text with them. If the file was not edited since, detach restores it byte for byte.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from undisclosed.policy import Mode, Policy
from undisclosed.policy.types import Socket
from undisclosed.postfix import master_cf, other_holds
from undisclosed.postfix.assessment import Expected, assess, check_mode, check_signer, filter_returns_mail_to_us
from undisclosed.postfix.config_files import RECORD, PostfixError, Writer, locked, read_record
from undisclosed.postfix.log_check import check_log
from undisclosed.postfix.milter_lists import (
    ListError,
    OurMilter,
    UnwritableSocket,
    milters,
    our_milter,
    with_ours_first,
    without_ours,
)
from undisclosed.postfix.model import Finding, Level, PostfixConfig
from undisclosed.postfix.postconf import Postconf
from undisclosed.postfix.probe import find_account, probe
from undisclosed.postfix.reachability import targets
from undisclosed.postfix.tables import read_tables

__all__ = ["Finding", "Level", "ParameterChange", "Plan", "PostfixError", "attach", "detach", "other_holders", "status"]

LISTS = ("smtpd_milters", "non_smtpd_milters")
LONG_IDS = "enable_long_queue_ids"
OURS = (*LISTS, LONG_IDS, master_cf.MILTERS)
"""The parameters that attach sets, in the order in which it appends them."""


class ParameterChange(NamedTuple):
    """A parameter of main.cf, or a service of master.cf, that changes; None where the file does not have it."""

    file: Path
    parameter: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class Plan:
    """The changes that a command makes, or would make.

    `changes` are those of main.cf, `services` those of master.cf; `diff` is the unified difference of both files,
    `notes` are remarks on the changes, `findings` the problems that `status` would see afterwards, `next_steps` what is
    left for the administrator to do.
    """

    changes: tuple[ParameterChange, ...]
    services: tuple[ParameterChange, ...]
    diff: str
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    next_steps: tuple[str, ...]
    written: bool

    @property
    def summary(self) -> str:
        """The changes with old and new values; before they are written, the difference of the files too."""
        lines = []
        for change in (*self.changes, *self.services):
            lines.append(f"{change.file}: {change.parameter}")
            for word, value in (("was", change.old), ("is" if self.written else "will be", change.new)):
                lines.append(f"  {word:<9}{'(not set)' if value is None else value or '(empty)'}")
        if self.diff and not self.written:
            lines.append(self.diff.rstrip("\n"))
        return _shown("\n".join(lines).encode("utf-8", "surrogateescape"))


@dataclass(frozen=True)
class Record:
    """The record of an attach: our endpoint, main.cf without our settings, a digest of it with them, both values."""

    endpoint: str
    before: bytes
    after: str
    changes: Mapping[str, tuple[str | None, str | None]]

    def dump(self) -> bytes:
        """The record as indented JSON."""
        text = self.before.decode("utf-8", "surrogateescape")
        changes = {name: {"old": old, "new": new} for name, (old, new) in self.changes.items()}
        content = {"format": 1, "endpoint": self.endpoint, "after": self.after, "changes": changes, "before": text}
        return json.dumps(content, indent=1).encode("ascii") + b"\n"


def _load(text: bytes, file: Path) -> Record:
    try:
        content = json.loads(text)
        if content["format"] != 1:
            raise ValueError(content["format"])
        changes = {name: (change["old"], change["new"]) for name, change in content["changes"].items()}
        before = content["before"].encode("utf-8", "surrogateescape")
        return Record(content["endpoint"], before, content["after"], changes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fix = "remove it; detach then removes our milter from the lists and leaves the other settings as they are"
        raise PostfixError(file, "is not a record that attach wrote", fix) from error


def attach(policy: Policy, config_dir: Path, dry_run: bool) -> Plan:
    """Put our milter first in both lists of main.cf. Raises PostfixError."""
    plan = _change(policy, config_dir, dry_run, _Command(_attached, master_cf.with_listener))
    return replace(plan, findings=tuple(finding for finding in plan.findings if finding.level is Level.PROBLEM))


def detach(policy: Policy, config_dir: Path, dry_run: bool, *, anyway: bool = False) -> Plan:
    """Undo the changes of attach, except for settings that were changed since. Raises PostfixError.

    It does not while mail is held, but with `anyway`: the listener for releases goes, and Postfix may rename the held
    files at the next reload.
    """
    Postconf(config_dir).check()
    held = count_held(config_dir)
    messages = "1 message is" if held == 1 else f"{held} messages are"
    problem = f"{messages} on hold, and can be released only while the milter is attached"
    if held and not (anyway or dry_run):
        fix = "release or delete them first (undisclosed held list), or say --anyway"
        raise PostfixError(config_dir, problem, fix)
    plan = _change(policy, config_dir, dry_run, _Command(_detached, master_cf.without_listener))
    notes = (*plan.notes, f"{problem}.") if held else plan.notes
    return replace(plan, notes=notes, findings=())  # that mail bypasses our milter is intended


def count_held(config_dir: Path) -> int:
    """The number of messages on hold. Raises PostfixError."""
    hold = Path(Postconf(config_dir).expanded(["queue_directory"])["queue_directory"], "hold")
    try:
        return sum(len(files) for _, _, files in os.walk(hold, onerror=_raise))
    except FileNotFoundError:
        return 0  # this Postfix was never started
    except OSError as error:
        raise PostfixError(hold, f"cannot be read ({error.strerror})", "run the command as root") from error


def _raise(error: OSError) -> None:
    raise error


def status(policy: Policy, config_dir: Path) -> list[Finding]:
    """All findings; mail can bypass our milter if any of them is a problem. Raises PostfixError."""
    postconf = Postconf(config_dir)
    postconf.check()
    config = postconf.config()
    ours = _our_milter(policy, config, None, postconf)
    return [*_findings(policy, postconf, config, ours), check_log(postconf, len(_that_can_hold(config, ours)))]


def other_holders(policy: Policy) -> list[str]:
    """The names of all that can put mail on hold beside our milter. Raises PostfixError."""
    postconf = Postconf(policy.postfix.config_dir)
    config = postconf.config()
    found = _that_can_hold(config, _our_milter(policy, config, None, postconf))
    return [holder.name for holder in found]


def _that_can_hold(config: PostfixConfig, ours: OurMilter) -> list[other_holds.Holder]:
    found = other_holds.holders(config, ours)
    return other_holds.may_hold(found, read_tables(other_holds.tables(found)))


# -- attach and detach -------------------------------------------------------------------------------------------------


class _Files(NamedTuple):
    """The text of both files."""

    main_cf: bytes
    master_cf: bytes


class _Writers(NamedTuple):
    """The right to write each of the files."""

    main_cf: Writer
    master_cf: Writer


class _MainResult(NamedTuple):
    """The new main.cf, the new record (None: no record), and remarks."""

    main_cf: bytes
    record: Record | None
    notes: tuple[str, ...]


class _Command(NamedTuple):
    """The functions by which attach or detach changes each file."""

    to_main: Callable[[Postconf, OurMilter, bytes, Record | None], _MainResult]
    to_master: Callable[[bytes], bytes]


def _change(policy: Policy, config_dir: Path, dry_run: bool, command: _Command) -> Plan:
    postconf = Postconf(config_dir)
    postconf.check()
    with ExitStack() as stack:
        writers = (
            None
            if dry_run
            else _Writers(*(stack.enter_context(locked(file, postconf.directory)) for file in postconf.files))
        )
        now, recorded = _Files(postconf.read(), postconf.read_master()), read_record(postconf.directory)
        record = _load(recorded, postconf.directory / RECORD) if recorded is not None else None
        ours = _our_milter(policy, postconf.config(), record, postconf)
        try:
            result = command.to_main(postconf, ours, now.main_cf, record)
        except ListError as error:
            fix = "correct the milter lists (see: postfix check), then run the command again"
            raise PostfixError(postconf.main_cf, str(error), fix) from error
        wanted = _Files(result.main_cf, command.to_master(now.master_cf))
        with postconf.draft(*wanted) as then:
            changes, services = _changes(postconf, then), tuple(_service_changes(postconf, then))
            findings = tuple(_findings(policy, then, then.config(), ours))
        if writers is not None:
            _write(writers, now, wanted, result.record, record)
    diff = "".join(_diff(file, old, new) for file, old, new in zip(postconf.files, now, wanted, strict=True))
    steps = _next_steps(postconf.directory, dry_run, now != wanted)
    return Plan(changes, services, diff, result.notes, findings, steps, written=now != wanted and not dry_run)


def _write(writers: _Writers, now: _Files, wanted: _Files, record: Record | None, before: Record | None) -> None:
    """Write what differs, in an order that lets the next attach or detach continue after an interruption."""
    if record is not None and record != before:
        writers.main_cf.write_record(record.dump())
    if wanted.main_cf != now.main_cf:
        writers.main_cf.replace(wanted.main_cf)
    if wanted.master_cf != now.master_cf:
        writers.master_cf.replace(wanted.master_cf)
    if record is None and before is not None:
        writers.main_cf.remove_record()


def _draft(postconf: Postconf, main_cf: bytes) -> AbstractContextManager[Postconf]:
    """A draft with the listener in it: only then does postconf(1) report the parameter that the listener uses."""
    return postconf.draft(main_cf, master_cf.with_listener(postconf.read_master()))


def _attached(postconf: Postconf, ours: OurMilter, now: bytes, record: Record | None) -> _MainResult:
    notes: list[str] = []
    with _draft(postconf, now) as draft:
        start = draft.read()
        for name in LISTS:
            raw, expanded = draft.raw([name]).get(name, ""), draft.expanded([name])[name]
            edit = with_ours_first(raw, expanded, ours)
            if edit is None:
                continue
            draft.edit({name: edit.value})
            if edit.written_out:
                notes.append(f"{name} named our milter through a variable; its variables are replaced by their values.")
        if draft.expanded([LONG_IDS])[LONG_IDS].casefold() != "yes":
            draft.edit({LONG_IDS: "yes"})
        others = without_ours(draft.raw(LISTS).get(LISTS[0], ""), ours)
        if draft.raw([master_cf.MILTERS]).get(master_cf.MILTERS) != others:
            draft.edit({master_cf.MILTERS: others})
        then = draft.read()
        if then == start:
            return _MainResult(now, record, ())
        base = _without_us(postconf, ours, now, record)
        with _draft(postconf, base) as draft_without_us:
            old, new = draft_without_us.raw(OURS), draft.raw(OURS)
    changed = {name: (old.get(name), new.get(name)) for name in OURS if old.get(name) != new.get(name)}
    return _MainResult(then, Record(ours.endpoint, base, _digest(then), changed), tuple(notes))


def _detached(postconf: Postconf, ours: OurMilter, now: bytes, record: Record | None) -> _MainResult:
    base = _without_us(postconf, ours, now, record)
    notes = []
    if record is None and base != now:
        notes.append(f"There is no record of an attach: {LONG_IDS} and all other settings stay as they are.")
    elif record is not None and base != now and base != record.before:
        notes.append("main.cf has been edited since attach: only our settings are removed, all others stay.")
    with _draft(postconf, base) as then:
        config = then.config()
    for parameter in LISTS:
        if _names(ours, config.main[parameter]):
            notes.append(f"{parameter} still names our milter, through a variable: remove it there.")
    for service in config.running("smtpd", "cleanup"):
        for parameter in service.overrides.intersection(LISTS):
            if _names(ours, service.settings[parameter]):
                notes.append(f"{parameter} of {service.label} in master.cf still names our milter: remove it there.")
    return _MainResult(base, None, tuple(notes))


def _names(ours: OurMilter, value: str) -> bool:
    return any(ours.matches(milter) for milter in milters(value))


def _without_us(postconf: Postconf, ours: OurMilter, now: bytes, record: Record | None) -> bytes:
    """main.cf without our settings: the recorded bytes if the file was not changed, else parameter by parameter.

    After a crash between writing the record and writing main.cf, main.cf is still what the record has.
    """
    if record is not None and _digest(now) == record.after:
        return record.before
    if record is not None and now == record.before:
        return now
    changed = record.changes if record is not None else {}
    edits: dict[str, str | None] = {}
    with _draft(postconf, now) as draft:
        values = draft.raw(OURS)
        for name, value in values.items():
            old, new = changed.get(name, (None, None))
            if name in changed and value == new:
                edits[name] = old
            elif name in LISTS and (rest := without_ours(value, ours)) != value:
                edits[name] = rest if rest or (name in changed and old is not None) else None
            elif name == master_cf.MILTERS:
                edits[name] = None  # changed or not: nothing uses it any more
        if not edits:
            return now
        draft.edit(edits)
        return draft.read()


def _changes(postconf: Postconf, then: Postconf) -> tuple[ParameterChange, ...]:
    old, new = postconf.raw(OURS), then.raw(OURS)
    return tuple(
        ParameterChange(postconf.main_cf, name, old.get(name), new.get(name))
        for name in OURS
        if old.get(name) != new.get(name)
    )


def _service_changes(postconf: Postconf, then: Postconf) -> Iterator[ParameterChange]:
    file = next(file for file in postconf.files if file != postconf.main_cf)
    old, new = postconf.release_services(), then.release_services()
    for name in master_cf.OPTIONS:
        if old.get(name) != new.get(name):
            was, is_ = old.get(name), new.get(name)
            texts = (was.besides(is_) if was else None, is_.besides(was) if is_ else None)
            yield ParameterChange(file, f"{name}/unix", *texts)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _diff(file: Path, old: bytes, new: bytes) -> str:
    before, after = ([_shown(line) for line in content.splitlines(keepends=True)] for content in (old, new))
    lines = difflib.unified_diff(before, after, fromfile=str(file), tofile=f"{file} (new)")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "replace")  # main.cf may have bytes that are not UTF-8


def _next_steps(directory: Path, dry_run: bool, differs: bool) -> tuple[str, ...]:
    if not differs:
        return ("Nothing to change.",)
    if dry_run:
        return ("Nothing has been written.",)
    return (f"Postfix works as before until you run: postfix -c {directory} reload",)


# -- the policy, the host and the drafts -------------------------------------------------------------------------------


def _our_milter(policy: Policy, config: PostfixConfig, record: Record | None, postconf: Postconf) -> OurMilter:
    endpoint = policy.milter.endpoint
    queue = config.main["queue_directory"]
    action = "accept" if policy.mode is Mode.MONITOR else "tempfail"
    formerly = (record.endpoint,) if record is not None else ()
    try:
        return our_milter(endpoint, _names_of(queue), action, resolved=_resolved(endpoint), formerly=formerly)
    except UnwritableSocket as error:
        raise PostfixError(postconf.main_cf, str(error), "choose another milter.socket in the policy") from error


def _names_of(directory: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((directory, os.path.realpath(directory))))


def _resolved(endpoint: Socket) -> str:
    return "" if endpoint.path is None else str(endpoint.path.parent.resolve() / endpoint.path.name)


def _findings(policy: Policy, postconf: Postconf, config: PostfixConfig, ours: OurMilter) -> list[Finding]:
    scope = policy.scope
    expected = Expected(ours, policy.mode is Mode.ENFORCE, scope.networks, scope.authenticated)
    places = {target: probe(target, config.main["queue_directory"]) for target in targets(config, ours)}
    raw = postconf.raw((LISTS[0], master_cf.MILTERS))
    try:
        others = without_ours(raw.get(LISTS[0], ""), ours)
    except ListError:
        others = ""  # assessment.py reports it
    there, looping = raw.get(master_cf.MILTERS, ""), filter_returns_mail_to_us(config, expected)
    releasing = master_cf.findings(postconf.release_services(), there, others, looping, config.directory)
    found = other_holds.holders(config, ours)
    return [
        *check_mode(expected.enforce),
        *assess(config, expected, places, find_account(config.main["mail_owner"])),
        *other_holds.findings(found, read_tables(other_holds.tables(found))),
        *check_signer(there, config.main["content_filter"], expected.enforce),
        *releasing,
    ]
