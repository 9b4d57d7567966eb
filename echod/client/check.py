"""`echoc check`."""

from __future__ import annotations

import argparse

from echod.client.options import Parser, add_common_arguments
from echod.client.output import Screen


def make_parser(verb: str = "check") -> Parser:
    """The arguments of `echoc check`."""
    parser = Parser(verb)
    add_common_arguments(parser)
    return parser


def run(options: argparse.Namespace, screen: Screen) -> int:
    """To be written."""
    raise NotImplementedError
