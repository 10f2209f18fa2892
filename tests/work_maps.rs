//! Every kind of map is right: by reference, over shared memory, for effects, and reduced.

use std::fs;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;

use epilogue::{Pool, SharedSlice, TaskError};
use serde::{Deserialize, Serialize};
use support::{Marks, begin};

/// Cannot be cloned.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Document {
    title: String,
    pages: Vec<String>,
}

fn documents(count: usize) -> Vec<Document> {
    let document = |n: usize| Document { title: format!("{n}"), pages: vec!["page".to_owned(); n] };
    (0..count).map(document).collect()
}

#[test]
fn items_are_mapped_by_reference_without_a_clone() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let documents = documents(50);
    let pages = pool.map_ref(&documents, |document: Document| document.pages.len()).unwrap();
    assert_eq!(pages, (0..50).collect::<Vec<_>>());
    // Any iterator of references will do.
    let odd = documents.iter().skip(1).step_by(2);
    let titles = pool.chunk_size(3).map_ref(odd, |document: Document| document.title).unwrap();
    assert_eq!(titles, (0..50).skip(1).step_by(2).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(pool.map_ref(&[0u8; 0], |x: u8| x).unwrap(), [0; 0]);
    drop(pool);
    oracle.nothing_left();
}

/// Whether the part lies in the memory of a file without a name, rather than on the heap.
fn is_shared(part: &[u64]) -> bool {
    let address = part.as_ptr() as usize;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let holds = |line: &&str| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).unwrap());
        (start..end).contains(&address)
    };
    maps.lines().find(holds).unwrap().contains("memfd:")
}

#[test]
fn parts_of_a_shared_slice_are_read_where_they_lie() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let numbers = SharedSlice::copy_from(&(0..100_000u64).collect::<Vec<_>>()).unwrap();
    assert!(pool.map_shared(&numbers, is_shared).unwrap().into_iter().all(|shared| shared));
    let sums = pool.map_shared(&numbers, |part| part.iter().sum::<u64>()).unwrap();
    assert_eq!(sums.len(), 16);
    assert_eq!(sums.iter().sum::<u64>(), 100_000 * 99_999 / 2);
    // In order, all of the elements, each once, and of the length that was asked for.
    let parts = pool.chunk_size(999).map_shared(&numbers, |part| (part[0], part.len())).unwrap();
    assert_eq!(parts.len(), 101);
    assert!(parts.iter().enumerate().all(|(n, part)| part.0 == n as u64 * 999));
    assert_eq!(parts.iter().map(|part| part.1).sum::<usize>(), 100_000);
    drop((pool, numbers));
    oracle.nothing_left();
}

#[test]
fn a_shared_slice_of_any_length_and_any_part_of_one_can_be_mapped() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let bytes = SharedSlice::copy_from(&[1u8, 2, 3, 4, 5]).unwrap();
    assert_eq!(pool.map_shared(&bytes, |part| part.to_vec()).unwrap().concat(), [1, 2, 3, 4, 5]);
    let middle = bytes.slice(1..4);
    assert_eq!(
        pool.chunk_size(2).map_shared(&middle, <[u8]>::to_vec).unwrap(),
        [vec![2, 3], vec![4]]
    );
    assert_eq!(pool.chunk_size(100).map_shared(&middle, <[u8]>::to_vec).unwrap(), [[2, 3, 4]]);
    let none = bytes.slice(5..);
    assert_eq!(pool.map_shared(&none, |part| part.len()).unwrap(), [0usize; 0]);
    let lost = pool.map_shared(&bytes, |part| assert!(!part.contains(&3), "three"));
    assert!(matches!(lost, Err(TaskError::Panicked(_))), "{lost:?}");
    drop((pool, bytes, middle, none));
    oracle.nothing_left();
}

#[test]
fn for_each_calls_the_function_once_for_each_item() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::new(2).unwrap();
    let items = (0..100).map(|n| (marks.path(), format!("item-{n}")));
    let leave = |(marks, name): (PathBuf, String)| Marks::at(&marks).leave(&name);
    pool.for_each(items, leave).unwrap();
    assert!((0..100).all(|n| marks.count(&format!("item-{n}")) == 1));
    let failed = pool.for_each([1u8, 0], |x| assert!(x > 0, "nothing"));
    assert!(matches!(failed, Err(TaskError::Panicked(_))), "{failed:?}");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn reducing_needs_a_function_that_is_associative_and_no_more() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let text = |n: u64| n.to_string() + ",";
    let whole: String = (0..3000).map(text).collect();
    for chunk in [0, 1, 7, 5000] {
        let maps = pool.chunk_size(chunk);
        // Every now and then an item takes so long that others overtake it.
        let reduced = maps.map_reduce(
            0..3000u64,
            |n| {
                if n % 500 == 0 {
                    thread::sleep(Duration::from_millis(8));
                }
                n.to_string() + ","
            },
            |a, b| a + &b,
        );
        assert_eq!(reduced.unwrap().unwrap(), whole, "in chunks of {chunk}");
    }
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn what_is_reduced_is_reduced_in_the_workers() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    // How many values were joined in a worker, and how many by the parent.
    fn count(a: (u32, u64, u64), b: (u32, u64, u64)) -> (u32, u64, u64) {
        let (here, there) = (u64::from(process::id() != a.0), u64::from(process::id() == a.0));
        (a.0, a.1 + b.1 + there, a.2 + b.2 + here)
    }
    let parent = process::id();
    let items = std::iter::repeat_n(parent, 10_000);
    let reduced = pool.chunk_size(100).map_reduce(items, |parent| (parent, 0, 0), count);
    let (_, by_parent, by_workers) = reduced.unwrap().unwrap();
    // A worker that is kept from its CPU for so long gives a part of its list back.
    assert_eq!(by_parent + by_workers, 9999);
    assert!(by_workers >= 8000, "{by_workers} by the workers, {by_parent} by the parent");
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn the_slow_items_of_a_list_go_back_and_out_again() {
    let (oracle, _watchdog) = begin();
    let marks = Marks::new();
    let pool = Pool::new(2).unwrap();
    let items = (0..12).map(|n| (marks.path(), n));
    let reduced = pool.chunk_size(4).map_reduce(
        items,
        |(marks, n): (PathBuf, u32)| {
            thread::sleep(Duration::from_millis(6));
            Marks::at(&marks).leave("mapped");
            vec![n]
        },
        |a, b| [a, b].concat(),
    );
    assert_eq!(reduced.unwrap().unwrap(), (0..12).collect::<Vec<_>>());
    // Each item once, and one list for each: none had time for a second item.
    assert_eq!((marks.count("mapped"), pool.close().unwrap().done), (12, 12));
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn nothing_reduces_to_nothing_and_one_item_to_its_value() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map_reduce(0..0u8, |x| x, |a, b| a + b).unwrap(), None);
    assert_eq!(pool.map_reduce([7u8], |x| x, |_, _| 0).unwrap(), Some(7));
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn an_error_ends_a_reduction_and_is_that_of_the_first_list_that_had_one() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    let endless = pool.map_reduce(0u64.., |x| assert!(x < 1000, "far enough"), |(), ()| ());
    assert!(endless.unwrap_err().to_string().contains("no end"));
    let endless = std::iter::successors(Some(0u64), |x| Some(x + 1));
    let failed = pool.map_reduce(endless, |x| assert!(x < 1000, "far enough"), |(), ()| ());
    assert!(failed.unwrap_err().to_string().contains("far enough"));
    let failed = pool.chunk_size(10).map_reduce(
        0..20u64,
        |x| x,
        |a, b| {
            assert!(a + b < 20, "too much");
            a + b
        },
    );
    assert!(matches!(failed, Err(TaskError::Panicked(_))), "{failed:?}");
    let lost = pool.map_reduce([0u8], |_| process::abort(), |(), ()| ());
    assert!(matches!(lost, Err(TaskError::WorkerLost(_))), "{lost:?}");
    assert_eq!(pool.map_reduce([1u8, 2], |x| x, |a, b| a + b).unwrap(), Some(3));
    drop(pool);
    oracle.nothing_left();
}

#[test]
fn what_is_too_long_together_is_reduced_in_parts() {
    let (oracle, _watchdog) = begin();
    let mut limits = epilogue::Limits::default();
    limits.max_bytes = 1 << 20;
    let pool = Pool::builder().workers(2).limits(limits).start().unwrap();
    let long = || "x".repeat(300 << 10);
    let items = (0..10).map(|_| long());
    let lengths = pool.chunk_size(10).map_reduce(items, |text: String| text.len(), |a, b| a + b);
    assert_eq!(lengths.unwrap(), Some(3000 << 10));
    let too_long = pool.map_reduce(["x".repeat(2 << 20)], |text: String| text.len(), |a, b| a + b);
    assert!(matches!(too_long, Err(TaskError::Encode { .. })), "{too_long:?}");
    drop(pool);
    oracle.nothing_left();
}

/// Longer than the buffer of a socket: whoever sends one cannot write all of it at once, and may be
/// waiting for an outcome when there is room again.
#[test]
fn items_that_are_long_all_arrive_whoever_sends_them() {
    let (oracle, _watchdog) = begin();
    let pool = Pool::new(2).unwrap();
    for _ in 0..3 {
        let items = (0..20).map(|_| vec![1u8; 1 << 20]);
        let lengths = pool.map(items, |bytes: Vec<u8>| bytes.len()).unwrap();
        assert_eq!(lengths, [1 << 20; 20]);
    }
    drop(pool);
    oracle.nothing_left();
}
