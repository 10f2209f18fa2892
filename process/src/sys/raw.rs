//! Numbers, short arrays and vectors of them, as the bytes that they are.
//!
//! Both ends are the same build on the same machine, so a number travels as its own bytes. A type
//! that only serde knows has to be asked for each of its fields; for these it is known what they
//! are made of, and a vector of them is copied at once.

#![expect(unsafe_code, reason = "a type parameter is taken for the type that it is")]

use std::any::TypeId;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::{self, NonNull};
use std::slice;

use nix::sys::mman::{MmapAdvise, madvise};

/// Bytes that can be copied.
///
/// # Safety
///
/// [`Source::copy_to`] writes to all of a target that is as long as [`Source::len`] says.
pub(crate) unsafe trait Source {
    /// How many bytes there are.
    fn len(&self) -> usize;

    /// Copies all of them to a target of that length.
    fn copy_to(&self, target: &mut [MaybeUninit<u8>]);
}

// SAFETY: it writes to all of the target, or panics.
unsafe impl Source for [u8] {
    #[inline]
    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn copy_to(&self, target: &mut [MaybeUninit<u8>]) {
        target.write_copy_of_slice(self);
    }
}

/// Memory that is about to be filled for the first time is had in pages of 2 MiB, if it is large
/// and the kernel has some: each page costs about as long as to copy the 4 KiB of a small one.
#[inline]
fn prefer_huge_pages(room: &mut [MaybeUninit<u8>]) {
    // So much holds a whole one, wherever it begins.
    const FROM: usize = 4 << 20;
    const PAGE: usize = 4096;
    if room.len() >= FROM {
        let skipped = room.as_ptr().align_offset(PAGE).min(room.len());
        let (start, len) = (room[skipped..].as_mut_ptr(), room.len() - skipped);
        let Some(start) = NonNull::new(start.cast()) else { return };
        // SAFETY: it changes how memory of our own is backed, and nothing of what is in it.
        let _ = unsafe { madvise(start, len, MmapAdvise::MADV_HUGEPAGE) };
    }
}

macro_rules! numbers {
    ($check:ident: $($number:ty),+) => {
        /// Whether `T` is a number or a short array of them, so that any bytes of its size are one.
        #[inline]
        pub(crate) fn is_plain<T>() -> bool {
            let $check = typeid::of::<T>();
            $($check == TypeId::of::<$number>() || is_array::<T, $number>($check))||+
        }

        /// The numbers of a `T` that is a vector of them, as bytes.
        #[inline]
        pub(crate) fn elements<T>(value: &T) -> Option<&[u8]> {
            let $check = typeid::of::<T>();
            $(if $check == TypeId::of::<Vec<$number>>() {
                // SAFETY: `T` is this very type: those of equal id are, and it has no lifetimes.
                let vector = unsafe { &*ptr::from_ref(value).cast::<Vec<$number>>() };
                return Some(bytemuck::cast_slice(vector));
            })+
            None
        }

        /// Whether `T` is a vector of numbers; the size of each in bytes.
        #[inline]
        pub(crate) fn element_size<T>() -> Option<usize> {
            let $check = typeid::of::<T>();
            $(if $check == TypeId::of::<Vec<$number>>() {
                return Some(size_of::<$number>());
            })+
            None
        }

        /// Makes the vector of numbers that [`elements`] took for bytes. None if `T` is none, or
        /// these are not whole numbers.
        #[inline]
        pub(crate) fn vector<T>(bytes: &(impl Source + ?Sized)) -> Option<T> {
            let $check = typeid::of::<T>();
            $(if $check == TypeId::of::<Vec<$number>>() {
                const SIZE: usize = size_of::<$number>();
                let len = bytes.len();
                if !len.is_multiple_of(SIZE) {
                    return None;
                }
                let mut vector = Vec::<$number>::with_capacity(len / SIZE);
                let room = vector.as_mut_ptr().cast::<MaybeUninit<u8>>();
                // SAFETY: the vector has room for as many bytes, and is nobody else's yet.
                let room = unsafe { slice::from_raw_parts_mut(room, len) };
                prefer_huge_pages(room);
                bytes.copy_to(room);
                // SAFETY: a source has written to all of it, and any bytes are a number.
                unsafe { vector.set_len(len / SIZE) };
                let vector = ManuallyDrop::new(vector);
                // SAFETY: `T` is this very type, and the original is not dropped.
                return Some(unsafe { ptr::from_ref(&vector).cast::<T>().read() });
            })+
            None
        }
    };
}

numbers!(id: u8, u16, u32, u64, usize, u128, i8, i16, i32, i64, isize, i128, f32, f64);

/// Whether `T` is an array of as many of these numbers as a vector, a pixel, a matrix or a digest
/// has; of others serde has to be asked.
#[inline]
fn is_array<T, N: 'static>(id: TypeId) -> bool {
    let is = |other, size| size == size_of::<T>() && other == id;
    is(TypeId::of::<[N; 2]>(), 2 * size_of::<N>())
        || is(TypeId::of::<[N; 3]>(), 3 * size_of::<N>())
        || is(TypeId::of::<[N; 4]>(), 4 * size_of::<N>())
        || is(TypeId::of::<[N; 8]>(), 8 * size_of::<N>())
        || is(TypeId::of::<[N; 16]>(), 16 * size_of::<N>())
        || is(TypeId::of::<[N; 32]>(), 32 * size_of::<N>())
}

/// The bytes of a number, or of an array of them.
#[inline]
pub(crate) fn bytes_of<T>(value: &T) -> Option<&[u8]> {
    if !is_plain::<T>() {
        return None;
    }
    // SAFETY: numbers are all bytes, without any between them, and they are borrowed with them.
    Some(unsafe { slice::from_raw_parts(ptr::from_ref(value).cast::<u8>(), size_of::<T>()) })
}

/// Whether `T` is a number, or an array of them, that is as long as a word.
#[inline]
pub(crate) fn is_word<T>() -> bool {
    is_plain::<T>() && size_of::<T>() == size_of::<u64>()
}

/// The word that has the bytes of a number that is one.
#[inline]
pub(crate) fn word_of<T>(value: &T) -> u64 {
    debug_assert!(is_word::<T>());
    bytes_of(value).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The number, or array of them, that these are the bytes of. None if `T` is none, or has another size.
#[inline]
pub(crate) fn number<T>(bytes: &[u8]) -> Option<T> {
    if !is_plain::<T>() || bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: as many bytes as a `T` has, and any are one; nothing is said of how they are aligned.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The numbers that these are the bytes of. None if `T` is none, or they are not whole ones.
#[inline]
pub(crate) fn numbers<T>(bytes: &[u8]) -> Option<impl ExactSizeIterator<Item = T>> {
    if !is_plain::<T>() || !bytes.len().is_multiple_of(size_of::<T>()) {
        return None;
    }
    let chunks = bytes.chunks_exact(size_of::<T>());
    // SAFETY: each is as many bytes as a `T` has, and any are one.
    Some(chunks.map(|bytes| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }))
}

#[cfg(test)]
mod tests {
    use super::{bytes_of, elements, number, vector};

    #[test]
    fn numbers_and_vectors_of_them_come_back_as_they_were() {
        assert_eq!(number::<u64>(bytes_of(&7u64).unwrap()), Some(7));
        assert_eq!(number::<f32>(bytes_of(&0.5f32).unwrap()), Some(0.5));
        assert_eq!(
            number::<[f64; 3]>(bytes_of(&[0.5, -1.0, 2.0]).unwrap()),
            Some([0.5, -1.0, 2.0])
        );
        assert_eq!(number::<[u8; 32]>(bytes_of(&[7u8; 32]).unwrap()), Some([7; 32]));
        let numbers = vec![1.5, -2.0];
        assert_eq!(vector::<Vec<f64>>(elements(&numbers).unwrap()), Some(numbers));
        assert_eq!(vector::<Vec<u8>>(&[][..]), Some(vec![]));
    }

    #[test]
    fn what_is_not_made_of_numbers_alone_is_left_to_serde() {
        assert!(bytes_of(&true).is_none() && bytes_of(&'a').is_none() && bytes_of(&()).is_none());
        assert!(bytes_of(&std::num::NonZero::new(1u8)).is_none());
        assert!(bytes_of(&[true; 4]).is_none() && bytes_of(&[0u8; 5]).is_none());
        assert!(bytes_of(&[[0u8; 2]; 2]).is_none() && bytes_of(&(1u8, 2u8)).is_none());
        assert!(elements(&vec![true]).is_none() && elements(&vec![vec![1u8]]).is_none());
        assert_eq!(number::<bool>(&[2]), None);
        assert_eq!(vector::<Vec<u16>>(&[1, 2, 3][..]), None);
    }
}
