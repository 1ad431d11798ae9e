"""Make a stranger's words safe to show: on a terminal, in a table, a log, a page, or XML.

A label, a note, a file name or an error message can carry control characters. ESC sequences move the cursor and overwrite what
was printed before; U+202E turns the text round; XML does not allow them at all. Everything that is shown goes through here.
"""


def printable(text: object, newlines: bool = False) -> str:
    """`text` with each character that is not printable replaced by U+FFFD; line breaks stay where `newlines`.

    Not printable, as `str.isprintable` has it: control and format characters (ESC, the marks that change the direction of text),
    lone surrogates (of a file name that is not UTF-8), private use, unassigned.
    """
    return "".join(char if char.isprintable() or (newlines and char == "\n") else "�" for char in str(text))
