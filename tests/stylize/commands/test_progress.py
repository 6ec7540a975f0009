"""Progress with and without a terminal."""

import io
import os
import re
import subprocess
import sys

import pytest

from stylize.commands.progress import progress_bar


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress_bar(unit="frame", total=3, every=0) as bar:
        for _ in range(3):
            bar.update()
    lines = log.getvalue().splitlines()
    assert [line.split(" in ")[0] for line in lines] == ["0% 0/3", "33% 1/3", "67% 2/3", "100% 3/3"]
    assert re.fullmatch(r"100% 3/3 in 00:00, 00:00 to go, [\d.]+frame/s", lines[-1])


def test_short_work_and_quiet_work_say_nothing_there(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    for quiet in (False, True):
        with progress_bar(unit="frame", total=2, quiet=quiet, every=0 if quiet else 60) as bar:
            bar.update(1)
            bar.reset(total=9)
            bar.update(2)
    assert log.getvalue() == ""


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_a_terminal_gets_a_bar():
    import fcntl
    import pty
    import struct
    import termios

    code = (
        "from stylize.commands.progress import progress_bar\n"
        "with progress_bar(unit='frame', total=4) as bar: bar.update(4)"
    )
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen([sys.executable, "-c", code], stderr=slave) as process:
        os.close(slave)
        text = b""
        try:
            while chunk := os.read(master, 4096):
                text += chunk
        except OSError:  # the other end is closed
            pass
        os.close(master)
    assert process.returncode == 0 and b"\r" in text and b"4/4" in text
