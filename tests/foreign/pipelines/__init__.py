"""Correct pipelines that know nothing of the checks, as a dozen teams would have written them."""
