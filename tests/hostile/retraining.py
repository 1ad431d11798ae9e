"""Kind 10: a command that was given twice costs a finished model."""

from tests.hostile.attack import Attack

SAYS = r"a finished model lies in .*Nothing was done\. --restart trains it again"

ATTACKS = (
    Attack("a finished model is trained again", lambda model: None, "train {model}/ --device cpu", says=SAYS),
    Attack(
        "a finished model is trained by another recipe", lambda model: None, "train {model}/ --device cpu --epochs 1", says="of another"
    ),
    Attack("a finished model is replaced by a series", lambda model: None, "train {model}/ --device cpu --seeds 2", says="--restart asks"),
    Attack("a finished model is resumed", lambda model: None, "train {model}/ --device cpu --resume", code=0, says="had already finished"),
)
