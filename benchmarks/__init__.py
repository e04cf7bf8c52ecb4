"""Scripts that measure, compare and draw what the documents state.

A package of its own: as a namespace it would be mixed with the scripts of another checkout that is installed.
"""
