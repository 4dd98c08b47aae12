//! The data path, from accept to adoption.
