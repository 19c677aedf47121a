//! Pixels: what the network gets to see of a picture, what a picture is like in numbers, and heat
//! maps drawn over it. Pure functions.
//!
//! Knows no network, no file format but those it writes, and no store. Upstream:
//! `camshaft-decoding`. Downstream: `camshaft-model`, which says how its input is to be made
//! ([`input::InputRule`]) and computes [`heat_map::HeatMap`]s; the worker's pipeline.

pub mod colormap;
pub mod heat_map;
pub mod input;
pub mod measures;
pub mod overlay;
