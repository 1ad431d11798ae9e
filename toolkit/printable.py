"""Make a stranger's words safe to show: on a terminal, in a table, a log, a page, or XML.

A label, a note, a file name or an error message can carry control characters. ESC sequences move the cursor and overwrite what
was printed before; U+202E turns the text round; a line break could begin a line that looks like a verdict; XML does not allow
some of them at all. Everything that is shown goes through here.
"""

import re

LONGEST = 4000  # characters of one cell or line; none of ours comes near
MOST_LINES = 60  # of one message
_BLANKS = re.compile(r"[^\S ]+")  # line breaks, tabs and wide spaces, but not the plain space


def printable(text: object, newlines: bool = False) -> str:
    """`text` with each character that is not printable replaced by U+FFFD; line breaks stay where `newlines`.

    Not printable, as `str.isprintable` has it: control and format characters (ESC, the marks that change the direction of text),
    lone surrogates (of a file name that is not UTF-8), private use, unassigned.
    """
    return "".join(char if char.isprintable() or (newlines and char == "\n") else "�" for char in str(text))


def line(text: object, longest: int = LONGEST) -> str:
    """`text` on one line of at most about `longest` characters: line breaks become spaces, and the middle of more is left out."""
    whole = str(text)
    if len(whole) > longest:
        half = longest // 2
        whole = f"{whole[:half]} … ({len(whole):,} characters) … {whole[-half:]}"
    return whole if whole.isprintable() else printable(_BLANKS.sub(" ", whole))


def indented(text: object) -> str:
    """`text` line by line, for an error: each line after the first is indented, so that none can look like a verdict."""
    first, *rest = str(text).split("\n")
    kept = [line(each) for each in (first, *rest[:MOST_LINES])]
    kept += [f"… and {len(rest) - MOST_LINES:,} more lines"] if len(rest) > MOST_LINES else []
    return "\n".join([kept[0], *(each if each.startswith("  ") else f"  {each}" for each in kept[1:])])
