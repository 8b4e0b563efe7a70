"""Native runner programs that a user gives with ``--runner``: how each is called, and what its output means.

They do not speak the runner protocol. What they print is parsed strictly and turned into its messages.
"""
