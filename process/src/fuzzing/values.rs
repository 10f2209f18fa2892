//! Values that a child sends: decoded within the limits, or refused; what was taken for a value is
//! one, and it holds no more memory than its bytes allow.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Input;
use crate::codec::{Limits, decode, encode};
use crate::entry::{answers, extend_from_answers, only_answer};
use crate::portable::Portable;
use crate::ring::{Form, Reply};

/// Everything that a value can be made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tree {
    Nothing,
    Number(i64),
    Ratio(f32),
    Text(String),
    Both(Box<Tree>, Box<Tree>),
    Many(Vec<Tree>),
    Named { first: Option<Box<Tree>>, rest: BTreeMap<String, Tree> },
    Sign(char, bool, u128),
}

pub(super) fn target(bytes: &[u8]) {
    let mut input = Input(bytes);
    let limits = Limits {
        max_bytes: input.number(2) as usize,
        max_depth: u32::from(input.byte()),
        max_amplification: 1 + input.below(64),
    };
    match input.below(9) {
        0 => value::<Tree>(&mut input, &limits),
        1 => value::<Vec<u64>>(&mut input, &limits),
        2 => value::<String>(&mut input, &limits),
        3 => value::<HashMap<u16, Vec<u8>>>(&mut input, &limits),
        4 => value::<Vec<()>>(&mut input, &limits),
        5 => value::<Vec<Vec<Option<bool>>>>(&mut input, &limits),
        6 => value::<Result<(u8, i128, char), String>>(&mut input, &limits),
        7 => value::<[(u64, String); 3]>(&mut input, &limits),
        _ => value::<u64>(&mut input, &limits),
    }
}

fn value<T: Portable + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    input: &mut Input<'_>,
    limits: &Limits,
) {
    let form = if input.byte().is_multiple_of(2) { Form::Framed } else { Form::Raw };
    let count = 1 + u32::from(input.byte() % 8);
    let bytes = input.0;
    if let Ok(value) = decode::<T>(bytes, limits) {
        assert!(bytes.len() <= limits.max_bytes);
        let mut written = Vec::new();
        if let Err(error) = encode(&value, &mut written, limits) {
            panic!("{value:?} came, and cannot go: {error}");
        }
        match decode::<T>(&written, limits) {
            // A number that is none is not even itself.
            Ok(again) => assert!(value == again || format!("{value:?}") == format!("{again:?}")),
            Err(error) => panic!("{value:?} was written, and cannot be read: {error}"),
        }
    }
    let reply = Reply { id: 0, first: 0, count, nanos: 0, form, bytes: bytes.into() };
    let mut given = 0;
    answers::<T>(&reply, limits, |_| given += 1);
    assert_eq!(given, count);
    let mut values = Vec::<T>::new();
    match extend_from_answers(&reply, limits, &mut values) {
        Ok(()) => assert_eq!(values.len(), count as usize),
        Err((first, _)) => assert_eq!(values.len(), first),
    }
    // Of a reply that says it has as many as there can be, it reads the one that was asked for.
    drop(only_answer::<T>(&Reply { count: u32::MAX, ..reply }, limits));
}
