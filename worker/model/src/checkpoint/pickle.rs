//! A pickle as data: Python's stack machine (`pickletools` documents its opcodes) without the
//! calls, so that nothing a file asks for is run.
//!
//! Values lie in one list and name each other by their place in it: whatever a file does,
//! there is at most one for each of its opcodes, and no recursion. candle's reader, which this
//! replaces, copies whatever a file refers to again, drops nested values recursively and
//! indexes arguments unchecked: a few hostile bytes would end a worker.

use std::collections::HashMap;

/// A value's place in a [`Pickle`].
pub(super) type Place = usize;

/// A pickled value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// `None`, floats, bytes: nothing that a tensor consists of.
    Other,
    Bool(bool),
    Int(i64),
    Text(String),
    /// A class or function, by module and name.
    Global(String, String),
    Tuple(Vec<Place>),
    List(Vec<Place>),
    Dict(Vec<(Place, Place)>),
    /// What calling something with a tuple would give.
    Call {
        callable: Place,
        arguments: Place,
    },
    /// What the surrounding file knows by that id.
    Persistent(Place),
}

/// Why bytes are no pickle that can be read.
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

/// A pickle's values.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Place,
}

impl Pickle {
    /// Reads a whole pickle, protocols 2 to 5.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, PickleError> {
        let mut machine = Machine { bytes, ..Machine::default() };
        while machine.step()? {}
        let root = machine.pop()?;
        Ok(Self { values: machine.values, root })
    }

    /// What was pickled.
    pub(super) fn root(&self) -> Place {
        self.root
    }

    /// The value at a place.
    pub(super) fn value(&self, place: Place) -> &Value {
        &self.values[place]
    }

    /// The items of a tuple.
    pub(super) fn tuple(&self, place: Place) -> Option<&[Place]> {
        match self.value(place) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn text(&self, place: Place) -> Option<&str> {
        match self.value(place) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A size or offset.
    pub(super) fn size(&self, place: Place) -> Option<usize> {
        match *self.value(place) {
            Value::Int(number) => usize::try_from(number).ok(),
            _ => None,
        }
    }

    /// A tuple of sizes.
    pub(super) fn sizes(&self, place: Place) -> Option<Vec<usize>> {
        self.tuple(place)?.iter().map(|&item| self.size(item)).collect()
    }

    pub(super) fn global(&self, place: Place) -> Option<(&str, &str)> {
        match self.value(place) {
            Value::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }

    /// What is called and with which arguments.
    pub(super) fn call(&self, place: Place) -> Option<(Place, &[Place])> {
        match *self.value(place) {
            Value::Call { callable, arguments } => Some((callable, self.tuple(arguments)?)),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    stack: Vec<Place>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Place>,
}

impl Machine<'_> {
    /// Does one opcode; false where it was the last.
    fn step(&mut self) -> Result<bool, PickleError> {
        let [opcode] = self.take()?;
        match opcode {
            b'.' => return Ok(false),
            0x80 => drop(self.take::<1>()?),
            0x95 => drop(self.take::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Value::Other),
            b'G' => {
                self.take::<8>()?;
                self.push(Value::Other);
            }
            0x88 | 0x89 => self.push(Value::Bool(opcode == 0x88)),
            b'K' | b'M' | b'J' | 0x8a => self.number(opcode)?,
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'C' | b'B' => self.string(opcode)?,
            b'c' => {
                let [module, name] = [self.line()?, self.line()?];
                self.push(Value::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let names = [module, name].map(|place| match &self.values[place] {
                    Value::Text(text) => Ok(text.clone()),
                    _ => Err(PickleError::Stack),
                });
                let [module, name] = names;
                self.push(Value::Global(module?, name?));
            }
            b')' | b't' | 0x85..=0x87 | b']' | b'}' | b'd' | b'l' => self.collection(opcode)?,
            b'a' | b'e' | b's' | b'u' => self.extend(opcode)?,
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let ordered = matches!(&self.values[callable], Value::Global(module, name)
                    if module == "collections" && (name == "OrderedDict" || name == "defaultdict"));
                self.push(match ordered {
                    true => Value::Dict(Vec::new()),
                    false => Value::Call { callable, arguments },
                });
            }
            // An object's further state: of a state_dict its versions, which change nothing.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
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
                // Beyond 64 bits it is no size of anything.
                if bytes.len() > size_of::<i64>() {
                    self.push(Value::Other);
                    return Ok(());
                }
                let sign = bytes.last().map_or(0, |byte| if byte & 0x80 == 0 { 0 } else { 0xff });
                let mut whole = [sign; size_of::<i64>()];
                whole[..bytes.len()].copy_from_slice(bytes);
                i64::from_le_bytes(whole)
            }
        };
        self.push(Value::Int(number));
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
            b'C' | b'B' => Value::Other,
            _ => Value::Text(text(bytes)?),
        };
        self.push(value);
        Ok(())
    }

    fn collection(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b']' => Value::List(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            b'd' => Value::Dict(pairs(&self.pop_to_mark()?)?),
            b'l' => Value::List(self.pop_to_mark()?),
            b't' => Value::Tuple(self.pop_to_mark()?),
            b')' => Value::Tuple(Vec::new()),
            _ => {
                let count = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(count).ok_or(PickleError::Stack)?;
                Value::Tuple(self.stack.split_off(start))
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
            (Value::List(list), b'a' | b'e') => list.append(&mut items),
            (Value::Dict(dict), b's' | b'u') => dict.append(&mut pairs(&items)?),
            // An object of a class that is called like a list or dict: of no interest.
            (Value::Call { .. }, _) => {}
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

    fn push(&mut self, value: Value) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Place, PickleError> {
        self.stack.pop().ok_or(PickleError::Stack)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Place>, PickleError> {
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

fn pairs(items: &[Place]) -> Result<Vec<(Place, Place)>, PickleError> {
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
        let Value::Dict(entries) = pickle.value(pickle.root()) else { panic!("no dict") };
        assert_eq!(pickle.text(entries[0].0), Some("a"));
        let numbers = pickle.tuple(entries[0].1).unwrap();
        let numbers: Vec<_> = numbers.iter().map(|&place| pickle.value(place).clone()).collect();
        assert_eq!(numbers, [Value::Int(1), Value::Int(-2), Value::Int(70000)]);
        assert!(matches!(pickle.value(entries[1].1), Value::List(items) if items.len() == 2));
    }

    #[test]
    fn every_cut_is_an_error() {
        for end in 0..DICT.len() {
            assert!(Pickle::read(&DICT[..end]).is_err());
        }
    }

    #[test]
    fn nesting_and_repetition_cost_no_more_than_their_bytes() {
        // Tuples of tuples, a million deep.
        let mut deep = b"N".to_vec();
        deep.resize(1_000_000, 0x85);
        deep.push(b'.');
        assert_eq!(Pickle::read(&deep).unwrap().values.len(), 1_000_000);
        // Each pair of itself: two to the power of 200 where it is copied.
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
