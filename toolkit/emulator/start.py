"""Entry point of the process behind a link (`toolkit.emulator.link_process`).

The process must enter its namespaces first: the kernel refuses a user namespace to a multi-threaded process, and
importing numpy starts threads. Hence this file, which imports little and loads the rest afterwards.
"""

import pickle
import signal
import socket
import sys

from toolkit.emulator import namespaces
from toolkit.errors import NettoolError


def main() -> None:
    """Run the process behind a link; the argument is the descriptor of the socket to its owner."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        try:
            is_user = namespaces.enter_private_namespaces()
        except NettoolError as error:
            control.send(pickle.dumps(error))
            return
        from toolkit.emulator.link_process import serve_link

        serve_link(control, is_user)


if __name__ == "__main__":
    main()
