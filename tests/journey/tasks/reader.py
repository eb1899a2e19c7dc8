"""reader: waits for the next post, and says what it was."""

from tests.journey.tasks.board import Board
from ukernel.lib.stub import connect

print(connect(Board, "board", timeout_s=None).read_next(), flush=True)
