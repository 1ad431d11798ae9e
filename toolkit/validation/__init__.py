"""Is the file that ships the model that was trained? Level by level through every runtime, image by image, against gates."""

from toolkit.limits import Limits
from toolkit.validation.evidence import VerifyResult, verify
from toolkit.validation.result import REPORT, Check, Figures, RuntimeRow, Unavailable, ValidationResult
from toolkit.validation.sharing import Dismissed
from toolkit.validation.validate import validate

__all__ = [
    "REPORT", "Check", "Dismissed", "Figures", "Limits", "RuntimeRow", "Unavailable", "ValidationResult", "VerifyResult",
    "validate", "verify",
]  # fmt: skip
