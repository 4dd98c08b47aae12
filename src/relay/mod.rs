//! Moving bytes between the two legs of an established session.
