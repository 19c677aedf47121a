//! Hostile messages do no harm, no output shows a secret, and the documented rights are enough.

mod messages;
mod places;
mod rights;
mod secrets;
