//! Durations and sizes with their units, as operators write them.
