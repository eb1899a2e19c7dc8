"""guest: `guest WORD` has the victim eat the word, or cures it, and says what came of it."""

from __future__ import annotations

import sys

from tests.adversary.tasks.allergic import Allergic
from ukernel.abi.errors import CallError
from ukernel.lib.stub import connect

CURE = "cure"


def main() -> None:
    victim = connect(Allergic, "victim")
    (word,) = sys.argv[1:]
    try:
        print(victim.cure() if word == CURE else victim.eat(word.encode()))
    except CallError as error:
        print(error.code.name)


if __name__ == "__main__":
    main()
