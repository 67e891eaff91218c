"""What a program does with nettool: send files, receive them, and compare transports (docs/api.md).

`toolkit` exports the names that programs use. The command line is a program like any other: it is built on this.

- sending.py, receiving.py, comparing.py: the three functions, each with the class that the command line uses directly
- events.py, results.py: what they tell while they run, and what they return
- connecting.py, reconnecting.py, returning.py, credentials.py, admission.py, resume_key.py: the steps of a session

Nothing here prints, and nothing asks the user.
"""
