//! Pick algorithms over plain numbers.
