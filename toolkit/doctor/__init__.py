"""What this machine can do for a transfer: what is missing, what that costs, and how to fix it.

Each module examines something and returns `Capability`s: the host, the emulated links, the path to another machine. It
asks with what a transfer uses itself: the UDP socket, the links of the emulator, the MTU search of the engine.
"""
