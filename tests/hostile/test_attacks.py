"""Carries out every attack of the tables in this folder, each on a copy of its own."""

import importlib
from pathlib import Path

import pytest

from tests.hostile.attack import Attack, carry_out

HERE = Path(__file__).parent
ATTACKS: list[Attack] = [
    attack
    for path in sorted(HERE.glob("*.py"))
    if not path.name.startswith(("test_", "conftest", "attack"))
    for attack in importlib.import_module(f"tests.hostile.{path.stem}").ATTACKS
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, model: Path, capfd: pytest.CaptureFixture[str]):
    carry_out(attack, model, capfd)


def test_no_two_attacks_share_a_name():
    names = [attack.name for attack in ATTACKS]
    assert sorted(set(names)) == sorted(names)
