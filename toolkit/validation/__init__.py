"""Is the file that ships the model that was trained? Level by level through every runtime, image by image, against gates."""

from toolkit.limits import Limits
from toolkit.validation.evidence import EVIDENCE
from toolkit.validation.outside import Signature
from toolkit.validation.places import Place, digest_of_last
from toolkit.validation.result import REPORT, Check, Figures, RuntimeRow, Unavailable, ValidationResult
from toolkit.validation.sharing import Dismissed
from toolkit.validation.validate import validate
from toolkit.validation.verification import TRUST, VerifyResult, verify

__all__ = [
    "EVIDENCE", "REPORT", "TRUST", "Check", "Dismissed", "Figures", "Limits", "Place", "RuntimeRow", "Signature", "Unavailable",
    "ValidationResult", "VerifyResult", "digest_of_last", "validate", "verify",
]  # fmt: skip
