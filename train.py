"""Train a GAN on pictures: `python train.py key=value ...`; `--help` lists the keys."""

import sys

from kaleidogan.cli import run
from kaleidogan.commandline import script

if __name__ == "__main__":
    run("train", sys.argv[1:], program=script("train.py"))
