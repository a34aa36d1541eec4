#!/usr/bin/env python3
"""Runs a command on a terminal and draws what it printed as an SVG.

    docs/tools/picture.py docs/mine.svg --shown 'adit mine --blocks 10' -- \
        target/release/adit mine --blocks 10

The command runs on a pseudo-terminal, so the picture has the colours that a user sees. Nothing is
added or changed but the prompt above the output, which shows the words of --shown. Python's standard
library is enough, and nothing is fetched. The picture follows the viewer's light or dark setting.
"""

import argparse
import codecs
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from xml.sax.saxutils import escape

# Select Graphic Rendition (ECMA-48): the colours that adit uses, as classes of the style sheet.
COLOURS = {"31": "red", "32": "green", "33": "yellow", "2": "dim"}
ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")

# In pixels. Monospace fonts have characters of about 0.6 of their size.
SIZE, ADVANCE, LEADING, MARGIN, BAR = 13, 7.83, 18, 16, 30

STYLE = """
  text { font: %dpx ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace;
         fill: #1f2328 }
  .window { fill: #f6f8fa; stroke: #d1d9e0 } .bar { fill: #d1d9e0 }
  .prompt { fill: #59636e } .bold { font-weight: bold }
  .green { fill: #116329 } .red { fill: #b02a37 } .yellow { fill: #7d4e00 } .dim { fill: #59636e }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .window { fill: #0d1117; stroke: #3d444d } .bar { fill: #3d444d }
    .prompt { fill: #9198a1 }
    .green { fill: #57d364 } .red { fill: #ff938a } .yellow { fill: #e3b341 } .dim { fill: #9198a1 }
  }
""" % SIZE


class Screen:
    """As much of a terminal as a log, results and a progress line need."""

    def __init__(self, columns):
        self.columns = columns
        self.rows = [[]]
        self.row = self.column = 0
        self.colour = ""

    def put(self, char):
        if self.column == self.columns:
            self.row, self.column = self.row + 1, 0
        while len(self.rows) <= self.row:
            self.rows.append([])
        row = self.rows[self.row]
        row.extend([(" ", "")] * (self.column + 1 - len(row)))
        row[self.column] = (char, self.colour)
        self.column += 1

    def control(self, parameters, final):
        if final == "m":
            for parameter in parameters.split(";"):
                self.colour = COLOURS.get(parameter, "")
        elif final == "K" and self.row < len(self.rows):
            row = self.rows[self.row]
            if parameters == "2":
                row.clear()
            elif parameters in ("", "0"):
                del row[self.column :]
        elif final in "ABCD":
            count = int(parameters or 1)
            self.row = max(0, self.row + {"A": -count, "B": count}.get(final, 0))
            column = self.column + {"C": count, "D": -count}.get(final, 0)
            self.column = min(max(0, column), self.columns - 1)

    def write(self, text):
        at = 0
        while at < len(text):
            found = ESCAPE.match(text, at)
            if found:
                self.control(*found.groups())
                at = found.end()
                continue
            char = text[at]
            at += 1
            if char == "\n":
                self.row += 1
                while len(self.rows) <= self.row:
                    self.rows.append([])
            elif char == "\r":
                self.column = 0
            elif char >= " ":
                self.put(char)


def run(command, columns):
    """The screen after the command has ended, and its exit code."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.environ.pop("NO_COLOR", None)
        # The parent sets the size before it answers.
        os.read(0, 1)
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    settings = termios.tcgetattr(terminal)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(terminal, termios.TCSANOW, settings)
    os.write(terminal, b"\n")
    screen, decoder = Screen(columns), codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # The command's end of the terminal is closed.
            break
        if not read:
            break
        screen.write(decoder.decode(read))
    return screen, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def drawn(text):
    """A text for SVG, in which every space has its width."""
    return escape(text.replace(" ", "\u00a0"))


def spans(row):
    """A row as runs of one colour."""
    parts = []
    for char, colour in row:
        if parts and parts[-1][1] == colour:
            parts[-1][0] += char
        else:
            parts.append([char, colour])
    if parts:
        parts[-1][0] = parts[-1][0].rstrip()
    return "".join(
        f'<tspan class="{colour}">{drawn(text)}</tspan>' if colour else drawn(text)
        for text, colour in parts
    )


def svg(shown, rows):
    while rows and not "".join(char for char, _ in rows[-1]).strip():
        rows.pop()
    widest = max([len(shown) + 2] + [len(row) for row in rows])
    width = round(widest * ADVANCE + 2 * MARGIN)
    height = BAR + MARGIN + (len(rows) + 1) * LEADING + MARGIN // 2
    lines = [
        f'<tspan class="prompt">$</tspan><tspan class="bold">{drawn(" " + shown)}</tspan>'
    ]
    lines += [spans(row) for row in rows]
    texts = "\n".join(
        f'<text x="{MARGIN}" y="{BAR + MARGIN + SIZE // 2 + at * LEADING}">{line}</text>'
        for at, line in enumerate(lines)
        if line
    )
    dots = "".join(f'<circle class="bar" cx="{20 + 18 * i}" cy="18" r="5.5"/>' for i in range(3))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img" aria-label="What '{escape(shown)}' prints">
<style>{STYLE}</style>
<rect class="window" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="9"/>
{dots}
{texts}
</svg>
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("file", help="the SVG to write")
    arguments.add_argument("--columns", type=int, default=100, help="the terminal's width")
    arguments.add_argument("--shown", help="the command as the picture shows it")
    arguments.add_argument("command", nargs="+", help="the program and its arguments, after --")
    given = arguments.parse_args()
    screen, code = run(given.command, given.columns)
    if code != 0:
        sys.exit(f"error: {given.command[0]} ended with {code}; no picture was written")
    picture = svg(given.shown or " ".join(given.command), screen.rows)
    with open(given.file, "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
