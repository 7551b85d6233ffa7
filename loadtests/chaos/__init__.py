"""A service on several nodes of this machine, under load, while its processes are killed.

    python -m loadtests chaos [--kills 24] [--duration 300] [--seed 1]

What is promised: a request whose ingress lives is answered, whichever other process
dies. A request whose ingress dies ends with its connection, and only its client can
send it again; OpenAI's clients do so by themselves. Such breaks are counted apart.
"""
