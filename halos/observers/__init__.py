"""Observers of a run: `observers:`, and the built-in ones that it turns on.

An observer is any object with `on_*` methods marked `@hookimpl`; what it has no method for costs
nothing. What each of them writes is its own module's matter.
"""
