//! Growing delays between attempts.
