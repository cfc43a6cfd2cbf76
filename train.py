"""Train a GAN on pictures: `python train.py key=value ...`; `--help` lists the keys."""

import sys

from kaleidogan.cli import run

if __name__ == "__main__":
    run("train", sys.argv[1:], program="python train.py")
