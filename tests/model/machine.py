"""Random sequences of mail, commands, faults and clock steps, as a state machine of hypothesis."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from model.letters import COLLEAGUE, CROWD, OUTSIDER, SENDERS, Letter, Taken, make_policy
from model.listener import Answer
from model.postfix import Listing
from model.sums import Sums
from model.world import KEY, Faults, World
from undisclosed.incidents.records import OPEN, QueueCopy, ReleaseMode
from undisclosed.journal import migrate
from undisclosed.policy.sections import JournalSection

MEMORY: Final = Path("/dev/shm")
"""A directory in memory, if there is one: the journal syncs each transaction."""

DAY: Final = 86400.0

SENDERS_OF_ALL_KINDS: Final = (*SENDERS, *SENDERS[:3], "", OUTSIDER)
RECIPIENTS: Final = ((CROWD[0],), CROWD[:2], CROWD[:3], (*CROWD[:3], COLLEAGUE), CROWD[2:5])
ANSWERS: Final[tuple[Answer, ...]] = ("451", "550", "no answer", "no answer, not taken", "451 to RCPT", "250")
LISTINGS: Final[tuple[Listing, ...]] = ("lacks one", "lists one twice", "has a row that cannot be read", "fails")

MUST_REACH: Final = (
    "mail held",
    "mail rewritten",
    "repeat or another part",
    "other text",
    "released as bcc",
    "released as split",
    "released as unchanged",
    "deleted by request",
    "expired",
    "killed",
    "journal locked",
    "steward away",
    "clock step",
    "notice reminder",
    "by hand -H",
    "by hand -d",
    "by hand -h",
    "by hand -r",
    "listener: no answer",
    "sendmail failed",
)
"""The events that a long run must have reached: it proves nothing about those it did not."""

MAINTENANCE: Final = ("the steward is restarted", "another steward", "queue ids change their form")

several = st.integers(0, 7)
senders = st.sampled_from(SENDERS_OF_ALL_KINDS)
recipients = st.sampled_from(RECIPIENTS)
signs = st.sampled_from(("", "", "", "Precedence: bulk", "List-Id: <a.council.test>", "Auto-Submitted: auto-generated"))
ways = st.sampled_from(("smtp", "smtp", "smtp", "smtp", "smtp", "sendmail", "access", "gone", "unrecorded", "used id"))
bodies = st.sampled_from(("plain", "plain", "plain", "encrypted"))
troubles = st.one_of(
    st.just(("none",)),
    st.just(("none",)),
    st.tuples(st.just("the steward dies after so many steps"), st.integers(1, 60)),
    st.tuples(st.just("these writes fail"), st.integers(1, 12), st.integers(0, 12)),
    st.tuples(st.just("the listener answers"), st.sampled_from(ANSWERS), st.sampled_from(ANSWERS)),
    st.tuples(st.just("sendmail fails"), st.integers(1, 3)),
    st.tuples(st.just("the listing"), st.sampled_from(LISTINGS)),
)
"""The faults while the steward works."""


class Machine(RuleBasedStateMachine):
    """One gateway, its people, and whatever breaks."""

    counted: ClassVar[Counter[str]] = Counter()
    """The events that the sequences of this process have reached."""
    template: ClassVar[Path | None] = None

    def __init__(self) -> None:
        super().__init__()
        base = MEMORY if MEMORY.is_dir() else None
        self.directory = Path(tempfile.mkdtemp(prefix="undisclosed-model-", dir=base))
        self.world = World(self.directory, self._template(), self._count)
        self.sums = Sums(self.world)
        self.letters: list[Letter] = []

    @classmethod
    def _template(cls) -> Path:
        """An empty journal, made once: the migrations take longer than a sequence."""
        if cls.template is None:
            cls.template = Path(tempfile.mkdtemp(prefix="undisclosed-model-")) / "journal.db"
            migrate.upgrade(JournalSection(url=f"sqlite:///{cls.template}"), KEY)
        return cls.template

    @classmethod
    def _count(cls, name: str) -> None:
        cls.counted[name] += 1

    def teardown(self) -> None:
        """Everything settles; then the sums are taken once more."""
        try:
            if sys.exc_info()[0] is None:  # else a step has failed, and this is called on the way out
                self._settle()
        finally:
            self.world.close()
            shutil.rmtree(self.directory)

    def _settle(self) -> None:
        """No more faults: whatever was begun ends."""
        self.world.faults = Faults()
        self.world.postfix.listing = "whole"
        self.world.start()
        behind = max(0.0, (self.world.latest - self.world.wall).total_seconds())  # notices are due by the wall clock
        for seconds in (60, behind, 900, 4000, 4000, 1.1 * DAY):
            self.world.work_long(seconds, pieces=1 + int(seconds / DAY))
            self.sums.check()
        self.sums.check_told()

    def _done(self) -> None:
        self._count("step")
        self.sums.check()

    # -- mail

    @rule(
        sender=senders,
        crowd=st.sampled_from((True, True, True, True, False)),
        to=recipients,
        sign=signs,
        way=ways,
        body=bodies,
        named=st.booleans(),
    )
    def mail(self, sender: str, crowd: bool, to: tuple[str, ...], sign: Any, body: Any, named: bool, way: str) -> None:
        """A new letter."""
        message_id = len(self.letters) if named else None
        self._send(self._letter(sender=sender, crowd=crowd, message_id=message_id, sign=sign, body=body), to, way)

    @precondition(lambda self: self.letters)
    @rule(which=several, to=recipients, is_other=st.booleans())
    def again(self, which: int, to: tuple[str, ...], is_other: bool) -> None:
        """An earlier letter once more (a repeat, or other recipients of it), or another text with its Message-ID."""
        letter = self.letters[-1 - which % len(self.letters)]
        if is_other:
            letter = self._letter(sender=letter.sender, crowd=True, message_id=letter.message_id)
        self._count("other text" if is_other else "repeat or another part")
        self._send(letter, to, "smtp")

    def _letter(self, **values: Any) -> Letter:
        letter = Letter(number=len(self.letters) + 1, **values)
        self.letters.append(letter)
        return letter

    def _send(self, letter: Letter, to: tuple[str, ...], way: str) -> None:
        self.world.faults.milter_journal_fails = way == "unrecorded"
        self.world.send(
            letter,
            to,
            by_access=way == "access",
            by_sendmail=way == "sendmail",
            leaves=way == "gone",
            reuse=self._free_id() if way == "used id" else "",
        )
        self.world.faults.milter_journal_fails = False
        self._done()

    def _free_id(self) -> str:
        """A queue id that an earlier file had: Postfix uses short ones again."""
        used = {taken.file.queue_id for taken in self.world.taken} - set(self.world.postfix.files)
        return max(used, default="")

    # -- time

    @precondition(lambda self: self.letters)
    @rule(seconds=st.sampled_from((0.1, 5, 30, 400)), trouble=troubles)
    def work(self, seconds: float, trouble: tuple[Any, ...]) -> None:
        """The steward makes its rounds. One that was killed is started again."""
        self._work(seconds, trouble)
        self._done()

    def _work(self, seconds: float, trouble: tuple[Any, ...]) -> None:
        self.world.start()
        faults = self.world.faults
        match trouble:
            case ["the steward dies after so many steps", steps]:
                faults.dies_in = steps
            case ["these writes fail", first, others]:
                self.world.lock_journal(*range(first, first + others + 1))
            case ["the listener answers", *some]:
                faults.listener = list(some)
            case ["sendmail fails", times]:
                faults.sendmail_fails = times
            case ["the listing", kind]:
                self.world.postfix.listing = kind
        self.world.work(seconds)

    @precondition(lambda self: self.world.holds)
    @rule(days=st.sampled_from((0.1, 1, 1, 2, 5)), away=st.sampled_from((False, False, False, True)))
    def days_pass(self, days: float, away: bool) -> None:
        """Days without anything else. The steward works, or is away."""
        if away:
            self.world.stop()
            self.world.tick(days * DAY)
            self.world.wandered = True
            self._count("steward away")
        else:
            self.world.start()
            self.world.work_long(days * DAY)
            self._count("days of work")
        self._done()

    @precondition(lambda self: self.world.holds)
    @rule(hours=st.sampled_from((-48, -1, 1, 25, 400)), back=st.booleans())
    def clock_steps(self, hours: float, back: bool) -> None:
        """The wall clock is wrong, perhaps for half a minute only."""
        self.world.start()
        self.world.wall += timedelta(hours=hours)
        self.world.work(30)
        if back:
            self.world.wall -= timedelta(hours=hours)
        self.world.wandered |= abs(hours) > 300
        self._count("clock step")
        self._done()

    # -- people

    @precondition(lambda self: self.world.holds)
    @rule(
        which=several,
        choice=st.sampled_from(("bcc", "bcc", "split", "unchanged", "delete")),
        actor=st.sampled_from(("admin", "admin", "sender")),
        trouble=troubles,
    )
    def ask(self, which: int, choice: str, actor: str, trouble: tuple[Any, ...]) -> None:
        """A command releases or deletes held mail, and the steward acts on it."""
        shown = self._shown(which)
        if shown is not None:
            self._ask(shown, choice, actor)
        self._work(0.1, trouble)
        self._done()

    def _shown(self, which: int) -> list[QueueCopy] | None:
        """The open copies of an incident, as a command shows them."""
        found = [
            copies
            for incident in self.world.journal.incidents.search()
            if (copies := [copy for copy in incident.copies if copy.state in OPEN])
        ]
        return found[which % len(found)] if found else None

    def _ask(self, copies: list[QueueCopy], choice: str, actor: str) -> None:
        verb: Literal["release", "delete"] = "delete" if choice == "delete" else "release"
        mode: ReleaseMode | None = None if choice == "delete" else choice  # type: ignore[assignment]  # one of them
        ids = [copy.id for copy in copies]
        made = self.world.journal.held.ask(ids, verb=verb, mode=mode, actor=actor, reason="the model")
        asked = {request.copy_id for request in made}
        for taken in (taken for copy in copies if copy.id in asked for taken in self._meant(copy)):
            taken.asked.add(verb)
            taken.unchanged |= mode == "unchanged" and actor == "admin"
        self._count(f"asked: {choice}")

    def _meant(self, copy: QueueCopy) -> list[Taken]:
        return [
            taken
            for taken in self.world.taken
            if copy.queue_id in (taken.first_id, taken.file.queue_id)
            and abs(taken.arrived - copy.arrived) < timedelta(seconds=5)
        ]

    @precondition(lambda self: self.world.postfix.files)
    @rule(
        option=st.sampled_from(("-h", "-H", "-r", "-d")),
        which=several,
        everything=st.sampled_from((False, False, False, True)),
    )
    def by_hand(self, option: str, which: int, everything: bool) -> None:
        """An administrator uses postsuper."""
        files = list(self.world.postfix.files.values())
        if option == "-h" and everything:
            for taken in self.world.taken:
                taken.stopped |= taken.file in files and taken.file.queue != "hold"
        queue_id = "ALL" if everything else files[which % len(files)].queue_id
        self.world.postfix.run("postsuper", option, queue_id)
        self.world.note_deleted(by_steward=False)
        self._count(f"by hand {option}")
        self._done()

    @precondition(lambda self: self.letters)
    @rule(
        turn=st.integers(0, 5),
        days=st.sampled_from((1, 2, 14, 14)),
        end=st.sampled_from(("delete", "delete", "keep")),
    )
    def policy_changes(self, turn: int, days: int, end: str) -> None:
        """Another policy comes into force."""
        hold = {"expire_days": days, "on_expiry": end}
        self.world.policy = make_policy(turn, self.world.journal_settings, hold=hold)
        self.world.shortest_hold = min(self.world.shortest_hold, days)
        self._done()

    @precondition(lambda self: self.world.holds)
    @rule(what=st.sampled_from(MAINTENANCE))
    def maintenance(self, what: str) -> None:
        """The administrator does what should change nothing."""
        if what == "the steward is restarted":
            self.world.stop()
            self.world.start()
        elif what == "another steward":
            self.world.start()
            self.world.start_another()
        else:
            self.world.postfix.rename()
            self.world.wandered = True
        self._count(what)
        self._done()
