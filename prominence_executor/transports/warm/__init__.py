"""Calls that go to warm workers: jobs that stay, and take one batch of calls after the other."""
