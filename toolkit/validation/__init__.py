"""Is the file that ships the model that was trained? The test set through every runtime, image by image, against gates."""

from toolkit.validation.result import RuntimeRow, Unavailable, ValidationResult
from toolkit.validation.validate import REPORT, validate

__all__ = ["REPORT", "RuntimeRow", "Unavailable", "ValidationResult", "validate"]
