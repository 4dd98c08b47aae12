//! Pools and their backends: choosing and counting.
