"""The first steps of a link's process (`toolkit.emulator.link_process`): into its namespaces, before anything else.

The kernel lets nobody make a namespace of users who has more than one thread, and to import numpy starts some. So
this file imports little, and the rest only after that.
"""

import pickle
import signal
import socket
import sys

from toolkit.emulator import namespaces
from toolkit.errors import NettoolError


def main() -> None:
    """Become the process of a link; the argument is the number of the socket to its owner."""
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
