"""Network paths as pure, seeded models without socket or clock. Start at `path.py`, which drops and delays packets.

The emulator runs these models in real time, the simulator in virtual time. `spec.py` describes a link.
"""
