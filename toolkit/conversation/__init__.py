"""Short exchanges between two programs: lines of text, echoes and their delays."""
