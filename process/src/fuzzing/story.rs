//! Both ends of a ring, by the rules, in any order, up to a death at any moment: each item of each
//! call is run, or taken back, or left to its parent, and no two of these; each answer arrives once.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Input, ring::ends};
use crate::ring::{Far, Form, Near, Place, Reply, Size, Ticket};

/// What has become of the items of one call, by who says so.
#[derive(Debug)]
struct Call {
    ticket: Ticket,
    id: u64,
    /// Where it ends, for its parent: what was taken back is beyond.
    end: u32,
    /// How many its child has claimed.
    claimed: u32,
    /// How many of those have been answered, and how many answers have arrived.
    answered: u32,
    arrived: u32,
}

pub(super) fn target(bytes: &[u8]) {
    let Some((mut near, words)) = ends(Size::Once) else { return };
    let Ok(mut far) = Far::new(Arc::new(words)) else { return };
    let mut input = Input(bytes);
    let (mut calls, mut current): (VecDeque<Call>, Option<(u64, u64)>) = (VecDeque::new(), None);
    let mut next_id = 0;
    // Old records lie everywhere, which must not be taken for new ones.
    for old in 0..u64::from(input.byte()) {
        if far.stage(u64::MAX - old, 0, Form::Raw) && far.has_room() {
            far.staged().extend_from_slice(&[0; 8]);
            far.commit();
            let _ = far.publish(0);
        }
        drop(near.pop());
    }
    while !input.is_empty() {
        let chosen = input.below(calls.len());
        match input.below(8) {
            0 => push(&mut near, &mut calls, &mut next_id, &mut input),
            // It goes on when nothing of the call is left to claim.
            1 if current.is_none_or(|(at, _)| far.claim(at, 0).0 >= end_of(&calls, current)) => {
                current = far.next().map(|call| (call.at, call.id));
            }
            1 => {}
            2 | 3 => match answer(&mut far, &mut calls, current, &mut input) {
                Going::On => {}
                Going::Dead => break,
            },
            4 => {
                let _ = far.publish(0);
            }
            5 => take(&mut near, &mut calls),
            6 => {
                if let Some(call) = calls.get_mut(chosen) {
                    let end = near.shorten(call.ticket, call.end, |left| left / 2);
                    assert!((call.claimed..=call.end).contains(&end), "{end} of {call:?}");
                    call.end = end;
                }
            }
            _ => {
                if let Some(call) = calls.get_mut(chosen)
                    && near.revoke(call.ticket, call.end)
                {
                    assert_eq!(call.claimed, 0, "{call:?}");
                    call.end = 0;
                }
            }
        }
    }
    // The child dies here. What it published, then what it had answered, then nothing.
    take(&mut near, &mut calls);
    if let Some(reply) = near.salvage() {
        arrive(&mut calls, &reply);
    }
    for call in &calls {
        assert_eq!(call.arrived, call.answered, "{call:?}");
        if call.end > 0 && call.claimed < call.end {
            assert_eq!(near.begun(call.ticket, call.end), call.claimed, "{call:?}");
        }
    }
}

/// How far a child has got with a call.
enum Going {
    On,
    /// It would wait for room, and dies of it.
    Dead,
}

/// Where the call ends that is being answered.
fn end_of(calls: &VecDeque<Call>, current: Option<(u64, u64)>) -> u32 {
    let call = calls.iter().find(|call| current.is_some_and(|(_, id)| id == call.id));
    call.map_or(0, |call| call.end)
}

fn push(near: &mut Near, calls: &mut VecDeque<Call>, next_id: &mut u64, input: &mut Input<'_>) {
    let (count, bytes) = (u32::from(input.byte()), input.bytes(24));
    if calls.len() < 64 && matches!(near.has_room(bytes.len()), Ok(true)) {
        *next_id += 1;
        let ticket = near.push(*next_id, count, Place::Here, bytes);
        let (claimed, answered, arrived) = (0, 0, 0);
        calls.push_back(Call { ticket, id: *next_id, end: count, claimed, answered, arrived });
    }
}

/// The bytes of an answer, which tell whose it is.
fn text(id: u64, index: u32) -> [u8; 8] {
    (id << 32 | u64::from(index)).to_le_bytes()
}

fn answer(
    far: &mut Far,
    calls: &mut VecDeque<Call>,
    current: Option<(u64, u64)>,
    input: &mut Input<'_>,
) -> Going {
    let Some((at, id)) = current else { return Going::On };
    // Before it claims: what it has claimed it answers.
    if !far.has_room() || far.staged_len() > 0 {
        return Going::On;
    }
    let (first, count) = far.claim(at, 1 + u32::from(input.byte() % 3));
    let Some(call) = calls.iter_mut().find(|call| call.id == id) else {
        assert_eq!(count, 0, "a call that was given up");
        return Going::On;
    };
    assert!(first + count <= call.end.max(first), "{first} {count} {call:?}");
    if count > 0 {
        assert_eq!(first, call.claimed, "{call:?}");
        call.claimed += count;
    }
    let mut index = first;
    while index < first + count {
        // Numbers go the short way, if that is open.
        let from = index;
        if let Some(mut words) = far.words(id, &mut index, first + count - from) {
            for index in from..first + count {
                if words.has_room() {
                    words.put(u64::from_le_bytes(text(id, index)));
                }
            }
        } else {
            if !far.stage(id, index, Form::Raw) {
                let _ = far.publish(0);
                assert!(far.stage(id, index, Form::Raw));
            }
            far.staged().extend_from_slice(&text(id, index));
            if !far.has_room() {
                drop(far.unstage());
                return Going::Dead;
            }
            far.commit();
            index += 1;
        }
        call.answered += index - from;
    }
    Going::On
}

fn take(near: &mut Near, calls: &mut VecDeque<Call>) {
    loop {
        match near.pop() {
            Ok(Some(reply)) => arrive(calls, &reply),
            Ok(None) => return,
            Err(error) => panic!("by the rules: {error}"),
        }
    }
}

fn arrive(calls: &mut VecDeque<Call>, reply: &Reply) {
    let Some(call) = calls.iter_mut().find(|call| call.id == reply.id) else {
        panic!("nobody asked for {reply:?}");
    };
    assert!(reply.first >= call.arrived && reply.first + reply.count <= call.claimed, "{call:?}");
    let expected: Vec<u8> =
        (reply.first..reply.first + reply.count).flat_map(|index| text(reply.id, index)).collect();
    assert_eq!(reply.bytes[..], expected[..]);
    call.arrived += reply.count;
}
