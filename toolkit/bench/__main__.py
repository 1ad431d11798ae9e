"""The worker's way in: as `-m toolkit.bench.worker` it would be a module that its own package has imported already, and Python warns."""

import sys

from toolkit.bench.worker import main

sys.exit(main())
