"""The system calls of a transfer, shown as they happen: of sockets and of the files that are sent and received."""
