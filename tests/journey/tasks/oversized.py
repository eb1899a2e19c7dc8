"""oversized: asks echo for more than fits into a message, and then for something that does."""

from ukernel.abi.errors import Protocol
from ukernel.abi.services import Echo
from ukernel.lib.stub import connect

if __name__ == "__main__":
    echo = connect(Echo, "echo")
    try:
        echo.echo(bytes(300 * 1024))
    except Protocol as error:
        print(error, flush=True)
    print(len(echo.echo(bytes(256 * 1024))), flush=True)
