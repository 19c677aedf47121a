//! The transforms of Winograd's minimal filtering, F(2×2, 3×3): Winograd 1980; Lavin and Gray
//! 2015, <https://arxiv.org/abs/1509.09308>, section 4.1. Formulas on small arrays only;
//! [`weights`](crate::weights) and the convolution itself use them.

/// Positions of a transformed tile of 4 × 4, row by row.
pub(crate) const POSITIONS: usize = 16;

/// `N` channels of one position.
pub(crate) type Lanes<const N: usize> = [f32; N];

/// The weights of one 3×3 at the 16 positions, `G g Gᵀ`. In f64, because it is computed once.
pub(crate) fn transform_weights(g: [f64; 9]) -> [f32; POSITIONS] {
    let along = |[a, b, c]: [f64; 3]| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
    let columns = [0, 1, 2].map(|x| along([g[x], g[3 + x], g[6 + x]]));
    let mut transformed = [0.0; POSITIONS];
    for (y, row) in transformed.chunks_exact_mut(4).enumerate() {
        let values = along(columns.map(|column| column[y]));
        row.iter_mut().zip(values).for_each(|(to, value)| *to = value as f32);
    }
    transformed
}

/// `Bᵀ d` of one column or row.
#[inline(always)]
pub(crate) fn transform_input<const N: usize>([a, b, c, d]: [Lanes<N>; 4]) -> [Lanes<N>; 4] {
    [subtract(a, c), add(b, c), subtract(c, b), subtract(b, d)]
}

/// `Aᵀ m` of one column or row.
#[inline(always)]
pub(crate) fn transform_output<const N: usize>([a, b, c, d]: [Lanes<N>; 4]) -> [Lanes<N>; 2] {
    [add(add(a, b), c), subtract(subtract(b, c), d)]
}

#[inline(always)]
fn add<const N: usize>(a: Lanes<N>, b: Lanes<N>) -> Lanes<N> {
    std::array::from_fn(|lane| a[lane] + b[lane])
}

#[inline(always)]
fn subtract<const N: usize>(a: Lanes<N>, b: Lanes<N>) -> Lanes<N> {
    std::array::from_fn(|lane| a[lane] - b[lane])
}
