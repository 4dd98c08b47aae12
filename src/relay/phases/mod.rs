//! Phases that every session may have: its begin, its hours, and its end.

mod connecting;
mod deadlines;
mod open;
