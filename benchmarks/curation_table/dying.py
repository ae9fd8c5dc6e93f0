"""A small curation that may be killed while it renames a file: a program for `engines.crashes`.

python -m curation_table.dying VIDEOS OUT CHANCE
"""

import dataclasses
import os
import random
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from contentv.curation.engine.chain import ShotStage
from curating import WholeShots, curate, local, small_chain, small_job


def deadly(chance: float) -> None:
    """From now on a rename, before or after it is done, kills the whole group of processes."""
    rename: Callable[..., None] = os.replace
    lots = random.Random()  # noqa: S311 - to another end each time

    def replace(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - as os.replace
        before, after = lots.random() < chance / 2, lots.random() < chance / 2
        if before:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        rename(*arguments, **options)
        if after:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    os.replace = replace


def open_deadly(chance: float) -> WholeShots:
    """Make this process a deadly one, and give the finder of shots."""
    deadly(chance)
    return WholeShots()


def main() -> None:
    """Curate with two workers; the kills come from the workers and from this process."""
    videos, out, chance = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    chain = small_chain()
    if chance:
        deadly(chance)
        shots = ShotStage(chain.shots.key, partial(open_deadly, chance))
        chain = dataclasses.replace(chain, shots=shots)
    curate(videos, small_job(out, chain), engine=local(2))


if __name__ == "__main__":
    main()
