"""The process of a further device, as `followers` starts it."""

import sys

from omegaconf import OmegaConf

from hybridlab.training.run import train
from hybridlab.training.spec import prepare


def main() -> None:
    """Train as a follower, by the configuration on standard input."""
    train(prepare(OmegaConf.create(sys.stdin.read())))


if __name__ == "__main__":
    main()
