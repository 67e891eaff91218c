"""A course on sockets in eleven lessons, each a page and an experiment. Start at `course.py`."""
