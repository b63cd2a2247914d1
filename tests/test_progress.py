"""How far a command is: lines where output is no terminal, a bar on one."""

import io

import pytest

from c2am_jax.progress import Counter, per_second, spoken


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (540, "9 min"), (5_940, "99 min"), (7_500, "2 h 05 min"), (273_600, "3 d 4 h")],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert spoken(seconds) == text


def test_rates_read_as_people_say_them():
    assert [per_second(rate, "image") for rate in (0.0412, 1.0, 12.345, 1234.5)] == [
        "0.0412 images/s",
        "1 image/s",
        "12.3 images/s",
        "1234 images/s",
    ]


def test_a_line_every_so_often(capsys):
    file, clock = io.StringIO(), iter(range(0, 1000, 10))
    with Counter(8, "evaluate", "image", every_s=30, file=file, now=lambda: next(clock)) as counter:
        for _ in range(8):
            counter.update()
    assert file.getvalue().splitlines() == [
        "evaluate 4/8  0.1 images/s  ETA 40 s",
        "evaluate 7/8  0.1 images/s  ETA 10 s",
    ]


def test_a_bar_on_a_terminal_and_nothing_from_other_processes():
    terminal, hidden = Terminal(), io.StringIO()
    for file, shown in ((terminal, True), (hidden, False)):
        with Counter(2, "evaluate", "image", shown=shown, file=file, every_s=0) as counter:
            counter.update(2)
    assert "evaluate: 100%" in terminal.getvalue() and "\n" not in terminal.getvalue()[:-1]
    assert not hidden.getvalue()
