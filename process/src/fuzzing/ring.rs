//! The parent's end of a ring whose other end is an adversary, who writes any word at any time.

use std::sync::atomic::Ordering;

use super::Input;
use crate::codec::Limits;
use crate::entry::answers;
use crate::ring::{Listener, Near, Place, Reply, Size, Ticket};
use crate::sys::memory::SharedWords;

/// Both mappings of one ring.
pub(super) fn ends(size: Size) -> Option<(Near, SharedWords)> {
    let (near, fd) = SharedWords::create(size.words()).ok()?;
    Some((Near::new(near, size), SharedWords::map(&fd).ok()?))
}

pub(super) fn hostile(bytes: &[u8]) {
    let Some((mut near, words)) = ends(Size::Once) else { return };
    let mut input = Input(bytes);
    let mut tickets: Vec<(Ticket, u32)> = Vec::new();
    while !input.is_empty() {
        let chosen = tickets.get(input.below(tickets.len())).copied();
        match (input.below(10), chosen) {
            (0 | 1, _) => {
                let at = input.number(2) as usize % Size::Once.words();
                words.words()[at].store(input.number(8), Ordering::Relaxed);
            }
            // The words that control have a cache line each.
            (2, _) => words.words()[input.below(9) * 8].store(input.number(2), Ordering::Relaxed),
            (3, _) => {
                // Each takes some words, and nobody writes new ones meanwhile.
                for round in 0.. {
                    assert!(round <= 64, "there cannot be so many");
                    match near.pop() {
                        Ok(Some(reply)) => read(&reply),
                        Ok(None) => break,
                        // Its parent kills it.
                        Err(_) => return,
                    }
                }
            }
            (4, _) => {
                if let Some(reply) = near.salvage() {
                    read(&reply);
                }
            }
            (5, _) => {
                let (count, bytes) = (u32::from(input.byte()), input.bytes(40));
                match near.has_room(bytes.len()) {
                    Ok(true) => {
                        let ticket = near.push(1, count, Place::Here, bytes);
                        near.nudge();
                        tickets.push((ticket, count));
                    }
                    Ok(false) => {}
                    Err(_) => return,
                }
            }
            (6, Some((ticket, count))) => drop(near.revoke(ticket, count)),
            (7, Some((ticket, count))) => {
                let end = near.shorten(ticket, count, |left| left - left / 2);
                assert!(end <= count);
            }
            (8, Some((ticket, count))) => assert!(near.begun(ticket, count) <= count),
            (6..=8, None) => {
                near.listen(Listener::Doorbell, u32::from(input.byte()));
            }
            _ => {
                near.stop_listening();
                near.made_room();
                let _ = (near.has_reply(), near.is_listening());
            }
        }
    }
}

/// What a parent does with a reply that it has asked for.
fn read(reply: &Reply) {
    assert!(reply.count > 0);
    assert!(reply.bytes.len() <= Size::Once.words() * 8);
    let asked = Reply { count: reply.count.min(64), bytes: reply.bytes.clone(), ..*reply };
    let mut given = 0;
    answers::<u64>(&asked, &Limits::default(), |_| given += 1);
    answers::<String>(&asked, &Limits::default(), |_| given += 1);
    assert_eq!(given, 2 * asked.count, "each has one outcome");
}
