//! What the worker does with pixels: it chooses how large a picture is decoded, makes the network's
//! input, measures a picture, and draws heat maps over it. Pure functions.
//!
//! Knows no network and no store, and only the file formats that it writes. Upstream:
//! `camshaft-decoding`. Downstream: `camshaft-model`, whose files contain an [`input::InputRule`]
//! and which computes [`heat_map::HeatMap`]s; the worker's pipeline.

pub mod colormap;
pub mod heat_map;
pub mod input;
pub mod measures;
pub mod overlay;
pub mod picture;
pub mod reduction;
