//! The vocabulary of Caudal and the contract of its connectors: no I/O, no drivers.
