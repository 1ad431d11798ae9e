"""How much a package may ask for. Far above what real models need; a stranger's file must not take the machine down."""

MAX_MANIFEST_BYTES = 1 << 20
MAX_MODEL_BYTES = 1 << 27  # the program without its weights: the largest known are a few MB
MAX_OPERATIONS = 1 << 17  # the largest programs known have some ten thousand
MAX_RANK = 8  # a tensor has at most 5 axes, a look-up table of compressed weights two more than its tensor
MAX_ELEMENTS = 1 << 28  # of one value: 1 GiB as float32
MAX_LIVE_ELEMENTS = 1 << 30  # of all values alive at once: 4 GiB as float32
MAX_SCRATCH_ELEMENTS = 1 << 30  # of a tensor within one op, such as a padded copy
MAX_KERNELS = 1 << 20  # PyTorch kernels within one op: the time steps of a recurrent layer, say
MAX_FLOPS = 1 << 46  # of one op: minutes on a laptop
MAX_ITERATIONS = 1_000_000  # rounds of one loop, elements of one list
