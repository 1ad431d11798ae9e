"""Is the file that ships the model that was trained? Level by level through every runtime, image by image, against gates."""

from typing import TYPE_CHECKING

from toolkit.lazy import names_of
from toolkit.limits import Limits

if TYPE_CHECKING:
    from toolkit.validation.evidence import EVIDENCE
    from toolkit.validation.outside import Signature
    from toolkit.validation.places import Place, digest_of_last
    from toolkit.validation.result import REPORT, Check, Figures, RuntimeRow, Unavailable, ValidationResult
    from toolkit.validation.sharing import Dismissed
    from toolkit.validation.validating import validate
    from toolkit.validation.verification import TRUST, VerifyResult, verify
else:
    __getattr__ = names_of(__name__, {
        "evidence": "EVIDENCE",
        "outside": "Signature",
        "places": "Place digest_of_last",
        "result": "REPORT Check Figures RuntimeRow Unavailable ValidationResult",
        "sharing": "Dismissed",
        "validating": "validate",
        "verification": "TRUST VerifyResult verify",
    })  # fmt: skip

__all__ = [
    "EVIDENCE", "REPORT", "TRUST", "Check", "Dismissed", "Figures", "Limits", "Place", "RuntimeRow", "Signature", "Unavailable",
    "ValidationResult", "VerifyResult", "digest_of_last", "validate", "verify",
]  # fmt: skip
