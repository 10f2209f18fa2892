use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Point, Unit, Wrapper, bytes_of, rehearse};
use crate::codec::*;

#[test]
fn bytes_must_be_one_value_and_nothing_else() {
    let read = |bytes: &[u8]| decode::<(u8, bool)>(bytes, &Limits::default());
    assert_eq!(read(&[1, 1]).unwrap(), (1, true));
    assert_eq!(read(&[1]).unwrap_err().problem, Problem::Truncated);
    assert_eq!(read(&[1, 1, 0, 0]).unwrap_err().problem, Problem::Trailing { bytes: 2 });
    assert!(matches!(read(&[1, 2]).unwrap_err().problem, Problem::Invalid { .. }));
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Node {
    next: Option<Box<Node>>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Nest {
    Leaf,
    Inner(Box<Nest>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Endless(Box<Endless>);

#[test]
fn nesting_ends_before_the_stack_does() {
    let limit = Limits::default().max_depth;
    let too_deep = Problem::TooDeep { limit };
    let tags = vec![1; 2 << 20];
    assert_eq!(decode::<Nest>(&tags, &Limits::default()).unwrap_err().problem, too_deep);
    assert_eq!(decode::<Endless>(&[], &Limits::default()).unwrap_err().problem, too_deep);

    let list = |nodes: u32| {
        (1..nodes).fold(Node::default(), |node, _| Node { next: Some(Box::new(node)) })
    };
    assert_eq!(rehearse(&list(limit / 2)), Ok(()));
    assert_eq!(rehearse(&list(limit)), Err(too_deep));
}

#[test]
fn few_bytes_cannot_claim_much_memory() {
    let claimed = |bytes: &[u8], decode: fn(&[u8], &Limits) -> Result<(), DecodeError>| {
        let problem = decode(bytes, &Limits::default()).unwrap_err().problem;
        assert!(matches!(problem, Problem::Amplified { .. }), "{problem:?}");
    };
    // Elements without a size, as many as a number can count.
    let mut endless = vec![0xff; 9];
    endless.push(1);
    claimed(&endless, |bytes, limits| decode::<Vec<()>>(bytes, limits).map(drop));
    claimed(&endless, |bytes, limits| decode::<Vec<Unit>>(bytes, limits).map(drop));
    claimed(&endless, |bytes, limits| decode::<Vec<u64>>(bytes, limits).map(drop));
    // One byte for an element, thousands in memory, inline or boxed.
    type Big = Option<Box<([[u64; 32]; 16], u8)>>;
    assert!(decode::<Vec<Big>>(&bytes_of(&vec![Big::None; 1000]), &Limits::default()).is_ok());
    type Wide = Option<[[u64; 32]; 16]>;
    let mut nones = bytes_of(&(1u64 << 20));
    nones.resize(nones.len() + (1 << 20), 0);
    claimed(&nones, |bytes, limits| decode::<Vec<Wide>>(bytes, limits).map(drop));
    claimed(&nones, |bytes, limits| decode::<Vec<Box<Wide>>>(bytes, limits).map(drop));
}

#[test]
fn a_limit_counts_from_where_the_buffer_began() {
    let limits = Limits { max_bytes: 10, ..Limits::default() };
    let mut out = vec![0; 100];
    encode(&[7u8; 9].to_vec(), &mut out, &limits).unwrap();
    assert_eq!(out.len(), 110);
    let error = encode("ten bytes!", &mut out, &limits).unwrap_err();
    assert_eq!(error.problem, Problem::TooLarge { limit: 10 });
    assert_eq!(out.len(), 110);
    let error = decode::<Vec<u8>>(&[0; 11], &limits).unwrap_err();
    assert_eq!(error.problem, Problem::TooLarge { limit: 10 });
}

#[test]
fn any_bytes_are_a_value_or_an_error() {
    type Anything =
        (Wrapper, BTreeMap<String, Option<Node>>, Vec<(i8, u128, char)>, Point<Vec<()>>);
    let whole = bytes_of::<Anything>(&(
        Wrapper(vec![super::Shape::Circle(0.5), super::Shape::Nothing]),
        BTreeMap::from([("key".to_owned(), Some(Node::default()))]),
        vec![(-1, u128::MAX, 'x')],
        Point { x: vec![], y: vec![(); 3] },
    ));
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=round % 4 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = (seed >> 8) as usize % bytes.len();
            bytes[at] = seed as u8;
            bytes.truncate(bytes.len().max(1) - usize::from(seed >> 60 == 0));
        }
        if let Ok(value) = decode::<Anything>(&bytes, &Limits::default()) {
            // Numbers may be written longer than need be.
            assert!(bytes_of(&value).len() <= bytes.len());
        }
    }
}
