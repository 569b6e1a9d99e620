"""Programs to run and to read: ``python -m prominence_executor.examples.morse``."""
