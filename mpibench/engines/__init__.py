"""The worlds that an algorithm's text runs in: `simulation` (virtual time) and `mpi` (real ranks)."""
