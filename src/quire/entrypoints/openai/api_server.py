"""``python -m quire.entrypoints.openai.api_server --model M`` is ``quire serve M``."""

from __future__ import annotations

import sys

from quire.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
