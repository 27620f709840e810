"""Runs on several ranks: worker processes in one process group, and what each of them made."""
