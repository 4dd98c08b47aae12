//! Floor 8: the command line.

mod demo;
