"""What a running extraction shows, on a terminal and in a log, and what it says at its end."""

import os
import pty
import re
import subprocess

import pytest
from command_line import command, environment, good

from clipnlc.reports.pace import Effort, summary
from clipnlc.reports.progress import bar, lines


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def effort(batches, *, first=0.0):
    """What batches of 16 images took by two backbones; the first one took longer to read."""
    return Effort(
        {
            "wait": 1.0 * batches + first,
            "decode": 2.0 * batches + first,
            "resize": 1.0 * batches,
            "forward": 4.0 * batches,
            "write": 1.0 * batches,
        },
        {"A": 3.0 * batches, "long-name": 1.0 * batches},
        {"A": 16 * batches, "long-name": 16 * batches},
    )


def screen(raw):
    """Play what a terminal gets: line feeds, returns, cursor up and erased lines."""
    rows, y, x = [""], 0, 0
    for mark in re.finditer(r"\x1b\[(\??[\d;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+", raw):
        text = mark[0]
        if text == "\r":
            x = 0
        elif text == "\n":
            y += 1
            rows += [""] * (y + 1 - len(rows))
        elif mark[2] == "A":
            y -= int(mark[1] or 1)
        elif mark[2] == "K":
            rows[y] = "" if mark[1] == "2" else rows[y][:x]
        elif mark[2] is None:
            rows[y] = rows[y][:x].ljust(x) + text + rows[y][x + len(text) :]
            x += len(text)
    return [row.rstrip() for row in rows if row.strip()]


# A log ------------------------------------------------------------------------------------------


@pytest.fixture
def log(capsys):
    """Note progress at a time; return the line that this makes."""
    clock = Clock()

    def at(seconds, *arguments, **more):
        clock.now = 1000.0 + seconds
        advance(*arguments, **more)
        return capsys.readouterr().err

    with lines("extract", clock) as advance:
        yield at


def test_a_log_has_a_line_a_minute_with_everything(log):
    said = [log(2.0 * n, "d/test", 16 * n, 1600, "", effort(n)) for n in range(1, 70)]
    assert [2 * n for n, line in enumerate(said, start=1) if line] == [60, 120]
    assert said[59] == (
        "extract d/test: 960/1600 after 2 min, 8 images/s, 80 s left; 20 % waiting for data; "
        "decode 25 %, resize 12 %, forward 50 %, write 12 %; "
        "images/s in one thread: A 5.3, long-name 16\n"
    )


def test_a_slow_first_batch_does_not_mislead(log):
    assert log(50, "d/test", 16, 1600, "", effort(1, first=500.0)) == ""
    line = log(60, "d/test", 32, 1600, "", effort(2, first=500.0))
    assert "1.6 images/s, 16 min left; 20 % waiting for data; decode 25 %" in line


def test_a_change_of_pace_is_seen_after_a_minute(log):
    for n in range(300):
        log(n, "d/test", 16 * n, 10_000, "", effort(n))
    line = ""
    for n in range(300, 400):
        line = log(300 + 4 * (n - 300), "d/test", 16 * n, 10_000, "", effort(n)) or line
    assert "4 images/s" in line


def test_a_rate_needs_two_batches(log):
    assert log(61, "d/test", 16, 1477, "", effort(1)) == "extract d/test: 16/1477 after 61 s\n"


def test_batches_that_come_in_a_burst_are_no_rate(log):
    for start, batches in ((10, range(1, 100)), (50, range(100, 200))):
        for n in batches:
            assert log(start + n / 1000, "d/test", 16 * n, 10_000, "", effort(n)) == ""
    line = log(60.001, "d/test", 16 * 200, 10_000, "", effort(200))
    assert "3200/10000 after 60 s, 32 images/s, " in line


def test_images_that_must_be_done_again_are_no_rate(log):
    log(1, "d/test", 160, 1000, "", effort(10))
    line = log(61, "d/test", 100, 1000, "", effort(10))
    assert line == "extract d/test: 100/1000 after 61 s\n"


def test_the_next_split_begins_anew(log):
    for n in range(1, 40):
        log(n, "d/train", 160 * n, 6240, "", effort(n))
    log(58, "d/test", 16, 1000, "", effort(1))
    assert "32/1000 after 61 s, 5.3 images/s" in log(61, "d/test", 32, 1000, "", effort(2))


def test_what_comes_after_is_counted_too(log):
    log(1, "d/train", 0, 600, "", effort(0), rest=12_000)
    line = log(61, "d/train", 300, 600, "", effort(10), rest=12_000)
    assert "5 images/s, 60 s left (41 min in all); " in line
    line = log(121, "d/train", 600, 600, "", effort(20), rest=None)
    assert "5 images/s, 0 s left; " in line


def test_other_stages_have_a_rate_and_a_remark(log):
    log(1, "heads", 1, 40, "cub RN50")
    line = log(61, "heads", 31, 40, "cub RN101")
    assert line == "extract heads: 31/40 after 61 s, 0.5/s, 18 s left, cub RN101\n"


def test_work_of_unknown_size_has_no_time_left(log):
    log(1, "images", 10, None, "")
    assert log(61, "images", 1210, None, "") == "extract images: 1210 after 61 s, 20/s\n"


# A terminal -------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch, capsys):
    """Return what is on the screen after two batches, and when all is over."""

    def show(*, height=30, width=80, backbones=2):
        for name, value in {"LINES": height, "COLUMNS": width, "FORCE_COLOR": 1}.items():
            monkeypatch.setenv(name, str(value))
        clock = Clock()
        names = [f"backbone-{n}" for n in range(backbones)]
        with bar("extract", clock) as advance:
            for n in (1, 2):
                clock.now += 2.0
                spent = Effort(
                    effort(n).seconds,
                    {name: n * (1.0 + i) for i, name in enumerate(names)},
                    dict.fromkeys(names, 16 * n),
                )
                advance("[d]/test", 16 * n, 64, "", spent)
        out, raw = capsys.readouterr()
        assert out == ""
        raw = raw.replace("\n", "\r\n")  # as a terminal does
        running, _, over = raw.rpartition("\x1b[?25h")
        return screen(running), screen(running + over)

    return show


def test_a_terminal_has_a_bar_and_where_time_goes(shown):
    running, over = shown()
    top, shares, *backbones = running
    assert re.fullmatch(r"extract \[d\]/test \S+ +\S* *32/64 8 images/s, 4 s left", top), top
    assert shares == ("  20 % waiting for data; decode 25 %, resize 12 %, forward 50 %, write 12 %")
    assert backbones == [
        "  backbone-0  33 % of forward, 16 images/s in one thread",
        "  backbone-1  67 % of forward, 8 images/s in one thread",
    ]
    assert over == []


def test_of_many_backbones_the_costliest_are_shown(shown):
    running, over = shown(backbones=30)
    assert len(running) == 11
    assert running[2].startswith("  backbone-21 ")
    assert running[-1].startswith("  backbone-29 ")
    assert over == []


def test_a_small_terminal_stays_clean(shown):
    running, over = shown(height=6, width=40, backbones=9)
    assert len(running) == 5
    assert max(map(len, running)) <= 40
    assert over == []


# The end ----------------------------------------------------------------------------------------


def test_a_summary_of_one_backbone_names_none_slowest():
    said = summary(1, 200.0, Effort({"forward": 1.0}, {"A": 1.0}, {"A": 1}))
    assert said == (
        "embedded 1 image in 3 min: 0.005 images/s; "
        "decode 0 %, resize 0 %, forward 100 %, write 0 %"
    )


def extract(photos, store):
    return ("extract", "-d", photos, "-b", "nano-RN50,nano-ViT-B-16", "--store", store)


SUMMARY = (
    r"embedded 60 images in \d+\.\d s: \d+ images/s; "
    r"decode \d+ %, resize \d+ %, forward \d+ %, write \d+ %; slowest: nano-\S+ \d+ % of forward"
)


def test_an_extraction_says_once_where_its_time_went(photos, here, tmp_path):
    said = good(*extract(photos, tmp_path), "--together", "1", by=here).splitlines()
    assert [line for line in said if re.fullmatch(SUMMARY, line)] == said[-2:-1]
    assert "embedded" not in good(*extract(photos, tmp_path), by=here)


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_neither_quiet_nor_json_says_it(option, photos, here, tmp_path):
    assert "embedded" not in good(*extract(photos, tmp_path), option, by=here)


@pytest.mark.slow
def test_a_real_terminal_is_left_with_the_outcome_alone(tmp_path):
    ours, theirs = pty.openpty()
    line = command("extract", "-d", "digits", "--split", "test", "-b", "nano-RN50,nano-ViT-B-16")
    process = subprocess.Popen(
        [*line, "--store", tmp_path],
        env=environment(COLUMNS="100", LINES="30", TERM="xterm"),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    raw = b""
    while chunk := _read(ours):
        raw += chunk
    os.close(ours)
    assert process.wait() == 0, raw
    text = raw.decode()
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    for expected in (
        r"/1477 .*\d images/s, \d+ s left",
        r"\d % waiting for data; .*decode .*resize .*forward .*write",
        r"nano-ViT-B-16 +\d+ % of forward, \d+ images/s in one thread",
    ):
        assert re.search(expected, plain), expected
    outcome, where, next_ = screen(text)
    assert outcome == "digits/test: 1477 images, 2 backbones extracted"
    assert re.match("embedded 1477 images in .* images/s; decode", where)
    assert next_.startswith("next: clipnlc train-nlc")


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side is closed
        return b""
