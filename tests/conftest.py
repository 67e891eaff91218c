"""Settings for every test."""

import signal

# A shell without job control starts background jobs with SIGINT ignored, and programs inherit that. Tests interrupt the
# programs that they start, so these programs must begin with the default action.
signal.signal(signal.SIGINT, signal.default_int_handler)
