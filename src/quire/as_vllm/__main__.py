"""``python -m quire.as_vllm PROGRAM [ARGS]`` runs a program as ``python PROGRAM [ARGS]`` would."""

import sys

from quire.as_vllm.program import run

run(sys.argv[1:])
