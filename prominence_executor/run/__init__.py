"""The state of one run: its calls, what they are stored as, and what has become of them.

It knows no transport: how calls reach the service, and come back, is not its business.
"""
