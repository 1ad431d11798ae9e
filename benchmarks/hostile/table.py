"""MUTATORS: every way to make a folder, or what is around a command, hostile. To add one: a function, and a line here.

A function changes the scene, by the scene's own random numbers, and says what it did. Only what is in `CONTENTS` changes what files
say: there, in half of the cases, every hash is made to fit again afterwards.
"""

from collections.abc import Callable

from benchmarks.hostile import contents, formats, places, surroundings
from benchmarks.hostile.scene import Scene

PLACES: dict[str, tuple[Callable[[Scene], str], float]] = {  # name → function, weight
    "link": (places.link, 6),
    "link to what was moved": (places.link_to_moved, 2),
    "loop of links": (places.link_loop, 1.5),
    "hard link": (places.hard_link, 1),
    "model is a link": (places.model_is_link, 1),
    "strange name planted": (places.name_planted, 2),
    "strange name": (places.name_changed, 1.5),
    "strange model name": (places.model_name, 1),
    "kind of file": (places.kind, 4),
    "deep": (places.deep, 0.5),
    "many": (places.many, 0.3),
    "size": (places.size, 3),
    "permissions": (places.permissions, 2),
    "immutable": (places.immutable, 1.5),
}
CONTENTS: dict[str, tuple[Callable[[Scene], str], float]] = {
    "bytes": (contents.any_bytes, 3),
    "json values": (contents.json_values, 7),
    "json shape": (contents.json_shape, 3),
    "recipe values": (contents.recipe_values, 2),
    "recipe bomb": (contents.recipe_bomb, 1),
    "archive": (formats.archive, 2.5),
    "safetensors": (formats.tensors, 2.5),
    "protobuf": (formats.protobuf, 7),
    "onnx": (formats.onnx_wide, 5),
    "coreai": (formats.coreai_words, 2),
    "swapped": (contents.swapped, 1),
    "spliced": (contents.spliced, 1),
}
SURROUNDINGS: dict[str, tuple[Callable[[Scene], str], float]] = {
    "variable": (surroundings.variable, 3),
    "damaged cache": (surroundings.damaged_cache, 1),
    "small tmp": (surroundings.small_tmp, 2),
    "full disk": (surroundings.full_disk, 3),
    "output": (surroundings.output, 2),
    "few bytes": (surroundings.few_bytes, 2),
    "few files": (surroundings.few_files, 1),
    "out taken": (surroundings.out_taken, 0.7),
}
MUTATORS = PLACES | CONTENTS | SURROUNDINGS
ONLY_FOR = {
    "onnx": "onnx",
    "coreai": "coreai",
    "recipe values": "recipe",
    "recipe bomb": "recipe",
    "safetensors": "checkpoint",
}  # what is read
