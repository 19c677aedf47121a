//! What strangers' messages can't do, what no output shows, and the rights that suffice.

mod messages;
mod places;
mod rights;
mod secrets;
