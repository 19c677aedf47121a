//! AMX tiles in software, so that the kernels for AMX are tested on machines without it.
//!
//! The tests run the same code that runs on hardware. This machine does not know its tile
//! instructions, so each one raises a signal (SIGILL). The signal's handler decodes the
//! instruction, executes it, and lets the program continue behind it. Instructions, encodings and
//! results: Intel's Software Developer's Manual, volume 2, and volume 1, chapter 18.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{c_int, c_void, siginfo_t, ucontext_t};

use crate::amx::TileConfig;
use crate::bf16;

const ROWS: usize = 16;
/// Bytes of a row.
const LINE: usize = 64;
/// Values of f32, or pairs of bf16, in a row.
const COLUMNS: usize = LINE / 4;

type EmulatedTile = [[u8; LINE]; ROWS];

/// Tiles that are configured.
struct TileState {
    tiles: [EmulatedTile; 8],
    /// Rows, and bytes of a row.
    shapes: [[usize; 2]; 8],
}

/// A thread's tiles; none if it has not configured them.
type EmulatedTiles = Option<TileState>;

thread_local! {
    // Exists from a thread's start and is never dropped, so that a signal's handler may use it.
    static TILES: UnsafeCell<EmulatedTiles> = const { UnsafeCell::new(None) };
}

/// Gives this process emulated tiles; false if it could not.
pub(crate) fn install() -> bool {
    // SAFETY: all zeros are a valid `sigaction`, and the handler is one for `SA_SIGINFO`.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = on_unknown_instruction as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGILL, &raw const action, ptr::null_mut()) == 0
    }
}

/// Executes the tile instructions that raised the signal. Any other instruction, and one that
/// hardware would refuse too, ends the process as it would have without this handler.
extern "C" fn on_unknown_instruction(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the operating system hands over the interrupted thread's registers. Nothing else of
    // this thread runs now, so only this function uses the tiles. The code that contains the
    // instruction promises that its operands may be read and written.
    unsafe {
        let registers = &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs;
        let start = registers[libc::REG_RIP as usize] as *const u8;
        // Tile instructions that follow directly are executed too: a signal takes far longer than
        // they do.
        let bytes = TILES.with(|tiles| {
            let mut bytes = 0;
            while let Some(instruction) = Instruction::decode(start.add(bytes), registers)
                && instruction.run(&mut *tiles.get()).is_some()
            {
                bytes += instruction.bytes;
            }
            bytes
        });
        registers[libc::REG_RIP as usize] += bytes as i64;
        if bytes == 0 {
            libc::signal(libc::SIGILL, libc::SIG_DFL);
        }
    }
}

/// A tile instruction, decoded.
struct Instruction {
    operation: Operation,
    /// Length of the instruction.
    bytes: usize,
}

enum Operation {
    Configure {
        from: *const TileConfig,
    },
    Release,
    Zero {
        tile: usize,
    },
    Load {
        tile: usize,
        from: *const u8,
        stride: isize,
    },
    Store {
        tile: usize,
        to: *mut u8,
        stride: isize,
    },
    /// Adds products of pairs of bf16 to sums in f32.
    Multiply {
        sums: usize,
        left: usize,
        right: usize,
    },
    /// Adds products of quads of unsigned and signed bytes to sums in 32 bits.
    MultiplyBytes {
        sums: usize,
        left: usize,
        right: usize,
    },
}

impl Instruction {
    /// # Safety
    /// There is an instruction at `at`.
    unsafe fn decode(at: *const u8, registers: &[i64; 23]) -> Option<Self> {
        // SAFETY: a byte is read only if those before it say that the instruction has it.
        let byte = |index: usize| unsafe { *at.add(index) };
        // A VEX prefix of three bytes, and the opcode map 0F 38.
        if byte(0) != 0xc4 || byte(1) & 0x1f != 2 {
            return None;
        }
        let (high, prefix, opcode, operands) = (!byte(1), byte(2) & 3, byte(3), byte(4));
        let second = usize::from(!byte(2) >> 3 & 7);
        let [reg, rm] = [operands >> 3, operands].map(|bits| usize::from(bits & 7));
        if operands >> 6 == 3 {
            let operation = match (opcode, prefix) {
                (0x49, 0) => Operation::Release,
                (0x49, 3) => Operation::Zero { tile: reg },
                (0x5c, 2) => Operation::Multiply { sums: reg, left: rm, right: second },
                (0x5e, 1) => Operation::MultiplyBytes { sums: reg, left: rm, right: second },
                _ => return None,
            };
            return Some(Self { operation, bytes: 5 });
        }
        // An address: a base, an optional index, and a displacement of no, one or four bytes.
        let extended = |number: usize, bit: u8| number | usize::from(high >> bit & 1) << 3;
        let value = |number: usize| registers[context_index(number)] as isize;
        let indexed = rm == 4;
        let base = if indexed { usize::from(byte(5) & 7) } else { rm };
        let mut index = 0;
        if indexed {
            let number = extended(usize::from(byte(5) >> 3 & 7), 6);
            // The stack pointer's number means that there is no index.
            if number != 4 {
                index = value(number) << (byte(5) >> 6);
            }
        }
        let before = if indexed { 6 } else { 5 };
        let (displacement, bytes) = match operands >> 6 {
            // Without a base, or relative to the instruction: the kernels have no such address.
            0 if base == 5 => return None,
            0 => (0, before),
            1 => (byte(before) as i8 as isize, before + 1),
            _ => {
                let four = [0, 1, 2, 3].map(|further| byte(before + further));
                (i32::from_le_bytes(four) as isize, before + 4)
            }
        };
        let start = value(extended(base, 5)) + displacement;
        let operation = match (opcode, prefix) {
            (0x49, 0) => Operation::Configure { from: (start + index) as *const TileConfig },
            (0x4b, 3) => Operation::Load { tile: reg, from: start as *const u8, stride: index },
            (0x4b, 2) => Operation::Store { tile: reg, to: start as *mut u8, stride: index },
            _ => return None,
        };
        Some(Self { operation, bytes })
    }

    /// Executes it. `None` if hardware would refuse it, or if it configures tiles of no rows, which
    /// the kernels don't.
    ///
    /// # Safety
    /// Its address is valid for a configuration, or for a tile's rows.
    unsafe fn run(&self, state: &mut EmulatedTiles) -> Option<()> {
        match self.operation {
            Operation::Configure { from } => {
                // SAFETY: as the caller promises.
                let config = unsafe { &*from };
                let shapes = std::array::from_fn(|tile| {
                    [config.rows[tile].into(), config.row_bytes[tile].into()]
                });
                let fits = |&[rows, bytes]: &[usize; 2]| {
                    (1..=ROWS).contains(&rows) && (1..=LINE).contains(&bytes)
                };
                if config.palette != 1 || !shapes.iter().all(fits) {
                    return None;
                }
                *state = Some(TileState { tiles: [[[0; LINE]; ROWS]; 8], shapes });
            }
            Operation::Release => *state = None,
            Operation::Zero { tile } => state.as_mut()?.tiles[tile] = [[0; LINE]; ROWS],
            Operation::Load { tile, from, stride } => {
                let state = state.as_mut()?;
                let [rows, bytes] = state.shapes[tile];
                // What a smaller tile lacks stays zero.
                for (row, line) in state.tiles[tile][..rows].iter_mut().enumerate() {
                    let from = from.wrapping_offset(row as isize * stride);
                    // SAFETY: as the caller promises.
                    unsafe { ptr::copy_nonoverlapping(from, line.as_mut_ptr(), bytes) };
                }
            }
            Operation::Store { tile, to, stride } => {
                let state = state.as_ref()?;
                let [rows, bytes] = state.shapes[tile];
                for (row, line) in state.tiles[tile][..rows].iter().enumerate() {
                    let to = to.wrapping_offset(row as isize * stride);
                    // SAFETY: as the caller promises.
                    unsafe { ptr::copy_nonoverlapping(line.as_ptr(), to, bytes) };
                }
            }
            Operation::Multiply { sums, left, right } => {
                let tiles = &mut state.as_mut()?.tiles;
                let (left, right) = (widen(&tiles[left]), widen(&tiles[right]));
                multiply(&mut tiles[sums], &left, &right);
            }
            Operation::MultiplyBytes { sums, left, right } => {
                let tiles = &mut state.as_mut()?.tiles;
                let (left, right) = (tiles[left], tiles[right]);
                multiply_bytes(&mut tiles[sums], &left, &right);
            }
        }
        Some(())
    }
}

/// The index of a register in the signal's context, by its number in an instruction.
fn context_index(number: usize) -> usize {
    const ORDER: [c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    ORDER[number] as usize
}

/// For each row: the first values of its pairs, then the second ones.
type Pairs = [[[f32; COLUMNS]; 2]; ROWS];

fn widen(tile: &EmulatedTile) -> Pairs {
    let mut pairs = [[[0.0; COLUMNS]; 2]; ROWS];
    for (line, pairs) in tile.iter().zip(&mut pairs) {
        for (column, pair) in line.chunks_exact(4).enumerate() {
            pairs[0][column] = bf16::to_f32(u16::from_le_bytes([pair[0], pair[1]]));
            pairs[1][column] = bf16::to_f32(u16::from_le_bytes([pair[2], pair[3]]));
        }
    }
    pairs
}

/// `sums[m][n] += left[m][k] · right[k][n]`, for both values of each pair.
fn multiply(sums: &mut EmulatedTile, left: &Pairs, right: &Pairs) {
    for (line, left) in sums.iter_mut().zip(left) {
        let mut values = [0.0; COLUMNS];
        for (value, bytes) in values.iter_mut().zip(line.chunks_exact(4)) {
            *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for (k, right) in right.iter().enumerate() {
            for half in 0..2 {
                for (value, right) in values.iter_mut().zip(&right[half]) {
                    *value += left[half][k] * right;
                }
            }
        }
        for (bytes, value) in line.chunks_exact_mut(4).zip(values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// `sums[m][n] += left[m][k] · right[k][n]`, for all four bytes of each quad.
fn multiply_bytes(sums: &mut EmulatedTile, left: &EmulatedTile, right: &EmulatedTile) {
    for (line, left) in sums.iter_mut().zip(left) {
        for (column, bytes) in line.chunks_exact_mut(4).enumerate() {
            let mut sum = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            for (quad, right) in left.chunks_exact(4).zip(right) {
                for (&left, &right) in quad.iter().zip(&right[4 * column..]) {
                    sum += i32::from(left) * i32::from(right as i8);
                }
            }
            bytes.copy_from_slice(&sum.to_le_bytes());
        }
    }
}
