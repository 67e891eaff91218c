"""The reliable-UDP engine over the models of `toolkit.netmodel` in virtual time. Start at `simulator.py`."""
