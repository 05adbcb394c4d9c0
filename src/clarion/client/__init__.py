"""Models that a server has, used as loaded ones are.

    Connection ──job──▶ Wire: a task of its loop ──▶ Http ──▶ server
        ▲                                             │ answers, chunks
        └── TextStream, Completion ◀── pieces, end ◀──┘

| file | what it is |
|---|---|
| `connection.py` | `connect`, and the methods of `Model` |
| `described.py` | what the server says of the model |
| `fields.py` | what a caller gives becomes the fields of a request |
| `wire.py` | the thread and the event loop that do all of the network |
| `http.py`, `events.py` | one request: connections, retries, answers that come in events |
| `failures.py` | what went wrong, as the error that Python would have raised |
| `jobs.py` | requests that are on their way, and what comes of them |
| `texts.py` | answers become pieces and completions |
"""
