"""The four sums of the model test, which must be zero. They ask Postfix's side only, and what people did.

`check` is called after each step, `check_told` at the end, when everything has settled.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final

from model.letters import ADMINISTRATOR, Letter, Taken, shown, transaction_number
from model.postfix import Delivery, File
from model.world import World

PAST: Final = 3600.0
"""Seconds for which the wall clock has been past the end of the hold."""

REMINDED: Final = 24 * 3600.0
"""Seconds of a running steward between the reminder and the deletion."""


class Sums:
    """Reads the deliveries and deletions of a world once, as they happen."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._delivered = 0
        self._served: set[tuple[int, str]] = set()
        """Letter and recipient who got it, in one transaction or in a repeat of it."""
        self._times: Counter[tuple[int, str]] = Counter()
        """How often the recipient of a transaction got it, except by hand."""
        self._ended: set[Taken] = set()
        """Transactions whose queue file a person, or the end of the hold, has removed."""
        self._by_hand: set[Taken] = set()
        world.on_deleted = self.deleted

    def check(self) -> None:
        """Shown more than allowed, delivered twice, taken and lost: none."""
        self._take_all()
        files = self._world.postfix.files.values()
        safe = self._safe()
        for taken in self._world.taken:
            if taken not in self._ended and taken.file not in files:
                lost = [recipient for recipient in taken.recipients if (taken.letter.number, recipient) not in safe]
                assert not lost, f"taken and lost: {taken.name} for {lost}"

    def _safe(self) -> set[tuple[int, str]]:
        """Letter and recipient who got it, or will get it from a file that Postfix has taken from the steward."""
        originals = {id(taken.file) for taken in self._world.taken}
        on_the_way = {
            (taken.letter.number, recipient)
            for file in self._world.postfix.files.values()
            if id(file) not in originals and (taken := self._taken(file.content)) is not None
            for recipient in file.recipients
        }
        return self._served | on_the_way

    def _take_all(self) -> None:
        deliveries = self._world.postfix.deliveries
        for delivery in deliveries[self._delivered :]:
            self._take(delivery)
        self._delivered = len(deliveries)

    def _take(self, delivery: Delivery) -> None:
        taken = self._taken(delivery.content)
        if taken is None:
            return
        own = set(delivery.recipients) if len(delivery.recipients) == 1 else set()
        seen = shown(delivery.content) - own
        if delivery.by_hand:
            self._by_hand.add(taken)
        elif not taken.may_show and not taken.unchanged:
            assert not seen, f"shown more than allowed: {taken.name} showed {sorted(seen)} to {delivery.recipients}"
        if not delivery.by_hand and taken.fate == "held" and (taken.stopped or not taken.recorded):
            assert "release" in taken.asked, f"sent although it was stopped: {taken.name}"
        if taken.fate == "held" and not delivery.by_hand:
            self._world.event(
                f"released as {'unchanged' if seen else 'split' if own & shown(delivery.content) else 'bcc'}"
            )
        for recipient in delivery.recipients:
            self._served.add((taken.letter.number, recipient))
            if taken in self._by_hand:
                continue
            self._times[taken.number, recipient] += 1
            is_doubtful = (taken.number, recipient) in self._world.doubtful
            assert self._times[taken.number, recipient] == 1 or is_doubtful, (
                f"delivered twice: {taken.name} to {recipient}"
            )

    def _taken(self, content: bytes) -> Taken | None:
        number = transaction_number(content)
        return next((taken for taken in self._world.taken if taken.number == number), None)

    # -- deletions

    def deleted(self, file: File, by_steward: bool) -> None:
        """A file was removed from the queue."""
        taken = self._taken(file.content)
        if taken is None or file is not taken.file:
            return
        if not by_steward:
            self._by_hand.add(taken)
            self._ended.add(taken)
            return
        self._take_all()
        safe = self._safe()
        unserved = [recipient for recipient in taken.recipients if (taken.letter.number, recipient) not in safe]
        if unserved and "delete" not in taken.asked:
            why = self._why_not_expired(taken)
            assert why is None, f"taken and lost: {taken.name} was deleted for {unserved}, and {why}"
        if unserved:
            self._world.event("deleted by request" if "delete" in taken.asked else "expired")
            self._ended.add(taken)

    def _why_not_expired(self, taken: Taken) -> str | None:
        """Why the steward must not delete a message by itself now (DESIGN, "Expiry"); None if it may."""
        world = self._world
        if taken.fate != "held" or not taken.recorded:
            return "nobody asked for it, and mail without a record never expires"
        until = taken.arrived + timedelta(days=world.shortest_hold)
        if not any(world.running - at >= PAST and wall >= until for at, wall in world.rounds) or world.wall < until:
            return "its time was not over in two rounds an hour apart"
        kinds = {"reminder", "summary", "digest"} | ({"held", "delayed"} if world.shortest_hold == 1 else set())
        reminders = [told.running for told in world.told if told.kind in kinds and taken.letter.name in told.text]
        if not any(world.running - at >= REMINDED for at in reminders):
            return f"no reminder was sent a day before ({[world.running - at for at in reminders]})"
        return None

    # -- told

    def check_told(self) -> None:
        """Ended without anybody having been told: none. Of what is still held somebody knows, too."""
        for taken in self._world.taken:
            if taken.may_show and taken.fate == "accepted" and not taken.warned:
                continue
            if taken in self._by_hand:
                continue  # the person who did it knows
            addressee = expected_addressee(taken.letter)
            told = [told for told in self._world.told if taken.letter.name in told.text]
            is_known = taken.recorded and not self._world.wandered
            right = {addressee} if is_known else {addressee, ADMINISTRATOR}
            assert any(each.recipient in right for each in told), (
                f"nobody was told: {taken.name}, {taken.fate}, {addressee}, but {[(t.kind, t.recipient) for t in told]}"
            )


def expected_addressee(letter: Letter) -> str:
    """The people who are told of a letter, read anew from the rule in docs/notices.md."""
    if not letter.sender or letter.sign.startswith(("List-Id", "Auto-Submitted")):
        return ADMINISTRATOR
    return letter.sender if letter.sender.endswith("@council.test") else "clerk@council.test"
