//! `evenkeel demo`.

mod node;
