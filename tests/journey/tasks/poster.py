"""poster: posts each number that it reads, and says how many heard of it."""

import sys

from tests.journey.tasks.board import Board
from ukernel.lib.stub import connect

board = connect(Board, "board")
for line in sys.stdin:
    print(board.post(int(line)), flush=True)
