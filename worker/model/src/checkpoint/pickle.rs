//! Reading a Python pickle as data. No code that a pickle names is run.
//!
//! Runs the opcodes of Python's stack machine (documented in `pickletools`), but records calls
//! instead of making them. Values lie in one list and refer to each other by index. So a file makes
//! at most one value for each opcode, and nothing recurses. candle's reader copies values that are
//! referred to again, drops nested values recursively and indexes arguments unchecked: a few
//! hostile bytes would crash a worker.

use std::collections::HashMap;

/// The index of a value in a [`Pickle`].
pub(super) type ValueIndex = usize;

/// A pickled value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PickleValue {
    /// `None`, a float or bytes: no part of a tensor's description.
    Other,
    Bool(bool),
    Int(i64),
    Text(String),
    /// A class or function: its module and name.
    Global(String, String),
    Tuple(Vec<ValueIndex>),
    List(Vec<ValueIndex>),
    Dict(Vec<(ValueIndex, ValueIndex)>),
    /// The result of a call, which is not made.
    Call {
        /// What is called.
        callable: ValueIndex,
        /// A tuple.
        arguments: ValueIndex,
    },
    /// An object of the file around the pickle, by its id.
    Persistent(ValueIndex),
}

/// Why a pickle can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PickleError {
    #[error("its pickle ends early")]
    Truncated,
    #[error("its pickle has the unknown opcode {0:#04x}")]
    Opcode(u8),
    #[error("its pickle takes what isn't there")]
    Stack,
    #[error("its pickle has text that isn't UTF-8")]
    Text,
}

/// The values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<PickleValue>,
    root: ValueIndex,
}

impl Pickle {
    /// Reads a whole pickle, protocols 2 to 5.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, PickleError> {
        let mut machine = StackMachine { bytes, ..StackMachine::default() };
        while machine.step()? {}
        let root = machine.pop()?;
        Ok(Self { values: machine.values, root })
    }

    /// The pickled object.
    pub(super) fn root(&self) -> ValueIndex {
        self.root
    }

    /// The value at an index.
    pub(super) fn value(&self, index: ValueIndex) -> &PickleValue {
        &self.values[index]
    }

    /// The items of a tuple.
    pub(super) fn tuple(&self, index: ValueIndex) -> Option<&[ValueIndex]> {
        match self.value(index) {
            PickleValue::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn text(&self, index: ValueIndex) -> Option<&str> {
        match self.value(index) {
            PickleValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer that is zero or more.
    pub(super) fn size(&self, index: ValueIndex) -> Option<usize> {
        match *self.value(index) {
            PickleValue::Int(number) => usize::try_from(number).ok(),
            _ => None,
        }
    }

    /// A tuple of up to `most` integers that are zero or more.
    pub(super) fn sizes(&self, index: ValueIndex, most: usize) -> Option<Vec<usize>> {
        let items = self.tuple(index).filter(|items| items.len() <= most)?;
        items.iter().map(|&item| self.size(item)).collect()
    }

    pub(super) fn global(&self, index: ValueIndex) -> Option<(&str, &str)> {
        match self.value(index) {
            PickleValue::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }

    /// What a call calls, and its arguments.
    pub(super) fn call(&self, index: ValueIndex) -> Option<(ValueIndex, &[ValueIndex])> {
        match *self.value(index) {
            PickleValue::Call { callable, arguments } => Some((callable, self.tuple(arguments)?)),
            _ => None,
        }
    }
}

#[derive(Default)]
struct StackMachine<'a> {
    bytes: &'a [u8],
    values: Vec<PickleValue>,
    stack: Vec<ValueIndex>,
    /// Heights of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, ValueIndex>,
}

impl StackMachine<'_> {
    /// Runs one opcode. False if it was the last one.
    fn step(&mut self) -> Result<bool, PickleError> {
        let [opcode] = self.take()?;
        match opcode {
            b'.' => return Ok(false),
            0x80 => drop(self.take::<1>()?),
            0x95 => drop(self.take::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(PickleValue::Other),
            b'G' => {
                self.take::<8>()?;
                self.push(PickleValue::Other);
            }
            0x88 | 0x89 => self.push(PickleValue::Bool(opcode == 0x88)),
            b'K' | b'M' | b'J' | 0x8a => self.number(opcode)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'C' | b'B' => self.string(opcode)?,
            b'c' => {
                let [module, name] = [self.line()?, self.line()?];
                self.push(PickleValue::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let names = [module, name].map(|index| match &self.values[index] {
                    PickleValue::Text(text) => Ok(text.clone()),
                    _ => Err(PickleError::Stack),
                });
                let [module, name] = names;
                self.push(PickleValue::Global(module?, name?));
            }
            b')' | b't' | 0x85..=0x87 | b']' | b'}' | b'd' | b'l' => self.collection(opcode)?,
            b'a' | b'e' | b's' | b'u' => self.extend(opcode)?,
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let ordered = matches!(&self.values[callable], PickleValue::Global(module, name)
                    if module == "collections" && (name == "OrderedDict" || name == "defaultdict"));
                self.push(match ordered {
                    true => PickleValue::Dict(Vec::new()),
                    false => PickleValue::Call { callable, arguments },
                });
            }
            // The state of an object. A state_dict's are version numbers, which are not needed.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let id = self.pop()?;
                self.push(PickleValue::Persistent(id));
            }
            b'0' => drop(self.pop()?),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memorise(opcode)?,
            opcode => return Err(PickleError::Opcode(opcode)),
        }
        Ok(true)
    }

    fn number(&mut self, opcode: u8) -> Result<(), PickleError> {
        let number = match opcode {
            b'K' => i64::from(self.take::<1>()?[0]),
            b'M' => i64::from(u16::from_le_bytes(self.take()?)),
            b'J' => i64::from(i32::from_le_bytes(self.take()?)),
            _ => {
                let [length] = self.take()?;
                let bytes = self.slice(usize::from(length))?;
                // A tensor's description has no number of more than 64 bits.
                if bytes.len() > size_of::<i64>() {
                    self.push(PickleValue::Other);
                    return Ok(());
                }
                let sign = bytes.last().map_or(0, |byte| if byte & 0x80 == 0 { 0 } else { 0xff });
                let mut whole = [sign; size_of::<i64>()];
                whole[..bytes.len()].copy_from_slice(bytes);
                i64::from_le_bytes(whole)
            }
        };
        self.push(PickleValue::Int(number));
        Ok(())
    }

    fn string(&mut self, opcode: u8) -> Result<(), PickleError> {
        let length = match opcode {
            0x8c | b'U' | b'C' => usize::from(self.take::<1>()?[0]),
            0x8d => usize::try_from(u64::from_le_bytes(self.take()?)).unwrap_or(usize::MAX),
            _ => u32::from_le_bytes(self.take()?) as usize,
        };
        let bytes = self.slice(length)?;
        let value = match opcode {
            b'C' | b'B' => PickleValue::Other,
            _ => PickleValue::Text(text(bytes)?),
        };
        self.push(value);
        Ok(())
    }

    fn collection(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b']' => PickleValue::List(Vec::new()),
            b'}' => PickleValue::Dict(Vec::new()),
            b'd' => PickleValue::Dict(pairs(&self.pop_to_mark()?)?),
            b'l' => PickleValue::List(self.pop_to_mark()?),
            b't' => PickleValue::Tuple(self.pop_to_mark()?),
            b')' => PickleValue::Tuple(Vec::new()),
            _ => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).ok_or(PickleError::Stack)?;
                PickleValue::Tuple(self.stack.split_off(start))
            }
        };
        self.push(value);
        Ok(())
    }

    fn extend(&mut self, opcode: u8) -> Result<(), PickleError> {
        let mut items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                vec![key, value]
            }
            _ => self.pop_to_mark()?,
        };
        let target = *self.stack.last().ok_or(PickleError::Stack)?;
        match (&mut self.values[target], opcode) {
            (PickleValue::List(list), b'a' | b'e') => list.append(&mut items),
            (PickleValue::Dict(dict), b's' | b'u') => dict.append(&mut pairs(&items)?),
            // An object of a class with a list's or dict's methods is no tensor.
            (PickleValue::Call { .. }, _) => {}
            _ => return Err(PickleError::Stack),
        }
        Ok(())
    }

    fn memorise(&mut self, opcode: u8) -> Result<(), PickleError> {
        let id = match opcode {
            b'q' | b'h' => u32::from(self.take::<1>()?[0]),
            0x94 => self.memo.len() as u32,
            _ => u32::from_le_bytes(self.take()?),
        };
        if matches!(opcode, b'h' | b'j') {
            self.stack.push(*self.memo.get(&id).ok_or(PickleError::Stack)?);
        } else {
            self.memo.insert(id, *self.stack.last().ok_or(PickleError::Stack)?);
        }
        Ok(())
    }

    fn push(&mut self, value: PickleValue) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<ValueIndex, PickleError> {
        self.stack.pop().ok_or(PickleError::Stack)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<ValueIndex>, PickleError> {
        let mark = self.marks.pop().ok_or(PickleError::Stack)?;
        if mark > self.stack.len() {
            return Err(PickleError::Stack);
        }
        Ok(self.stack.split_off(mark))
    }

    fn slice(&mut self, length: usize) -> Result<&[u8], PickleError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(PickleError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(PickleError::Truncated)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let end = self.bytes.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or(PickleError::Truncated)?;
        let line = text(self.slice(end)?);
        self.take::<1>()?;
        line
    }
}

fn text(bytes: &[u8]) -> Result<String, PickleError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| PickleError::Text)
}

fn pairs(items: &[ValueIndex]) -> Result<Vec<(ValueIndex, ValueIndex)>, PickleError> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(PickleError::Stack);
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `pickle.dumps({"a": (1, -2, 70000), "b": [None, True]}, protocol=2)`, Python 3.11.
    const DICT: &[u8] = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01J\xfe\xff\xff\xffJp\x11\x01\
        \x00\x87q\x02X\x01\x00\x00\x00bq\x03]q\x04(N\x88eu.";

    #[test]
    fn a_dict_is_read_as_python_wrote_it() {
        let pickle = Pickle::read(DICT).unwrap();
        let PickleValue::Dict(entries) = pickle.value(pickle.root()) else { panic!("no dict") };
        assert_eq!(pickle.text(entries[0].0), Some("a"));
        let numbers = pickle.tuple(entries[0].1).unwrap();
        let numbers: Vec<_> = numbers.iter().map(|&index| pickle.value(index).clone()).collect();
        assert_eq!(numbers, [PickleValue::Int(1), PickleValue::Int(-2), PickleValue::Int(70000)]);
        assert!(matches!(pickle.value(entries[1].1), PickleValue::List(items) if items.len() == 2));
    }

    #[test]
    fn every_cut_is_an_error() {
        for end in 0..DICT.len() {
            assert!(Pickle::read(&DICT[..end]).is_err());
        }
    }

    #[test]
    fn nesting_and_repetition_cost_no_more_than_their_bytes() {
        // A tuple in a tuple, a million deep.
        let mut deep = b"N".to_vec();
        deep.resize(1_000_000, 0x85);
        deep.push(b'.');
        assert_eq!(Pickle::read(&deep).unwrap().values.len(), 1_000_000);
        // Each pair holds the one before twice: 2^200 values if they were copied.
        let mut wide = b"N".to_vec();
        wide.extend(b"q\x00h\x00\x86".repeat(200));
        wide.push(b'.');
        assert_eq!(Pickle::read(&wide).unwrap().values.len(), 201);
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Pickle::read(&bytes));
        }
    }
}
