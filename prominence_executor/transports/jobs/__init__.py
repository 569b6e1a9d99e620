"""Calls that travel as jobs of their own, alone or in arrays."""
