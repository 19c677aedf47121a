//! A map of a data set: a point in the plane for each image, alike images near each other.
//!
//! [`ImageMap`] reads the sketches of all images. The rest is mathematics on plain numbers, from the top
//! down: [`layout`] moves points, along the edges of a [`neighbour_graph`], from where [`principal_plane`]
//! puts them. Downstream: the page.
//!
//! The layout is that of UMAP (McInnes, Healy and Melville 2018). It is written here because a report must
//! show the same map of the same results, and no crate does: `umap-rs` and `annembed` move points from
//! several threads without order (the latter needs LAPACK, too), `bhtsne` sums numbers as threads come, and
//! `fast-umap` wants a GPU.

mod image_map;
mod layout;
mod neighbour_graph;
mod principal_plane;

pub(crate) use image_map::{ImageMap, NOWHERE};
