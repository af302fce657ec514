"""The cases, played to the real milter on its socket; a client of the tests stands for Postfix."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from miltertest import constants

from lab.milter import upgrade_journal
from support import casefile
from support.casefile import Case, Seen
from support.delivered_header import leaks
from undisclosed.decision.edits import Edit, HeaderChange, HeaderDeletion, HeaderInsertion
from wire.mta import FinalAnswer, Mta
from wire.running import Running

OUTCOMES = {"accept": "accepted", "hold": "held", "reject": "rejected"}


class Stage:
    """A milter that is reloaded for each other configuration."""

    def __init__(self, directory: Path) -> None:
        self._running = Running(directory, "unix")
        self._setting: object = None

    def play(self, case: Case) -> tuple[Seen, bytes | None]:
        """The answer of the milter, and the message as it would leave (None where it would not)."""
        if self._setting != case.setting:
            journal = self._running.journal
            case.configure(self._running.config, milter={"socket": self._running.socket}, journal=journal)
            if not self._running.milter.is_running:
                upgrade_journal(self._running.config)
            self._running.milter.start_or_reload()
            self._setting = case.setting
        before = len(self._running.milter.log(event="message"))
        with Mta(self._running.address).connect(case.client, case.port) as mta:
            final_answer = send(mta, case)
        [line] = self._running.milter.log(event="message")[before:]
        message = None if final_answer.word == "reject" else casefile.edited(case.message, edits(final_answer))
        outcome = "rewritten" if edits(final_answer) else OUTCOMES[final_answer.word]
        # On the wire a per cent sign is doubled; the MTA makes it one again.
        reply = final_answer.reply.replace("%%", "%").split("\r\n") if final_answer.reply else []
        return casefile.seen(
            case, line, outcome=outcome, stage=final_answer.stage, reply=reply, message=message
        ), message

    def close(self) -> None:
        """Stop the milter."""
        self._running.milter.stop()


def send(mta: Mta, case: Case) -> FinalAnswer:
    """The message, with header packets made by hand: `miltertest` sends no bytes that are not UTF-8."""
    mta.envelope(case.sender, case.recipients, login=case.login)
    for name, value in casefile.header_events(case.message):
        mta.packet(b"L" + name + b"\0" + value + b"\0")
    return mta.end_of_header() or mta.end_of_message(b"".join(casefile.body_events(case.message)))


def edits(final_answer: FinalAnswer) -> list[Edit]:
    """The header edits as the milter sent them: an empty value deletes."""
    made: list[Edit] = []
    for command, said in final_answer.edits:
        if command == constants.SMFIR_CHGHEADER:
            name, index, value = said["name"], said["index"], said["value"]
            made.append(HeaderChange(name, index, value) if value else HeaderDeletion(name, index))
        elif command == constants.SMFIR_ADDHEADER:
            made.append(HeaderInsertion(said["name"], said["value"]))
        else:
            assert command == constants.SMFIR_QUARANTINE
    return made


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The milter that plays the cases, in a directory with a short name (sun_path holds 108 bytes)."""
    directory = Path(tempfile.mkdtemp(prefix="udw"))
    stage = Stage(directory)
    yield stage
    stage.close()
    shutil.rmtree(directory)


@pytest.mark.parametrize("case", casefile.every_case(), ids=lambda case: case.name)
def test_case(case: Case, stage: Stage) -> None:
    """The answer is the one that the case expects; after a rewrite no outside address is visible."""
    actual, message = stage.play(case)
    assert actual == casefile.wanted(case)
    if actual.outcome == "rewritten":
        assert message is not None
        assert leaks(message, internal=casefile.internal(case), author=case.expected["author"]) == []
