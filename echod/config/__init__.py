"""The configuration: the settings, their valid values, and the sources of these values.

    settings  the model: each key with its default and its description
    types     the types of values: which are valid, and how they are written
    sources   defaults, files, environment and flags, merged; each value with its origin

The rest of echod gets plain values.  This package alone imports pydantic, and it opens nothing but files.
"""
