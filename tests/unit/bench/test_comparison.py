"""The figures of the comparison: medians, ratios, tables and the picture."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.comparison import page, results, usage
from bench.comparison.__main__ import TITLES, in_order, main, options, write
from bench.comparison.contestants import CONTESTANTS, JUDGES
from bench.comparison.figures import Figures, Record, Sample, judged
from bench.comparison.letters import KINDS, LIMIT, Kind, beyond_the_limit, letters, message, people, within_the_limit
from bench.comparison.picture import FIGURES, picture
from bench.comparison.results import OtherMachineError, Results
from bench.smtp import Letter, RefusedError, Session, rate, single_session
from lab.sink import Sink
from support.paths import PROJECT
from undisclosed.addresses import visible

MACHINE = {"": "2 cores", "Postfix": "3.7"}
SVG = "{http://www.w3.org/2000/svg}"


def records(kind: str = "small", **contestants: list[Sample]) -> list[Record]:
    """The samples of each contestant, one a round; `undisclosed_unix` stands for "undisclosed, unix"."""
    return [
        Record(kind, name.replace("_", ", "), number, sample)
        for name, samples in contestants.items()
        for number, sample in enumerate(samples, 1)
    ]


def rates(*values: float) -> list[Sample]:
    """Samples that differ in their rate only."""
    return [Sample(value, 1.0, 1.0, 1.0) for value in values]


def everything(rounds: int = 3, rate: float = 500.0) -> list[Record]:
    """A whole run: every contestant with every message."""
    return [
        Record(kind.name, name, number, Sample(rate + number, 2.0, 0.5, 70.0))
        for number in range(1, rounds + 1)
        for kind in KINDS
        for name in CONTESTANTS
    ]


def test_each_figure_has_its_own_median() -> None:
    """A median ignores a round that was slow in one figure; the other figures of that round count."""
    samples = [Sample(100, 9, 0.5, 70), Sample(900, 2, 0.6, 71), Sample(110, 3, 9.9, 72)]
    assert Figures(records(rspamd=samples)).median("small", "rspamd") == Sample(110, 3, 0.6, 71)


def test_a_ratio_is_taken_within_each_round() -> None:
    """A machine that is twice as fast in one round does not move a ratio, although it moves both medians."""
    figures = Figures(records(one=rates(80, 160, 400), other=rates(100, 200, 50)))
    assert figures.ratio("small", "one", "other", "rate") == pytest.approx(0.8)
    assert figures.median("small", "one").rate / figures.median("small", "other").rate == pytest.approx(1.6)


def test_a_difference_is_taken_within_each_round() -> None:
    """The time added to a message in a single session, independent of its time without a milter in that round."""
    ours = [Sample(1, single, 1, 1) for single in (3.0, 5.5, 10.7)]
    none = [Sample(1, single, 0, 0) for single in (2.0, 5.0, 10.0)]
    assert Figures(records(ours=ours, none=none)).difference("small", "ours", "none", "single") == pytest.approx(0.7)


def test_a_round_that_one_of_two_lacks_does_not_count() -> None:
    """A ratio needs both contestants of a round."""
    figures = Figures(records(one=rates(50, 60, 1), other=rates(100, 100)))
    assert figures.ratio("small", "one", "other", "rate") == pytest.approx(0.55)
    assert figures.rounds == 2


@pytest.mark.parametrize(("processor", "reached"), [(0.85, True), (0.86, False)])
def test_processor_time_is_held_against_rspamd(processor: float, reached: bool) -> None:
    """At most 0.85 of rspamd's for a short message, 0.85 itself included."""
    ours, theirs = [Sample(1, 1, processor, 1)], [Sample(1, 1, 1.0, 1)]
    (one,) = judged(Figures(records(undisclosed_unix=ours, rspamd=theirs)))
    assert (one.kind, one.reached) == ("small", reached)
    assert one.value == pytest.approx(processor)


@pytest.mark.parametrize("socket", ["unix", "inet"])
@pytest.mark.parametrize(("ours", "reached"), [(95.0, True), (94.0, False)])
def test_the_rate_is_held_against_the_null_program_on_the_same_socket(socket: str, ours: float, reached: bool) -> None:
    """The target is 0.95 of the null program's rate at least."""
    samples = {f"undisclosed_{socket}": rates(ours), f"null_{socket}": rates(100.0), "null_other": rates(1.0)}
    (one,) = judged(Figures(records("small", **samples)))
    assert one.value == pytest.approx(ours / 100)
    assert one.reached is reached
    assert socket in one.what


def test_a_single_session_is_held_against_no_milter() -> None:
    """At most 1.5 ms more for a message; a message that got quicker is no miss."""
    quick, slow = [Sample(1, 1.9, 1, 1)], [Sample(1, 3.6, 1, 1)]
    none = [Record("small", "no milter", 1, Sample(1, 2.0, 0, 0))]
    unix, inet = judged(Figures([*records(undisclosed_unix=quick, undisclosed_inet=slow), *none]))
    assert (unix.reached, inet.reached) == (True, False)
    assert (unix.unit, inet.unit) == (" ms", " ms")


def test_what_was_not_measured_is_not_judged() -> None:
    """A part of a run has no result for the other messages."""
    assert judged(Figures(records(rspamd=rates(1.0)))) == []


def test_a_whole_run_is_judged_in_full() -> None:
    """Processor time for the three messages that have a limit; rate and single session for all, on both sockets."""
    assert len(judged(Figures(everything()))) == 3 + 2 * len(KINDS) + 2 * len(KINDS)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.194, "0.19"), (1.5, "1.50"), (9.94, "9.94"), (9.96, "10.0"), (99.4, "99.4"), (99.6, "100"),
     (1234.5, "1,234"), (-1.5, "-1.50")],
)  # fmt: skip
def test_a_figure_shows_the_digits_that_count(value: float, text: str) -> None:
    """A figure has no more digits than the measurement is exact."""
    assert page.number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.85, "0.85"), (1.2, "1.20"), (0.0021, "0.0021")])
def test_a_small_ratio_is_not_rounded_to_nothing(value: float, text: str) -> None:
    """0.0021 is not 0.00."""
    assert page.ratio(value) == text


def test_the_tables_hold_every_contestant_and_every_verdict() -> None:
    """One table a message, all rows as wide as their head; then the targets, a missed one in bold."""
    text = page.measured(Figures(everything(rounds=4)), TITLES, MACHINE)
    tables = [[line for line in part.splitlines() if line.startswith("|")] for part in text.split("### ")[1:]]
    assert [len(table) - 2 for table in tables[:-1]] == [len(CONTESTANTS)] * len(KINDS)
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    assert "Medians of 4 rounds, on: 2 cores; Postfix 3.7." in text
    assert text.count("**missed**") == 3  # the same processor time as rspamd's
    assert text.count("| met |") == len(judged(Figures(everything()))) - 3


def test_a_row_without_milter_has_no_cost() -> None:
    """Its cells for added time and processor time are empty."""
    lines = page.measured(Figures(everything()), TITLES, MACHINE).splitlines()
    assert next(line for line in lines if line.startswith("| no milter")) == "| no milter | 502 | 2.00 |  |  |  |  |"


def test_the_tables_replace_those_before_and_nothing_else() -> None:
    """The page's prose stays, on both sides; a second run leaves no trace of the first."""
    before = f"# Performance\n\nProse.\n\n{page.BEGIN}\nold\n{page.END}\n\nMore prose.\n"
    once = page.put_in(before, "new")
    assert once == f"# Performance\n\nProse.\n\n{page.BEGIN}\n\nnew\n\n{page.END}\n\nMore prose.\n"
    assert page.put_in(once, "new") == once


@pytest.mark.parametrize(
    "text",
    ["", page.BEGIN, page.END, f"{page.END}{page.BEGIN}", f"{page.BEGIN}{page.BEGIN}{page.END}",
     f"{page.BEGIN}{page.END}{page.END}"],
)  # fmt: skip
def test_a_page_without_its_two_markers_is_refused(text: str) -> None:
    """The page without markers is refused, not overwritten."""
    with pytest.raises(page.MarkersError):
        page.put_in(text, "new")


def test_the_picture_is_well_formed_and_stays_within_its_frame() -> None:
    """Every bar and every word is inside, and nothing is drawn on a background of its own."""
    drawn = ElementTree.fromstring(picture(Figures(everything()), TITLES))
    _, _, width, height = map(float, drawn.attrib["viewBox"].split())
    bars = drawn.findall(f"{SVG}rect")
    assert len(bars) == len(KINDS) * (len(FIGURES) * len(CONTESTANTS) - 1)  # no processor time without a milter
    assert {bar.attrib["class"] for bar in bars} == {"ours", "other"}
    for bar in bars:
        assert 0 <= float(bar.attrib["x"]) < float(bar.attrib["x"]) + float(bar.attrib["width"]) < width
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) < height
    for word in drawn.findall(f"{SVG}text"):
        assert 0 <= float(word.attrib["x"]) < width
        assert float(word.attrib["y"]) < height


def test_a_bar_is_as_long_as_its_figure() -> None:
    """Twice the rate, twice the length; and something to see of the smallest."""
    mixed = records(one=rates(100), two=rates(200), least=rates(0.001))
    bars = ElementTree.fromstring(picture(Figures(mixed), TITLES)).findall(f"{SVG}rect")[:3]
    one, two, least = (float(bar.attrib["width"]) for bar in bars)
    assert two == pytest.approx(2 * one, abs=0.1)
    assert 0 < least < one


def test_the_picture_is_legible_on_light_and_on_dark() -> None:
    """Text of a contrast of 4 and bars of 3 at least, on white and on a dark page (WCAG 2.1, 1.4.11)."""
    style = picture(Figures(everything()), TITLES).partition("</style>")[0]
    text, *bars = re.findall(r"fill: #([0-9a-f]{6})", style)
    assert len(bars) == 2
    for paper in ("ffffff", "0d1117"):
        assert contrast(text, paper) >= 4, paper
        assert all(contrast(bar, paper) >= 3 for bar in bars), paper


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, as WCAG 2.1 defines it."""
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_figures_are_shown_in_their_usual_order() -> None:
    """Each round begins with another contestant, and parts of a run may be measured in any order."""
    figures = in_order(everything()[::-1])
    assert figures.kinds == [kind.name for kind in KINDS]
    assert figures.contestants("large") == list(CONTESTANTS)


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    """Saved and loaded results are equal."""
    kept = Results(MACHINE, everything())
    results.save(tmp_path / "kept.json", kept)
    assert results.load(tmp_path / "kept.json") == kept
    assert results.load(tmp_path / "none.json") == Results({}, [])


def test_a_message_measured_again_replaces_its_old_figures() -> None:
    """The figures of the other messages stay."""
    kept = Results(MACHINE, [*records("small", rspamd=rates(1)), *records("large", rspamd=rates(2))])
    both = results.merged(kept, Results(MACHINE, records("large", rspamd=rates(3))))
    assert [(record.kind, record.sample.rate) for record in both.records] == [("small", 1), ("large", 3)]


def test_figures_of_two_machines_are_not_mixed() -> None:
    """Figures of two versions of a program are not mixed either."""
    kept = Results(MACHINE, records(rspamd=rates(1)))
    with pytest.raises(OtherMachineError):
        results.merged(kept, Results(MACHINE | {"Postfix": "3.8"}, records("large", rspamd=rates(3))))


def test_the_page_and_the_picture_are_written(tmp_path: Path) -> None:
    """The tables go between the markers of the existing page."""
    (tmp_path / "performance.md").write_text(f"Prose\n{page.BEGIN}\n{page.END}\n")
    write(tmp_path, Figures(everything()), "the tables")
    assert (tmp_path / "performance.md").read_text() == f"Prose\n{page.BEGIN}\n\nthe tables\n\n{page.END}\n"
    assert ElementTree.parse(tmp_path / "performance.svg").getroot().tag == f"{SVG}svg"


@pytest.mark.parametrize(("text", "error"), [(None, FileNotFoundError), ("no markers", page.MarkersError)])
def test_a_page_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, text: str | None, error: type[Exception]
) -> None:
    """The error does not come after ten minutes of measurement."""
    if text is not None:
        (tmp_path / "performance.md").write_text(text)
    with pytest.raises(error):
        main(["--docs", str(tmp_path)])


def test_a_quick_look_writes_no_page() -> None:
    """With --docs it writes one there; a full run writes the project's."""
    assert options(["--quick"]).docs is None
    assert options(["--quick", "--docs", "x"]).docs == Path("x")
    assert options([]).docs == PROJECT / "docs"
    assert options(["--only", "small", "--only", "many"]).only == ["small", "many"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.name))
def test_a_message_shows_and_weighs_what_its_kind_says(kind: Kind) -> None:
    """A kind's numbers of addresses in To and Cc and of recipients, and its body's size."""
    (letter,) = letters(kind, 1, 7)
    header, _, body = letter.content.partition(b"\r\n\r\n")
    fields = re.findall(rb"^(?:To|Cc): ((?:.*\r\n\t)*.*)", header, re.MULTILINE)
    shown = {address for value in fields for address in visible(value.decode())}
    assert len(shown) == kind.addresses
    assert len(letter.envelope) - 2 == kind.recipients
    assert 0.9 * kind.body < len(body) < 1.1 * kind.body


def test_no_two_messages_go_to_the_same_people() -> None:
    """A contestant that caches addresses would otherwise be faster than with real mail."""
    assert not set(people(500, 1)) & set(people(500, 2))


def test_the_trial_of_the_rule_stands_on_both_sides_of_the_limit() -> None:
    """By this project's count: as many outside addresses as are allowed, in more entries; and one more."""
    for letter, count in ((within_the_limit(), LIMIT), (beyond_the_limit(), LIMIT + 1)):
        header = letter.content.partition(b"\r\n\r\n")[0].decode()
        found = visible(header.partition("To: ")[2].partition("\r\nSubject")[0])
        assert len({each.lower() for each in found if "council.test" not in each}) == count


def test_everybody_who_has_the_rule_is_a_contestant() -> None:
    """No contestant with the rule is left out of the trial."""
    assert set(JUDGES) == {name for name in CONTESTANTS if not name.startswith(("null", "no "))}


def test_processor_time_includes_threads_and_children_that_have_ended() -> None:
    """A thread's to the nanosecond; a child's in hundredths of a second once it was waited for."""
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    before = usage.processor_seconds([os.getpid()])
    thread = threading.Thread(target=exec, args=(burn.replace("process", "thread"),))
    thread.start()
    thread.join()
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert usage.processor_seconds([os.getpid()]) - before >= 0.38


def test_memory_that_processes_share_counts_once() -> None:
    """Forked children with nothing of their own add little to what their parent has."""
    script = "import os,sys; data = b'x' * 50_000_000; pid = os.fork(); print(pid or '', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        lines = parent.stdout.readline() + parent.stdout.readline()
        both = usage.memory([parent.pid, int(lines.strip())])
        parent.communicate(b"")
    assert 50_000_000 < both < 90_000_000


def test_letters_arrive_as_they_were_made() -> None:
    """Over one session and over several, each once, with leading dots and all recipients."""
    body = "\n.leading dot\n..\n"
    made = [
        Letter.of(
            message(people(3, number), number, 0) + body.encode(), sender="c@council.test", recipients=["a@x.test"]
        )
        for number in range(9)
    ]
    with Sink() as sink:
        took = single_session(sink.port, made[:3])
        assert rate(sink.port, made[3:], sessions=2) > 0
        assert len(took) == 3
        arrived = sink.deliveries
    ids = sorted(int(re.findall(rb"Message-ID: <(\d+)@", delivery.data)[0]) for delivery in arrived)
    assert ids == list(range(9))
    assert all(delivery.data.endswith(b"\r\n.leading dot\r\n..\r\n") for delivery in arrived)


def test_a_refusal_stops_the_measurement() -> None:
    """A server that refuses is fast: its answers must not count as a rate."""
    (letter,) = letters(KINDS[0], 1, 1)
    with Sink() as sink:
        sink.answer("451 4.3.0 later")
        with Session(sink.port) as session, pytest.raises(RefusedError, match=r"451 4\.3\.0 later"):
            session.send(letter)
        with pytest.raises(RuntimeError, match="a session failed"):
            rate(sink.port, [letter] * 4, sessions=2)
