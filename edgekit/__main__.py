"""`python -m edgekit`: the same program as the `edgekit` command."""

import sys
from pathlib import Path

# `python -m` puts the working folder first on the module path: a user's numpy.py there would be run.
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", str(Path.cwd())):
    del sys.path[0]

from edgekit.cli.main import main

if __name__ == "__main__":
    main()
