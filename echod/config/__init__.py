"""The configuration: which settings there are, what their values may be, and where they come from.

    settings  the model: each key with its default and its description
    types     what a value may be, and how a person writes it
    sources   defaults, files, environment and flags, laid over each other; each value with its origin

The rest of echod gets plain values.  This package is the only importer of pydantic, and opens nothing but files.
"""
