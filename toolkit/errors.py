"""The errors a user can meet, and the exit codes of the command line.

    ToolkitError            bad input, or a machine that cannot do it        exit 2
    ├── RecipeError         a recipe that does not hold
    ├── DataError           a data set or a picture that cannot be trusted
    ├── DeviceError         a device that is not there, or computes wrongly
    ├── CheckpointError     a checkpoint that cannot be read
    ├── ArtifactError       an exported file that is damaged or is something else
    ├── ExportError         a conversion that failed, or whose result is not the model
    ├── DiskError           a place that cannot be written: full, read-only, failing
    └── RuntimeUnavailable  a runtime that cannot run on this machine

A message says what happened, the value seen, and what to do. What the system refuses (a full disk, no permission, no memory) is one
message and exit code 2 as well. Any other exception is a bug of ours: it keeps its traceback, and ends with a code of its own.
"""

DONE, CHECK_FAILED, BAD_INPUT = 0, 1, 2  # exit codes; CHECK_FAILED means that, and nothing else
BUG = 70  # EX_SOFTWARE of sysexits.h; Python's own code for a traceback is 1, which would say that a check failed
INTERRUPTED, BROKEN_PIPE = 130, 141  # the shell's own for Ctrl-C, and for a reader that has gone (SIGPIPE)


class ToolkitError(Exception):
    """Something the user can mend: printed without a traceback."""


class RecipeError(ToolkitError):
    """A recipe that does not hold: its message names every wrong key at once."""


class DataError(ToolkitError):
    """A data set or a picture that is missing, damaged or not what its checksum says."""


class DeviceError(ToolkitError):
    """A device that was asked for by name and is not there, or that computes wrong gradients."""


class CheckpointError(ToolkitError):
    """A checkpoint that is missing, damaged or of another model."""


class ArtifactError(ToolkitError):
    """An exported artifact that is missing, damaged or of another format."""


class ExportError(ToolkitError):
    """A conversion that failed, or whose file does not compute what PyTorch computes."""


class DiskError(ToolkitError):
    """A place that cannot be written: the disk is full, read-only or failing, or something is in the way."""


class RuntimeUnavailable(ToolkitError):
    """A runtime that cannot run on this machine, with the reason."""
