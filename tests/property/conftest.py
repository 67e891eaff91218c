"""Property tests draw the same examples on every run and machine, so running a test again reproduces its failure.

To look for new counterexamples: `pytest tests/property --hypothesis-profile explore`.
"""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", deadline=None, print_blob=True, max_examples=2000)
settings.load_profile("repeatable")
