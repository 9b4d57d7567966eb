"""echod, an echo daemon for Linux (RFC 862).  Importing the package imports nothing else: echoc starts fast."""

__version__ = "0.1.0"
