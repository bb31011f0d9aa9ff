"""`python -m qwenaudio_np` is the command `qwenaudio-np`."""

import sys

from qwenaudio_np.cli import main

sys.exit(main())
