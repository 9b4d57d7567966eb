"""terms: encoding and decoding change nothing."""

import math

from hypothesis import given
from hypothesis import strategies as st

from echod.log.events import LogOptions
from echod.net.sockopts import SocketOptions
from echod.shared.terms import ServiceTerms, Timeouts

seconds = st.one_of(st.floats(0, 604800), st.just(math.inf))
counts = st.integers(0, 1_000_000)


@given(
    st.builds(
        ServiceTerms,
        chunk_size=st.integers(1, 16 << 20),
        timeouts=st.builds(Timeouts, seconds, seconds, seconds),
        socket_options=st.builds(SocketOptions, seconds, seconds),
        drain=seconds,
        tick=seconds,
        max_connections=counts,
        max_per_source=counts,
        handover=st.booleans(),
        log_options=st.builds(LogOptions, st.just("debug"), st.just("json"), st.booleans(), st.booleans()),
    )
)
def test_as_it_was(terms: ServiceTerms) -> None:
    """The terms are decoded as they were encoded, including infinity, and fit into one command."""
    assert ServiceTerms.decode(terms.encode()) == terms
    assert len(terms.encode()) < 4096
