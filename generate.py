"""Make pictures with a trained generator: `python generate.py key=value ...`; `--help` lists the keys."""

import sys

from kaleidogan.cli import run
from kaleidogan.commandline import script

if __name__ == "__main__":
    run("generate", sys.argv[1:], program=script("generate.py"))
