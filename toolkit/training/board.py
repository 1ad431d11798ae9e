"""TensorBoard's event files, by torch's own writer."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import ToolkitError


class Board:
    """The curves of one run in `folder`; a run that goes on, `visits` images old, takes back what came after them.

    Raises ToolkitError where the package is missing, or nothing can be written.
    """

    def __init__(self, folder: Path, visits: int | None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ToolkitError(
                f"--tensorboard needs the package tensorboard ({error}): pip install 'apple-deployment-toolkit[tensorboard]'"
            ) from error
        self.folder = folder
        with self._or_toolkit_error():
            if visits is None and folder.exists():  # curves.check_events has found nothing else in it
                shutil.rmtree(folder)
            self.writer = SummaryWriter(str(folder), purge_step=None if visits is None else visits + 1)

    def add(self, visits: int, figures: dict[str, float]) -> None:
        with self._or_toolkit_error():
            for name, value in figures.items():
                self.writer.add_scalar(name, value, visits)

    def close(self) -> None:
        with self._or_toolkit_error():
            self.writer.close()

    @contextmanager
    def _or_toolkit_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ToolkitError(
                f"cannot write event files in {self.folder}: {error.strerror or error}. Make room there and go on with --resume, "
                "or leave --tensorboard out"
            ) from error
